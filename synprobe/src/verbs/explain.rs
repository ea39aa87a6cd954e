//! `synprobe explain`: what a verdict means.

use super::{Failure, USAGE, print};
use crate::{
    cli::{ExplainArgs, did_you_mean, likeliest},
    model::VerdictKind,
    verdict,
};

pub(super) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let Some(name) = &args.verdict else {
        return print(&verdict::explain::list());
    };
    match VerdictKind::parse(name).and_then(verdict::find) {
        Some(verdict) => print(&verdict::explain::long(verdict)),
        None => {
            let better = likeliest(name, verdict::ALL.iter().map(|v| v.name()));
            let line = match better {
                None => format!(
                    "no verdict \"{name}\"; synprobe explain lists all, such as synack-lost"
                ),
                better => format!("no verdict \"{name}\"{}", did_you_mean(better)),
            };
            Err(Failure(line, USAGE))
        }
    }
}
