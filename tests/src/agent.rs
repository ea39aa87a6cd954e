//! Runs the agent as a process and reads its lines.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::{
    binary::{command, ended, signal, status_kib},
    harness::Undecided,
    schema,
};

/// Time limit, far longer than needed on the slowest host.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct AgentLines {
    lines: Mutex<Vec<Value>>,
    more: Condvar,
}

impl AgentLines {
    fn lines(&self) -> MutexGuard<'_, Vec<Value>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running agent; dropping it kills the process.
pub struct Agent {
    /// `None` once it was reaped.
    child: Option<Child>,
    said: Arc<AgentLines>,
    reader: Option<JoinHandle<Result<Vec<String>>>>,
    errors: Option<JoinHandle<String>>,
}

/// The result of a run.
pub struct FinishedAgent {
    /// The exit code; `None`: killed by a signal.
    pub code: Option<i32>,
    /// Standard error.
    pub err: String,
    /// Every line, checked against the contract.
    pub lines: Vec<Value>,
}

impl Agent {
    /// `watch --format json` with these arguments.
    pub fn watch(arguments: &[&str]) -> Result<Self> {
        Self::of(command(
            &[&["watch", "--format", "json"], arguments].concat(),
        )?)
    }

    /// Any command that prints JSON lines. On return it is attached.
    pub fn of(mut command: Command) -> Result<Self> {
        let mut child = command.spawn().context("starting synprobe")?;
        let out = child.stdout.take().context("standard output")?;
        let mut err = child.stderr.take().context("standard error")?;
        let said = Arc::new(AgentLines::default());
        let shared = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let mut raw = Vec::new();
            for line in BufReader::new(out).lines() {
                let line = line?;
                let value = serde_json::from_str(&line).with_context(|| line.clone());
                // A waiting thread must see an invalid line too.
                shared
                    .lines()
                    .push(value.unwrap_or_else(|e| Value::String(format!("{e:#}"))));
                raw.push(line);
                shared.more.notify_all();
            }
            shared.more.notify_all();
            Ok(raw)
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            // Keep what was read before an error.
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let agent = Self {
            child: Some(child),
            said,
            reader: Some(reader),
            errors: Some(errors),
        };
        agent.wait_for("the start line", |line| line["type"] == "start")?;
        Ok(agent)
    }

    fn child(&self) -> Result<&Child> {
        self.child.as_ref().context("the agent has ended")
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child()?.id())
    }

    /// Sends it a signal.
    pub fn signal(&self, number: libc::c_int) -> Result<()> {
        signal(self.child()?, number)
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<Value> {
        self.said.lines().clone()
    }

    /// Waits for a line.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.said.lines();
        let mut looked_at = 0;
        loop {
            if let Some(found) = lines[looked_at..].iter().find(|line| wanted(line)) {
                return Ok(found.clone());
            }
            looked_at = lines.len();
            let left = until.saturating_duration_since(Instant::now());
            let over = self.reader.as_ref().is_none_or(JoinHandle::is_finished);
            if left.is_zero() || over {
                let last: Vec<_> = lines.iter().rev().take(5).collect();
                bail!("{what}: no such line; the last ones, latest first: {last:#?}");
            }
            // The end of the reader does not add a line.
            let step = left.min(Duration::from_millis(200));
            lines = self
                .said
                .more
                .wait_timeout(lines, step)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Stops it as Ctrl-C does. Checks every line against the contract, and that the last is the summary.
    pub fn end(self) -> Result<FinishedAgent> {
        self.signal(libc::SIGINT)?;
        let ended = self.ended()?;
        let last = ended.lines.last().context("a line")?;
        ensure!(last["type"] == "end", "no summary: {last}; {}", ended.err);
        ensure!(ended.code == Some(0), "{:?}: {}", ended.code, ended.err);
        Ok(ended)
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Result<FinishedAgent> {
        let child = self.child.take().context("the agent has ended")?;
        let ran = ended(child)?;
        let reader = self.reader.take().context("a reader")?;
        let raw = reader.join().map_err(|_| anyhow!("a reader panicked"))??;
        let errors = self.errors.take().context("a reader")?;
        Ok(FinishedAgent {
            code: ran.code,
            err: errors.join().map_err(|_| anyhow!("a reader panicked"))?,
            lines: schema::check(raw.iter().map(String::as_str))?,
        })
    }

    /// Figures of /proc/PID/status, in KiB.
    pub fn status_kib(&self, field: &str) -> Result<u64> {
        status_kib(self.pid()?, field)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already. A stopped process is killed too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl FinishedAgent {
    /// Every `handshake` line.
    pub fn handshakes(&self) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(|l| l["type"] == "handshake")
    }

    /// The summary.
    pub fn summary(&self) -> Result<&Value> {
        self.lines.last().context("a line")
    }

    /// Rejects a run that reports lost records, or lines that its reader was too slow for.
    pub fn complete(self) -> Result<Self> {
        let of_this_output = |line: &Value| {
            let reason = line["reason"].as_str().unwrap_or_default();
            line["type"] == "lost" && reason.contains("of this output")
        };
        let every_line = !self.lines.iter().any(of_this_output);
        match self.summary()?["lost"].as_u64() {
            Some(0) if every_line => Ok(self),
            _ => {
                let lost: Vec<_> = self.lines.iter().filter(|l| l["type"] == "lost").collect();
                Err(Undecided(format!("{lost:?}")).into())
            }
        }
    }
}

/// Polls until a condition holds. Only for conditions without an event.
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
