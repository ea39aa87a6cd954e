//! Where a fault is made: the lab's two namespaces, each with a process by which commands enter it.

use std::{
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use synprobe_lab::{Client, ConnectState, Lab, Ns, SocketFamily, settle};
use synprobe_tests::{
    agent::Agent,
    binary::command,
    harness::{Undecided, figure},
    netns_process::NetnsProcess,
};

use super::steps::{self, Step, commands, missing};

/// A SYN without an answer is sent again after a second.
const FIRST_TIME_OUT: Duration = Duration::from_millis(900);
/// Far longer than a connection needs that nothing hinders.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub struct Stage {
    pub lab: Lab,
    pub name: String,
    /// Of this test alone.
    pub port: u16,
    client: NetnsProcess,
    server: NetnsProcess,
}

/// What became of the commands of a remedy.
#[derive(Default)]
pub struct Runs {
    /// All that they printed.
    pub printed: String,
    /// Commands whose program is not installed.
    pub not_run: Vec<String>,
}

impl Stage {
    pub fn new(name: &str, family: SocketFamily) -> Result<Self> {
        static PORTS: AtomicU16 = AtomicU16::new(7000);
        let lab = Lab::new(family)?;
        Ok(Self {
            client: NetnsProcess::of(&lab.client)?,
            server: NetnsProcess::of(&lab.server)?,
            lab,
            name: format!("{name} {family:?}"),
            port: PORTS.fetch_add(8, Ordering::Relaxed),
        })
    }

    /// What a command begins with that is to run in one of the namespaces.
    pub fn enter(&self, ns: &Ns) -> String {
        let process = match ns.inode() == self.lab.client.inode() {
            true => &self.client,
            false => &self.server,
        };
        format!("nsenter -t {} -n ", process.id())
    }

    /// The process in the client's namespace.
    pub fn client_pid(&self) -> u32 {
        self.client.id()
    }

    pub fn connect(&self) -> Result<Client> {
        Client::connect(
            &self.lab.client,
            self.lab.server_addr(self.port),
            |_| Ok(()),
        )
    }

    /// Whether a connect() succeeds with its first SYN.
    pub fn works(&self, client: &mut Client) -> Result<bool> {
        settle(
            [&mut *client],
            &AtomicBool::new(false),
            Instant::now() + FIRST_TIME_OUT,
        )?;
        Ok(client.seen == ConnectState::Connected)
    }

    /// A connection that must work, and with one SYN.
    pub fn connects(&self) -> Result<Client> {
        self.connected(self.connect()?)
    }

    /// The same of a connect() that was called.
    pub fn connected(&self, mut client: Client) -> Result<Client> {
        settle(
            [&mut client],
            &AtomicBool::new(false),
            Instant::now() + PATIENCE,
        )?;
        let retransmits = client.retransmits()?;
        ensure!(
            client.seen == ConnectState::Connected && retransmits == 0,
            "after the remedy: {:?}, {retransmits} retransmissions",
            client.seen
        );
        Ok(client)
    }

    /// A connection that must not work with one SYN.
    pub fn fails(&self) -> Result<Client> {
        let mut client = self.connect()?;
        ensure!(!self.works(&mut client)?, "the fault was not made");
        Ok(client)
    }

    /// Runs `diagnose` while the traffic is made; returns the remedies of a verdict.
    pub fn told(&self, verdict: &str, traffic: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
        self.told_of(&[], verdict, traffic)
    }

    /// The same of a run that watches the server's namespace alone, and reads its counters without delay however
    /// many others there are.
    pub fn told_at_server(
        &self,
        verdict: &str,
        traffic: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<String>> {
        self.told_of(
            &["--netns", &self.server.id().to_string()],
            verdict,
            traffic,
        )
    }

    fn told_of(
        &self,
        select: &[&str],
        verdict: &str,
        traffic: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<String>> {
        let port = self.port.to_string();
        let (lines, lost) = self.lines(&[select, &["--port", &port]].concat(), traffic)?;
        let mut remedies = Vec::new();
        for line in &lines {
            if line["verdict"] == verdict
                && let Some(remedy) = line["remedy"].as_str()
                && !remedies.iter().any(|known| known == remedy)
            {
                remedies.push(remedy.to_owned());
            }
        }
        if remedies.is_empty() && lost > 0 {
            // A verdict that rests on something not seen is withdrawn then.
            bail!(Undecided(format!("{lost} records were lost")));
        }
        if remedies.is_empty() {
            let said: Vec<String> = lines.iter().map(Value::to_string).collect();
            bail!("{verdict} is not said:\n{}", said.join("\n"));
        }
        Ok(remedies)
    }

    /// The lines of `diagnose` about the two namespaces, and how many records of the run were lost.
    pub fn lines(
        &self,
        select: &[&str],
        traffic: impl FnOnce() -> Result<()>,
    ) -> Result<(Vec<Value>, u64)> {
        let all = [
            &[
                "diagnose",
                "--every",
                "--format",
                "json",
                "--duration",
                "60s",
            ],
            select,
        ]
        .concat();
        let agent = Agent::of(command(&all)?)?;
        traffic()?;
        let ended = agent.end()?;
        let lost = ended.summary()?["lost"].as_u64().unwrap_or(0);
        let here = [self.lab.client.inode(), self.lab.server.inode()].map(u64::from);
        let mut lines = ended.lines;
        lines.retain(|line| {
            line["netns"]
                .as_u64()
                .is_some_and(|inode| here.contains(&inode))
        });
        Ok((lines, lost))
    }

    /// Runs the commands of a remedy, as they are printed.
    pub fn run(&self, remedy: &str) -> Result<Runs> {
        let mut runs = Runs::default();
        let steps = commands(remedy);
        ensure!(!steps.is_empty(), "no command: {remedy}");
        for step in steps {
            let of_step = self.run_step(&step, remedy)?;
            runs.printed.push_str(&of_step.printed);
            runs.not_run.extend(of_step.not_run);
        }
        Ok(runs)
    }

    /// One of them.
    pub fn run_step(&self, step: &Step, remedy: &str) -> Result<Runs> {
        // The peer is the server's namespace.
        let command = match step.on_the_peer {
            true => self.enter(&self.lab.server) + &step.command,
            false => step.command.clone(),
        };
        let mut runs = Runs::default();
        if let Some(program) = missing(&command) {
            figure(format!(
                "{}: not run: {program} is not installed ({command})",
                self.name
            ));
            runs.not_run.push(command);
        } else {
            runs.printed =
                steps::run(&command).with_context(|| format!("of the remedy: {remedy}"))?;
        }
        Ok(runs)
    }

    /// Runs all of them; the figure of the test says what was done. `equivalent`: what is run where the remedy
    /// leaves a choice, or shows the cause alone (the table of docs/verdicts.md). `connect` must succeed then.
    pub fn mended(
        &self,
        remedies: &[String],
        shows: &[&str],
        equivalent: Option<&dyn Fn() -> Result<()>>,
        connect: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let (mut printed, mut not_run) = (String::new(), 0);
        for remedy in remedies {
            let runs = self.run(remedy)?;
            printed.push_str(&runs.printed);
            not_run += runs.not_run.len();
        }
        for wanted in shows {
            ensure!(
                not_run > 0 || printed.contains(wanted),
                "{wanted:?} is not shown by {remedies:?}:\n{printed}"
            );
        }
        if let Some(equivalent) = equivalent {
            equivalent()?;
        } else if not_run > 0 {
            return Ok(());
        }
        connect().with_context(|| format!("{remedies:?}:\n{printed}"))?;
        let how = match equivalent {
            None => "as printed",
            Some(_) => "as printed, and the equivalent",
        };
        figure(format!(
            "{}: {how}, and it works: {}",
            self.name,
            remedies.join(" | ")
        ));
        Ok(())
    }
}

/// Runs a command line of the test itself; false: a program of it is not installed.
pub fn tool(name: &str, command: &str) -> Result<bool> {
    if let Some(program) = missing(command) {
        figure(format!(
            "{name}: not run: {program} is not installed ({command})"
        ));
        return Ok(false);
    }
    steps::run(command).map(|_| true)
}
