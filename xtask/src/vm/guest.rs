//! One guest: its jobs, qemu, and what it says on its serial line. `tests/src/bin/guest-init.rs` is
//! the other end.
//!
//! The guest's clocks count instructions (`-icount`): one is a nanosecond, and where nothing is to be
//! done the clock goes to the next timer at once. How busy this host is therefore moves no time in
//! the guest, tests are held to the same tolerances as on the metal, and waiting costs nothing.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// Stands before every line of init's.
const MARK: &str = "synprobe-vm:";
const QEMU: &str = "qemu-system-x86_64";
/// Of the guest.
const MEMORY_MB: u32 = 1024;
/// All that it emulates, less what costs an emulator more than it saves a processor: strings moved byte
/// by byte in one instruction, a fifth level of page tables, access to user memory opened each time.
/// And less `cmpxchg16b`: once, on 6.8, a guest died in the kernel's allocator of flags that the emulator
/// (7.2) had lost in it; kernels do without.
const CPU: &str = "max,-erms,-fsrm,-la57,-smap,-cx16";
/// `maxcpus`: the second CPU is there and off, for the test that takes one away. `mitigations`: each
/// indirect jump made slower on purpose is slower still in an emulator. `thash_entries`: dumps of
/// sockets go through the whole table.
const KERNEL: &str = "console=ttyS0 loglevel=4 panic=-1 rdinit=/init maxcpus=1 mitigations=off \
                      thash_entries=1024";
const GLANCE: Duration = Duration::from_millis(50);

/// What the guest runs, one after the other.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    /// Seconds of the guest's clock that it may take.
    pub seconds: u64,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it says how many tests passed.
    pub counts: bool,
}

impl Job {
    /// As init reads it.
    pub fn line(&self) -> String {
        let seconds = self.seconds.to_string();
        let head = [self.name.as_str(), &seconds];
        let words = head
            .into_iter()
            .chain(self.command.iter().map(String::as_str));
        words.collect::<Vec<_>>().join("\t") + "\n"
    }
}

/// What a guest came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// `uname -r` of the guest.
    pub release: String,
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// Each job with the seconds it took by the guest's clock, and whether it succeeded.
    pub jobs: Vec<(String, f64, bool)>,
    /// The line without which it has failed.
    pub success: bool,
    /// Why, where init could say.
    pub failure: Option<String>,
    /// Tests that failed.
    pub failures: Vec<String>,
    /// Seconds of this host's processors that it took, which do not depend on who else uses them.
    pub processor: u64,
}

impl Said {
    /// From all that came over the serial line.
    pub fn parse(log: &str) -> Self {
        let mut said = Self::default();
        for line in log.lines().map(str::trim) {
            let ours = line.find(MARK).map(|at| line[at + MARK.len()..].trim());
            match ours.and_then(|ours| ours.split_once(' ')) {
                Some(("kernel", release)) => said.release = release.to_owned(),
                Some(("success,", _)) => said.success = true,
                Some(("failure:", why)) => said.failure = Some(why.to_owned()),
                Some(("end", rest)) => {
                    let words: Vec<_> = rest.split(' ').collect();
                    if let [name, how, seconds] = words[..] {
                        let seconds = seconds.parse().unwrap_or(0.0);
                        said.jobs.push((name.to_owned(), seconds, how == "ok"));
                    }
                }
                _ => said.test_line(line),
            }
        }
        said
    }

    fn test_line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            let words: Vec<_> = result.split_whitespace().collect();
            for pair in words.windows(2) {
                let number = pair[0].parse().unwrap_or(0);
                match pair[1].trim_end_matches(';') {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => (),
                }
            }
        } else if let Some(name) = line.strip_prefix("test ")
            && let Some(name) = name.strip_suffix("... FAILED")
        {
            self.failures.push(name.trim().to_owned());
        }
    }

    /// Whether everything was run and everything passed.
    ///
    /// # Errors
    ///
    /// What was not.
    pub fn held_against(&self, jobs: &[Job]) -> Result<()> {
        if !self.failures.is_empty() {
            bail!("failed: {}", self.failures.join(", "));
        }
        if let Some(failure) = &self.failure {
            bail!("{failure}");
        }
        ensure!(self.success, "the guest did not say that it succeeded");
        for job in jobs {
            let ran = self
                .jobs
                .iter()
                .any(|(name, _, ok)| *name == job.name && *ok);
            ensure!(ran, "{} did not run", job.name);
        }
        ensure!(self.failed == 0, "{} tests failed", self.failed);
        ensure!(self.ignored == 0, "{} tests were ignored", self.ignored);
        let tests = jobs.iter().any(|job| job.counts);
        ensure!(self.passed > 0 || !tests, "no test has run");
        Ok(())
    }
}

/// Boots it and waits for its end; what it said is left in `log`.
///
/// # Errors
///
/// When qemu cannot be started, or the guest takes longer than `patience`.
pub fn boot(image: &Path, initramfs: &Path, log: &Path, patience: Duration) -> Result<Said> {
    let serial = File::create(log)?;
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", "tcg", "-cpu", CPU, "-smp", "2"])
        .args(["-icount", "shift=0,sleep=off", "-rtc", "clock=vm"])
        .args(["-m", &MEMORY_MB.to_string()])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", KERNEL])
        .stdin(Stdio::null())
        .stdout(serial.try_clone()?)
        .stderr(serial);
    let us = std::process::id();
    // SAFETY: prctl and getppid are async-signal-safe.
    unsafe {
        command.pre_exec(move || die_with(us));
    }
    let child = command.spawn().with_context(|| {
        format!("{QEMU}: apt-get install --no-install-recommends qemu-system-x86")
    })?;
    let mut running = Running(child);
    let until = Instant::now() + patience;
    let mut processor = 0;
    loop {
        // Once it was waited for, this is not to be had any more.
        processor = processor_seconds(running.0.id()).unwrap_or(processor);
        if let Some(status) = running.0.try_wait()? {
            let mut said = Said::parse(&String::from_utf8_lossy(&fs::read(log)?));
            said.processor = processor;
            ensure!(status.success() || said.success, "{QEMU}: {status}");
            return Ok(said);
        }
        if Instant::now() >= until {
            let said = Said::parse(&String::from_utf8_lossy(&fs::read(log)?));
            let so_far = match said.jobs.last() {
                Some((name, ..)) => format!("its last job was {name}"),
                None => "it has ended no job".to_owned(),
            };
            bail!("not done after {patience:?}; {so_far}");
        }
        thread::sleep(GLANCE);
    }
}

/// What all threads of a process have used, whole seconds.
fn processor_seconds(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // utime and stime are the 12th and 13th behind the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|t| t.parse::<u64>().ok()).sum();
    // SAFETY: takes a number; a negative answer is none.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    (ticks > 0).then(|| ticks / per_second)
}

/// A guest goes when we go.
fn die_with(us: u32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::getppid() } as u32 != us {
        return Err(io::Error::other("whoever started this is gone"));
    }
    Ok(())
}

/// qemu, which does not outlive this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{Job, Said};

    static LOG: &str = "\
        [    1.0] something of the kernel's\r\n\
        synprobe-vm: kernel 6.1.0-56-cloud-amd64\r\n\
        synprobe-vm: begin scenarios\r\n\
        test healthy::ipv4 ... ok\r\n\
        test lossy::ipv4   ... FAILED\r\n\
        test result: FAILED. 85 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\r\n\
        synprobe-vm: end scenarios failed 12.5\r\n\
        synprobe-vm: failure: scenarios failed\r\n";

    fn jobs() -> [Job; 1] {
        [Job {
            name: "scenarios".to_owned(),
            seconds: 60,
            command: vec!["/tests/scenarios".to_owned(), "-q".to_owned()],
            counts: true,
        }]
    }

    #[test]
    fn what_failed_is_named() {
        let said = Said::parse(LOG);
        assert_eq!(said.release, "6.1.0-56-cloud-amd64");
        assert_eq!((said.passed, said.failed, said.ignored), (85, 1, 0));
        assert_eq!(said.jobs, [("scenarios".to_owned(), 12.5, false)]);
        let error = said.held_against(&jobs()).map_err(|e| e.to_string());
        assert_eq!(error, Err("failed: lossy::ipv4".to_owned()));
    }

    #[test]
    fn a_missing_line_is_a_failure() {
        let log = "synprobe-vm: end scenarios ok 3.0\ntest result: ok. 2 passed; 0 failed;\n";
        let silent = Said::parse(log).held_against(&jobs());
        assert!(silent.is_err());
        let said = Said::parse(&format!("{log}synprobe-vm: success, 1 jobs\n"));
        assert!(said.held_against(&jobs()).is_ok());
    }

    #[test]
    fn a_success_without_its_tests_is_none() {
        let said = Said::parse("synprobe-vm: success, 0 jobs\n");
        assert!(said.held_against(&jobs()).is_err());
        let skipped = "synprobe-vm: end scenarios ok 3.0\nsynprobe-vm: success, 1 jobs\n\
            test result: ok. 2 passed; 0 failed; 1 ignored;\n";
        assert!(Said::parse(skipped).held_against(&jobs()).is_err());
    }

    #[test]
    fn a_job_is_one_line() {
        let [job] = jobs();
        assert_eq!(job.line(), "scenarios\t60\t/tests/scenarios\t-q\n");
    }
}
