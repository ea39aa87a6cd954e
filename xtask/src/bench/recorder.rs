//! Agents that record, and replays of what they recorded.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::process::{ChildProcess, FinishedWatcher, Watcher};

/// An agent that records.
pub struct RecordingAgent {
    /// The agent.
    pub watcher: Watcher,
    recording: File,
}

/// A recording. Its file has no name any more.
pub struct RecordedFile(File);

/// The totals of a run: its `end` line.
#[derive(Clone, Copy, Default, Deserialize)]
pub struct RunTotals {
    /// Records that the engine took in.
    pub events: u64,
    /// Records and inputs that were lost.
    pub lost: u64,
    /// `handshake` lines.
    pub handshakes: u64,
    /// Handshakes that were only counted.
    pub counted: u64,
}

/// Starts an agent whose output is discarded; returns once it is attached. `args` begin with the verb.
///
/// # Errors
///
/// When it does not start.
pub fn start(program: &Path, args: &[&str], folder: &Path) -> Result<Watcher> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = path_in(folder, "ready");
    // A run that was killed may have left one.
    let _ = fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).with_context(|| path.display().to_string())?;
    socket.set_nonblocking(true)?;
    let mut command = Command::new(program);
    command.args(args).env("NOTIFY_SOCKET", &path);
    command.stderr(Stdio::null());
    let discarded = File::options().read(true).write(true).open("/dev/null")?;
    let watcher = Watcher::start(command, discarded, |_| match socket.recv(&mut [0; 64]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        received => Ok(received? > 0),
    });
    let _ = fs::remove_file(&path);
    watcher
}

/// Starts an agent that records. `begin` starts it with the path of the recording.
///
/// # Errors
///
/// When it does not start.
pub fn record(
    folder: &Path,
    begin: impl FnOnce(&str) -> Result<Watcher>,
) -> Result<RecordingAgent> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = path_in(folder, "recording");
    let watcher = begin(&path.to_string_lossy());
    let recording = File::open(&path).with_context(|| path.display().to_string());
    let _ = fs::remove_file(&path);
    Ok(RecordingAgent {
        watcher: watcher?,
        recording: recording?,
    })
}

fn path_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}-{}", std::process::id()))
}

impl RecordingAgent {
    /// Ends the agent, which completes the recording.
    ///
    /// # Errors
    ///
    /// When the agent exits with an error.
    pub fn end(self) -> Result<(FinishedWatcher, RecordedFile)> {
        Ok((self.watcher.end()?, RecordedFile(self.recording)))
    }
}

impl RecordedFile {
    /// Its size.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// Replays it with `args`, which begin with the verb, and discards the output. Returns the wall-clock
    /// time and the CPU time.
    ///
    /// # Errors
    ///
    /// When the replay fails.
    pub fn replay(&self, program: &Path, args: &[&str]) -> Result<(Duration, Duration)> {
        let mut command = self.command(program, args)?;
        command.stdout(Stdio::null());
        let began = Instant::now();
        let (cpu, status) = ChildProcess::spawn(&mut command, libc::SIGKILL)?.wait()?;
        if !status.success() {
            bail!("the replay: {status}");
        }
        Ok((began.elapsed(), cpu))
    }

    /// The totals that a replay ends with.
    ///
    /// # Errors
    ///
    /// When the replay fails.
    pub fn totals(&self, program: &Path) -> Result<RunTotals> {
        let mut command = self.command(program, &["watch", "--format", "json"])?;
        command.stdout(Stdio::piped());
        let mut child = command.spawn().context("the replay")?;
        let output = child.stdout.take().context("the replay's output")?;
        let mut output = BufReader::with_capacity(1 << 20, output);
        let (mut line, mut last) = (Vec::new(), Vec::new());
        while output.read_until(b'\n', &mut line)? > 0 {
            std::mem::swap(&mut line, &mut last);
            line.clear();
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("the replay: {status}");
        }
        serde_json::from_slice(&last).context("the last line of a replay")
    }

    fn command(&self, program: &Path, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(program);
        // Opened by this name it is read from its beginning, and needs no other.
        command.args(args).args(["--replay", "/dev/stdin"]);
        command.stdin(self.0.try_clone()?).stderr(Stdio::null());
        Ok(command)
    }
}
