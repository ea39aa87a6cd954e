//! `synprobe preflight`: what this host allows.

use super::{Failure, HOST, print, print_json, terminal};
use crate::{
    cli::{Format, PreflightArgs},
    preflight::{self, Readiness},
};

pub(super) fn run(args: &PreflightArgs) -> Result<(), Failure> {
    let report = preflight::report();
    match args.format {
        Format::Text => print(&report.text(terminal::style().width))?,
        Format::Json => print_json(&report)?,
    }
    match report.verdict() {
        Readiness::CannotRun => Err(Failure(
            "this host cannot run synprobe: see above".to_owned(),
            HOST,
        )),
        _ => Ok(()),
    }
}
