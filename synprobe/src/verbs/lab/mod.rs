//! `synprobe lab`: a handshake made to fail on purpose, and watched.

mod run;

use super::{
    FAILED, Failure, USAGE, failure, interrupted, print, print_json, setup, terminal, view,
};
use crate::{
    cli::{FamilyArg, Format, LabArgs, did_you_mean, likeliest},
    preflight,
    sys::journal::lines,
    util::fill::fill,
};

pub use run::{host_error, reader_gone, run as watched};

pub(super) fn run(args: &LabArgs) -> Result<(), Failure> {
    let Some(name) = args.scenario.as_deref().filter(|_| !args.list) else {
        return match args.format {
            Format::Text => print(&list_scenarios()),
            Format::Json => synprobe_lab::all().iter().try_for_each(|s| {
                print_json(&serde_json::json!({
                    "name": s.name(), "seconds": s.nominal_seconds(), "summary": s.summary(),
                }))
            }),
        };
    };
    let scenario = synprobe_lab::find(name).or_else(|| synprobe_lab::find(&name.replace('_', "-")));
    let Some(scenario) = scenario else {
        let better = likeliest(name, synprobe_lab::all().iter().map(|s| s.name()));
        let line = match better {
            None => format!(
                "no scenario \"{name}\"; synprobe lab --list shows all, such as synack-lost"
            ),
            better => format!("no scenario \"{name}\"{}", did_you_mean(better)),
        };
        return Err(Failure(line, USAGE));
    };
    let family = match args.family {
        FamilyArg::Ipv4 => synprobe_lab::SocketFamily::V4,
        FamilyArg::Ipv6 => synprobe_lab::SocketFamily::V6,
        FamilyArg::Mapped => synprobe_lab::SocketFamily::V4Mapped,
    };
    if !scenario.supports(family) {
        let family = format!("{:?}", args.family).to_lowercase();
        let line = format!("scenario {} is not for --family {family}", scenario.name());
        return Err(Failure(line, USAGE));
    }
    let failed = |error: &anyhow::Error| Failure(format!("{error:#}"), FAILED);
    let host = preflight::require().map_err(|e| failure(e.into()))?;
    let lab = synprobe_lab::Lab::new(family).map_err(|e| failed(&e))?;
    let setup = setup(&args.tuning)?;
    let view = view(args.format, false);
    let watched_run = match watched(&host, scenario, lab, &setup, view, interrupted()) {
        Err(error) if reader_gone(&error) => return Ok(()),
        watched_run => watched_run.map_err(|e| failed(&e))?.0,
    };
    let (report, agrees) = watched_run.report();
    match args.format {
        Format::Text => print(&report)?,
        // Standard output carries JSON only.
        Format::Json => lines(&report),
    }
    if agrees {
        Ok(())
    } else {
        Err(Failure(
            format!("scenario {name}: synprobe did not report what the lab made"),
            FAILED,
        ))
    }
}

fn list_scenarios() -> String {
    let width = synprobe_lab::all()
        .iter()
        .map(|s| s.name().len())
        .max()
        .unwrap_or(0);
    let columns = terminal::style().width;
    let line = |s: &&dyn synprobe_lab::Scenario| {
        let name = format!("{:<width$} {:>3} s  ", s.name(), s.nominal_seconds());
        // On a narrow terminal the summary stands below the name.
        let lines = match columns < 2 * name.len() {
            true => [
                vec![name.trim_end().to_owned()],
                fill("    ", "    ", s.summary(), columns),
            ]
            .concat(),
            false => fill(&name, &" ".repeat(name.len()), s.summary(), columns),
        };
        lines.join("\n") + "\n"
    };
    synprobe_lab::all().iter().map(line).collect()
}
