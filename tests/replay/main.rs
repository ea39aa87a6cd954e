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
    let code = harness::main_with(cases, 8);
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

    /// Whether every handshake has its line.
    fn is_whole(&self) -> bool {
        self.mode == Mode::AtOnce && self.detail != QUIET
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

/// Streaming and quiet, in every mode that the host offers. Which of them is a `watch` and which a `diagnose`
/// changes with the family.
fn agents(family: SocketFamily) -> Result<Vec<Agent>> {
    use RequestedMode::{Exact, Tracepoints};
    let (first, second) = match family {
        SocketFamily::V4 => (Mode::AtOnce, Mode::AtTheEnd),
        _ => (Mode::AtTheEnd, Mode::AtOnce),
    };
    let mut agents = vec![
        Agent::new("streaming", Detail::Handshakes, Tracepoints, first),
        Agent::new("quiet", QUIET, Tracepoints, second),
    ];
    for (name, detail, mode) in [
        ("streaming, exact", Detail::AllStates, second),
        ("quiet, exact", QUIET, first),
    ] {
        if harness::host()?.exact_by(Exact, detail).is_ok() {
            agents.push(Agent::new(name, detail, Exact, mode));
        }
    }
    Ok(agents)
}

fn replay_is_the_run(scenario: &'static dyn Scenario, family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let agents = agents(family)?;
    let mut runs = Vec::new();
    for agent in &agents {
        runs.push((agent.options(&lab)?, &*agent.file.0));
    }
    // On a busy host a scenario may not come to its end: that decides nothing here.
    let undecided = |error: anyhow::Error| Undecided(format!("{error:#}"));
    let mut shown = Vec::new();
    if scenario.is_incident() {
        // As when somebody is called to it, it has begun before.
        let watched = run_scenario(scenario, lab, || {
            let look = || {
                thread::sleep(LOOK);
                Ok(())
            };
            shown = recorded::watch(runs, look)?.1;
            Ok(())
        });
        watched.map_err(undecided)?;
    } else {
        let traffic = || Ok(run_scenario(scenario, lab, || Ok(())).map_err(undecided)?);
        shown = recorded::watch(runs, traffic)?.1;
    }
    for (agent, shown) in agents.iter().zip(&shown) {
        same(agent, shown)?;
    }
    let at = agents.iter().zip(&shown).find(|(a, _)| a.is_whole());
    match at {
        Some((whole, shown)) => narrower::holds(&whole.file.0, &shown.json).context("narrower"),
        // Without the exact mode there is one in the other family only.
        None => Ok(()),
    }
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
