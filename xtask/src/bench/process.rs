//! Processes that the bench starts. Each ends when its value is dropped, and when the bench dies.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek},
    mem::MaybeUninit,
    os::unix::{
        fs::FileExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A started program must be ready within this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Prefix of a `lost` line.
const LOST: &[u8] = br#"{"v":1,"type":"lost","#;

/// A child process.
pub struct ChildProcess {
    child: Child,
    ended: bool,
}

impl ChildProcess {
    /// Starts it. The kernel sends it the signal `on_our_death` when this process dies.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(command: &mut Command, on_our_death: libc::c_int) -> Result<Self> {
        let us = std::process::id();
        let ask = move || {
            // SAFETY: both calls take numbers only and are safe after fork.
            unsafe {
                if libc::prctl(libc::PR_SET_PDEATHSIG, on_our_death) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // If this process died before the request, no signal would be sent.
                if libc::getppid().cast_unsigned() != us {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            Ok(())
        };
        // SAFETY: the closure allocates nothing and takes no lock between fork and exec.
        let child = unsafe { command.pre_exec(ask) }
            .spawn()
            .with_context(|| command.get_program().to_string_lossy().into_owned())?;
        Ok(Self {
            child,
            ended: false,
        })
    }

    /// Takes its standard input and output.
    pub fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    fn pid(&self) -> libc::pid_t {
        self.child.id().cast_signed()
    }

    /// CPU time so far, of all threads, ended ones included.
    pub fn cpu(&self) -> Result<Duration> {
        let mut clock = 0;
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the pointer is to a local clockid_t; the pid is of a child not yet waited for.
        if unsafe { libc::clock_getcpuclockid(self.pid(), &mut clock) } != 0 {
            bail!("no CPU clock for process {}", self.pid());
        }
        // SAFETY: the pointer is to a local timespec.
        if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error()).context("CPU clock");
        }
        // SAFETY: clock_gettime succeeded and filled it.
        let time = unsafe { time.assume_init() };
        Ok(Duration::new(
            time.tv_sec.cast_unsigned(),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        ))
    }

    /// Peak memory (VmHWM), bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        self.status("VmHWM:").map(|kib| kib * 1024)
    }

    /// Memory now (VmRSS), bytes.
    pub fn memory(&self) -> Result<u64> {
        self.status("VmRSS:").map(|kib| kib * 1024)
    }

    fn status(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).context(path)?;
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        let number = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok());
        number.with_context(|| format!("no {name}"))
    }

    /// Voluntary context switches of all its threads: how often they went to sleep.
    pub fn wakeups(&self) -> Result<u64> {
        let folder = format!("/proc/{}/task", self.pid());
        let mut sum = 0;
        for task in fs::read_dir(folder)? {
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            let name = "voluntary_ctxt_switches:";
            let count = status.lines().find_map(|l| l.strip_prefix(name));
            sum += count
                .and_then(|n| n.trim().parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(sum)
    }

    /// Ids of the eBPF programs it holds, directly or by a link.
    pub fn programs(&self) -> BTreeSet<u32> {
        let folder = format!("/proc/{}/fdinfo", self.pid());
        let infos = fs::read_dir(folder).into_iter().flatten().flatten();
        let ids = infos.filter_map(|info| {
            let text = fs::read_to_string(info.path()).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix("prog_id:"))?;
            line.trim().parse().ok()
        });
        ids.collect()
    }

    /// Sends SIGINT and waits for its end, as [`Self::wait`].
    fn end(self) -> Result<(Duration, ExitStatus)> {
        // SAFETY: the pid is that of a child that was not waited for yet, so it was not reused.
        if unsafe { libc::kill(self.pid(), libc::SIGINT) } != 0 {
            return Err(io::Error::last_os_error()).context("SIGINT");
        }
        self.wait()
    }

    /// Waits for its end. Returns its total CPU time and its exit status.
    pub(super) fn wait(mut self) -> Result<(Duration, ExitStatus)> {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: both pointers are to local variables.
        let waited = unsafe { libc::wait4(self.pid(), &mut status, 0, usage.as_mut_ptr()) };
        if waited != self.pid() {
            return Err(io::Error::last_os_error()).context("wait4");
        }
        self.ended = true;
        // SAFETY: wait4 succeeded and filled it.
        let usage = unsafe { usage.assume_init() };
        let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
        Ok((cpu, ExitStatus::from_raw(status)))
    }

    pub(super) fn died(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        self.ended |= status.is_some();
        status
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.ended {
            // An error means that it has ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(micros)
}

/// A program that watches connections and writes to a file.
pub struct Watcher {
    /// The process.
    pub process: ChildProcess,
    /// Time from its start until it was attached.
    pub ready_after: Duration,
    /// CPU time until it was attached.
    pub cpu_at_ready: Duration,
    /// Whether SIGINT makes it exit with an error.
    pub(super) fails_at_end: bool,
    output: File,
}

impl Watcher {
    /// Starts `synprobe watch` with these arguments; returns once everything is attached.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn synprobe(program: &Path, args: &[&str], folder: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["watch", "--format", "json"]).args(args);
        // Its first line says that it is attached.
        Self::start(command, unlinked_file(folder)?, |watcher| {
            Ok(watcher.output.metadata()?.len() > 0)
        })
    }

    /// Starts a program that writes to `output`; returns once it is `ready`.
    pub(super) fn start(
        mut command: Command,
        output: File,
        ready: impl Fn(&Self) -> Result<bool>,
    ) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdout(output.try_clone()?);
        let began = Instant::now();
        let mut watcher = Self {
            process: ChildProcess::spawn(&mut command, libc::SIGTERM)?,
            ready_after: Duration::ZERO,
            cpu_at_ready: Duration::ZERO,
            fails_at_end: false,
            output,
        };
        while !ready(&watcher)? {
            if let Some(status) = watcher.process.died() {
                bail!("{name}: {status} before it was ready");
            }
            if began.elapsed() > PATIENCE {
                bail!("{name} is not ready after {} s", PATIENCE.as_secs());
            }
            thread::sleep(POLL_INTERVAL);
        }
        watcher.ready_after = began.elapsed();
        watcher.cpu_at_ready = watcher.process.cpu()?;
        Ok(watcher)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When it exits with an error.
    pub fn end(self) -> Result<FinishedWatcher> {
        let (cpu, status) = self.process.end()?;
        if !status.success() && !self.fails_at_end {
            bail!("the agent: {status}");
        }
        let cpu = cpu.saturating_sub(self.cpu_at_ready);
        let bytes = self.output.metadata()?.len();
        let mut tail = vec![0; usize::try_from(bytes.min(16 << 10))?];
        let at = bytes - tail.len() as u64;
        self.output.read_exact_at(&mut tail, at)?;
        let tail = String::from_utf8_lossy(&tail);
        let last = tail.trim_end().lines().next_back().unwrap_or_default();
        let (lines, losses) = lines(&self.output)?;
        Ok(FinishedWatcher {
            cpu,
            bytes,
            lines,
            losses,
            last: last.to_owned(),
            output: self.output,
        })
    }
}

/// The results of a watcher that has ended.
pub struct FinishedWatcher {
    /// CPU time from attached to its end.
    pub cpu: Duration,
    /// Bytes written.
    pub bytes: u64,
    /// Lines written.
    pub lines: u64,
    /// Lines of type `lost`.
    pub losses: Vec<String>,
    /// The last line.
    pub last: String,
    output: File,
}

impl FinishedWatcher {
    /// Its lines of one type.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line is not JSON.
    pub fn of_type(&self, kind: &str) -> Result<Vec<Value>> {
        let mut reader = BufReader::with_capacity(1 << 20, self.output.try_clone()?);
        reader.rewind()?;
        let begins = format!("{{\"v\":1,\"type\":\"{kind}\",");
        let mut found = Vec::new();
        for line in reader.lines() {
            let line = line?;
            if line.starts_with(&begins) {
                found.push(serde_json::from_str(&line)?);
            }
        }
        Ok(found)
    }
}

/// The number of lines of a file, and its lines of type `lost`.
fn lines(file: &File) -> Result<(u64, Vec<String>)> {
    let mut reader = BufReader::with_capacity(1 << 20, file.try_clone()?);
    reader.rewind()?;
    let (mut line, mut lines, mut losses) = (Vec::new(), 0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        lines += 1;
        if line.starts_with(LOST) {
            losses.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        line.clear();
    }
    Ok((lines, losses))
}

/// An unlinked file: the kernel frees it when the last process closes it.
pub(super) fn unlinked_file(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(format!("output-{}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    fs::remove_file(&path)?;
    Ok(file)
}
