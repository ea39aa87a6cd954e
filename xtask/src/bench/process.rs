//! What the bench starts, it ends: by its own pid, when dropped, and when the bench itself dies.

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
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A started program may take this long to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(2);
/// What a `lost` line begins with.
const LOST: &[u8] = br#"{"v":1,"type":"lost","#;

/// A process of ours.
pub struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    /// Starts it. `on_our_death` is what the kernel sends it should this process die before it.
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
                // Had we died before the request, nothing would ever be sent.
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

    /// Its standard input and output, once.
    pub fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    fn pid(&self) -> libc::pid_t {
        self.child.id().cast_signed()
    }

    /// CPU time so far, all threads, dead ones included.
    pub fn cpu(&self) -> Result<Duration> {
        let mut clock = 0;
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the pointer is to a clockid_t of ours; the pid is of a child not yet waited for.
        if unsafe { libc::clock_getcpuclockid(self.pid(), &mut clock) } != 0 {
            bail!("no CPU clock for process {}", self.pid());
        }
        // SAFETY: the pointer is to a timespec of ours.
        if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error()).context("CPU clock");
        }
        // SAFETY: clock_gettime succeeded and has filled it.
        let time = unsafe { time.assume_init() };
        Ok(Duration::new(
            time.tv_sec.cast_unsigned(),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        ))
    }

    /// The most memory it has had, bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        self.status("VmHWM:").map(|kib| kib * 1024)
    }

    /// The memory it has now, bytes.
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

    /// How often its threads have gone to sleep and been woken again.
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

    /// Asks it to end (SIGINT) and waits for that; gives back its CPU time from start to end, and
    /// how it ended.
    fn end(mut self) -> Result<(Duration, ExitStatus)> {
        // SAFETY: the pid is our child's, which is not yet waited for, so it is nobody else's.
        if unsafe { libc::kill(self.pid(), libc::SIGINT) } != 0 {
            return Err(io::Error::last_os_error()).context("SIGINT");
        }
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: both pointers are to variables of ours.
        let waited = unsafe { libc::wait4(self.pid(), &mut status, 0, usage.as_mut_ptr()) };
        if waited != self.pid() {
            return Err(io::Error::last_os_error()).context("wait4");
        }
        self.ended = true;
        // SAFETY: wait4 succeeded and has filled it.
        let usage = unsafe { usage.assume_init() };
        let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
        Ok((cpu, ExitStatus::from_raw(status)))
    }

    fn died(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        self.ended |= status.is_some();
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself; either way nothing is left of it.
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
    pub process: Running,
    /// From its start until it was attached.
    pub ready_after: Duration,
    /// CPU time it took until then.
    pub cpu_at_ready: Duration,
    /// Ctrl-C is an error to it.
    fails_at_end: bool,
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
        Self::start(command, folder, |watcher| {
            Ok(watcher.output.metadata()?.len() > 0)
        })
    }

    /// Starts somebody else's program.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn peer(program: &Path, args: &[&str], folder: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(args);
        // It counts there what it could not print.
        command.stderr(Stdio::null());
        // SAFETY: the closure makes system calls on constants only.
        unsafe { command.pre_exec(own_tracefs) };
        let mut watcher = Self::start(command, folder, |watcher| {
            Ok(!watcher.process.programs().is_empty())
        })?;
        watcher.fails_at_end = true;
        // It says nothing until its buffer is full; loading is done, attaching takes a moment.
        thread::sleep(Duration::from_millis(300));
        if watcher.process.died().is_some() {
            bail!("{} cannot attach its programs", program.display());
        }
        Ok(watcher)
    }

    fn start(
        mut command: Command,
        folder: &Path,
        ready: impl Fn(&Self) -> Result<bool>,
    ) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = nameless_file(folder)?;
        command.stdout(output.try_clone()?);
        let began = Instant::now();
        let mut watcher = Self {
            process: Running::spawn(&mut command, libc::SIGTERM)?,
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
            thread::sleep(GLANCE);
        }
        watcher.ready_after = began.elapsed();
        watcher.cpu_at_ready = watcher.process.cpu()?;
        Ok(watcher)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When it did not end well.
    pub fn end(self) -> Result<Ended> {
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
        Ok(Ended {
            cpu,
            bytes,
            lines,
            losses,
            last: last.to_owned(),
            output: self.output,
        })
    }
}

/// What a watcher left.
pub struct Ended {
    /// CPU time from being ready to its end.
    pub cpu: Duration,
    /// Written.
    pub bytes: u64,
    /// Written.
    pub lines: u64,
    /// Those among them that say what was lost.
    pub losses: Vec<String>,
    /// The last of them.
    pub last: String,
    output: File,
}

impl Ended {
    /// Its lines of one type.
    ///
    /// # Errors
    ///
    /// When they cannot be read again, or one is no JSON.
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

/// How many lines a file has, and those of type `lost`.
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

/// Mounts tracefs, which libbpf attaches by and many a host has not mounted, where only the calling
/// process sees it. Runs between fork and exec.
fn own_tracefs() -> io::Result<()> {
    let (none, root) = (c"none".as_ptr(), c"/".as_ptr());
    let (tracefs, place) = (c"tracefs".as_ptr(), c"/sys/kernel/tracing".as_ptr());
    // SAFETY: all pointers are to constant strings or null, and unshare takes flags only.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                none,
                root,
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(tracefs, place, tracefs, 0, std::ptr::null()) == 0
    };
    // Where it is mounted already, a second time is refused and not needed.
    match io::Error::last_os_error() {
        error if done || error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        error => Err(error),
    }
}

/// A file without a name: it goes with the last process that has it open, however that ends.
fn nameless_file(folder: &Path) -> Result<File> {
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
