//! The programs of a guest: the released binary, the tests, and init.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{guest::GuestJob, machine::GuestMachine};
use crate::{
    dist,
    workspace::{cargo, root},
};

/// Time limit of one test program, seconds of the guest's clock.
const PATIENCE: u64 = 3600;
/// Scenarios with a thousand sockets, which a guest runs for one family only. Each needs half a minute of CPU
/// time, and the families do not differ between kernel versions.
const LARGE_SCENARIOS: &[&str] = &[
    "incident-accept-queue",
    "incident-asymmetric-nat",
    "incident-firewall",
    "incident-flood",
    "incident-synack-lost",
];
/// Folder of the tests. They expect the binary one folder up, as cargo places it.
const TESTS: &str = "synprobe/deps";
const BINARY: &str = "synprobe/synprobe";

/// The programs, read into memory.
pub struct Programs {
    init: Vec<u8>,
    synprobe: Vec<u8>,
    /// Name and contents.
    tests: Vec<(String, Vec<u8>)>,
}

impl Programs {
    /// Builds the programs.
    pub fn build(tests: &[String], machine: GuestMachine) -> Result<Self> {
        let synprobe = fs::read(dist::build_for(machine.target())?)?;
        let mut command = Command::new(cargo());
        command
            .current_dir(root())
            .args(["build", "--locked", "--profile", "guest"])
            .args(["--target", machine.target(), "-p", "synprobe-tests"])
            .args(["--bin", "guest-init"])
            .args(["--message-format", "json-render-diagnostics"])
            .stderr(std::process::Stdio::inherit());
        for test in tests {
            command.args(["--test", test]);
        }
        let output = command.output().context("cargo build")?;
        ensure!(output.status.success(), "cargo build: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let mut built = Vec::new();
        for line in text.lines() {
            let message: Value = serde_json::from_str(line)?;
            if let (Some(name), Some(path)) = (
                message["target"]["name"].as_str(),
                message["executable"].as_str(),
            ) {
                built.push((name.to_owned(), PathBuf::from(path)));
            }
        }
        let read = |wanted: &str| -> Result<Vec<u8>> {
            let found = built.iter().find(|(name, _)| name == wanted);
            let (_, path) = found.with_context(|| format!("cargo built no {wanted}"))?;
            Ok(fs::read(path)?)
        };
        let mut programs = Self {
            init: read("guest-init")?,
            synprobe,
            tests: Vec::new(),
        };
        for test in tests {
            programs.tests.push((test.clone(), read(test)?));
        }
        Ok(programs)
    }

    /// The guest's init.
    pub fn init(&self) -> &[u8] {
        &self.init
    }

    /// Folders to create, and each program with its path.
    pub fn places(&self) -> (Vec<&'static str>, Vec<(String, &[u8])>) {
        let mut places = vec![(BINARY.to_owned(), self.synprobe.as_slice())];
        for (name, bytes) in &self.tests {
            places.push((format!("{TESTS}/{name}"), bytes));
        }
        (vec!["synprobe", TESTS], places)
    }

    /// The jobs of a guest: preflight, a lab scenario and a diagnosis with the binary, then the tests.
    /// Without `filter`, tests whose names contain one of `skip` are left out.
    pub fn jobs(&self, threads: usize, skip: &[String], filter: &[String]) -> Vec<GuestJob> {
        let own = |name: &str, arguments: &[&str]| GuestJob {
            name: name.to_owned(),
            seconds: 120,
            command: [&format!("/{BINARY}")]
                .into_iter()
                .cloned()
                .chain(arguments.iter().map(|a| (*a).to_owned()))
                .collect(),
            counts: false,
        };
        let mut jobs = vec![
            own("preflight", &["preflight"]),
            own("lab", &["lab", "synack-lost"]),
            // Quiet mode takes another path through each kernel's verifier.
            own("diagnose", &["diagnose", "--duration", "2s"]),
        ];
        for (name, _) in &self.tests {
            let mut command = vec![
                format!("/{TESTS}/{name}"),
                "--test-threads".to_owned(),
                threads.to_string(),
            ];
            if filter.is_empty() {
                let large = ["ipv6", "mapped"].into_iter().flat_map(|family| {
                    LARGE_SCENARIOS
                        .iter()
                        .map(move |s| format!("{s}::{family}"))
                });
                for left_out in large.chain(skip.iter().cloned()) {
                    command.extend(["--skip".to_owned(), left_out]);
                }
            }
            command.extend_from_slice(filter);
            jobs.push(GuestJob {
                name: name.clone(),
                seconds: PATIENCE,
                command,
                counts: true,
            });
        }
        jobs
    }
}
