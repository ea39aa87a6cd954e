//! `synprobe explain`: what a verdict means.

use super::{Failure, USAGE, print, terminal};
use crate::{
    cli::{ExplainArgs, did_you_mean, likeliest},
    model::VerdictKind,
    verdict,
    view::explanation,
};

pub(super) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let lang = terminal::lang(args.language);
    // In a pipe the lines are those of the text.
    let columns = terminal::columns().unwrap_or(usize::MAX);
    let Some(name) = &args.verdict else {
        return print(&explanation::list(lang, columns));
    };
    match VerdictKind::parse(name).and_then(verdict::find) {
        Some(verdict) => print(&explanation::long(verdict, lang, columns)),
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
