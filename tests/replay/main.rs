//! Replay is the run: every scenario of the lab, watched by several agents at the same time, each recorded,
//! and each recording replayed. What a reader sees is the same, byte for byte, but for the field that names
//! the recording. Then what a user does with recordings: narrower ones, damaged ones, rolling ones.

mod damaged;
mod narrower;
mod rolling;

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use synprobe::{
    filter::{Detail, Selection},
    pipeline::WatchOptions,
    probe::half_open_source::RequestedMode,
    verdict::Mode,
};
use synprobe_lab::{Lab, Scenario, SocketFamily};
use synprobe_tests::{
    binary,
    harness::{self, Case, Undecided},
    pipeline_run::options_for,
    recorded::{self, Scratch, Shown, ensure_same, run_scenario},
};

/// How long an incident is watched.
const LOOK: Duration = Duration::from_secs(5);
const QUIET: Detail = Detail::Quiet {
    slow: Duration::from_secs(1),
};

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for scenario in harness::scenarios() {
        for family in [SocketFamily::V4, SocketFamily::V6]
            .into_iter()
            .filter(|f| scenario.supports(*f))
        {
            cases.push(Case::for_family(scenario.name(), family, move |family| {
                replay_is_the_run(scenario, family)
            }));
        }
    }
    cases.extend(damaged::cases());
    cases.extend(rolling::cases());
    let code = harness::main_with(cases, 12);
    binary::remove();
    code
}

/// One agent.
struct Agent {
    name: &'static str,
    detail: Detail,
    wish: RequestedMode,
    mode: Mode,
    file: Scratch,
}

impl Agent {
    fn new(name: &'static str, detail: Detail, wish: RequestedMode, mode: Mode) -> Self {
        Self {
            name,
            detail,
            wish,
            mode,
            file: Scratch::new(),
        }
    }

    fn options(&self, lab: &Lab) -> Result<WatchOptions> {
        Ok(WatchOptions {
            mode: self.mode,
            detail: self.detail,
            requested_mode: self.wish,
            ..options_for(lab)?
        })
    }
}

/// Streaming and quiet, every mode that the host offers, `watch` and `diagnose`.
fn agents() -> Result<Vec<Agent>> {
    use RequestedMode::{Auto, Exact, Tracepoints};
    let mut agents = vec![
        Agent::new("watch", Detail::Handshakes, Tracepoints, Mode::AtOnce),
        Agent::new("watch --quiet", QUIET, Tracepoints, Mode::AtOnce),
    ];
    for (name, detail, mode) in [
        ("watch --mode exact", Detail::AllStates, Mode::AtOnce),
        ("diagnose --mode exact", QUIET, Mode::AtTheEnd),
    ] {
        if harness::host()?.exact_by(Exact, detail).is_ok() {
            agents.push(Agent::new(name, detail, Exact, mode));
        }
    }
    let every = Agent::new("diagnose --every", Detail::Handshakes, Auto, Mode::AtTheEnd);
    agents.push(every);
    Ok(agents)
}

fn replay_is_the_run(scenario: &'static dyn Scenario, family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let agents = agents()?;
    let mut runs = Vec::new();
    for agent in &agents {
        runs.push((agent.options(&lab)?, &*agent.file.0));
    }
    // Of an incident, another agent sees only the middle, as one does who is called when it has begun.
    let late = Agent::new("diagnose", QUIET, RequestedMode::Auto, Mode::AtTheEnd);
    let late_options = late.options(&lab)?;
    let mut seen_late = Vec::new();
    let (_, shown) = recorded::watch(runs, || {
        run_scenario(scenario, lab, || {
            let runs = vec![(late_options, &*late.file.0)];
            let watched = recorded::watch(runs, || {
                thread::sleep(LOOK);
                Ok(())
            });
            seen_late = watched?.1;
            Ok(())
        })
        // On a busy host a scenario may not come to its end: that decides nothing here.
        .map_err(|error| Undecided(format!("{error:#}")).into())
    })?;
    for (agent, shown) in agents.iter().zip(&shown) {
        same(agent, shown)?;
    }
    for shown in &seen_late {
        same(&late, shown)?;
    }
    let (whole, whole_shown) = (&agents[0].file.0, &shown[0]);
    narrower::holds(whole, &whole_shown.json).context("narrower")
}

fn same(agent: &Agent, run: &Shown) -> Result<()> {
    let (replay, replayed) =
        recorded::replay(&agent.file.0, agent.mode, Selection::default(), None)?;
    let name = agent.name;
    ensure!(replayed.damage.is_none(), "{name}: {:?}", replayed.damage);
    ensure_same(&format!("{name}, JSON"), &run.json, &replay.json)?;
    ensure_same(&format!("{name}, text"), &run.text, &replay.text)?;
    ensure_same(&format!("{name}, page"), &run.page, &replay.page)?;
    ensure!(run.json.lines().count() > 1, "{name}: no lines");
    Ok(())
}
