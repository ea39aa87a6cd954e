//! `synprobe explain`: what a verdict means.

use super::{Failure, USAGE, print};
use crate::{cli::ExplainArgs, model::VerdictKind, verdict};

pub(super) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let Some(name) = &args.verdict else {
        return print(&verdict::explain::list());
    };
    match VerdictKind::parse(name).and_then(verdict::find) {
        Some(verdict) => print(&verdict::explain::long(verdict)),
        None => {
            let names: Vec<_> = verdict::ALL.iter().map(|v| v.name()).collect();
            let line = format!("no verdict \"{name}\"; verdicts: {}", names.join(", "));
            Err(Failure(line, USAGE))
        }
    }
}
