//! One guest: its jobs, qemu, and its output on the serial line. `tests/src/bin/guest-init.rs` runs inside
//! it.
//!
//! The guest's clocks count instructions (`-icount`): one instruction is a nanosecond, and an idle guest's
//! clock advances to the next timer at once. The load of this host therefore does not affect times in the
//! guest. Tests have the same tolerances as on hardware, and waiting costs nothing.

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

use super::machine::GuestMachine;

/// Prefix of every line of init.
const MARK: &str = "synprobe-vm:";
/// Memory of the guest.
const MEMORY_MB: u32 = 1024;
/// `maxcpus`: the second CPU exists but is offline, for the tests of CPU hotplug. `mitigations`: they are
/// slow in an emulator. `thash_entries`: socket dumps walk the whole table.
const KERNEL: &str = "loglevel=4 panic=-1 rdinit=/init maxcpus=1 mitigations=off \
                      thash_entries=1024";
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A job that the guest runs.
#[derive(Clone, Debug)]
pub struct GuestJob {
    pub name: String,
    /// Time limit, seconds of the guest's clock.
    pub seconds: u64,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it prints test results.
    pub counts: bool,
}

impl GuestJob {
    /// The job as a line for init.
    pub fn line(&self) -> String {
        let seconds = self.seconds.to_string();
        let head = [self.name.as_str(), &seconds];
        let words = head
            .into_iter()
            .chain(self.command.iter().map(String::as_str));
        words.collect::<Vec<_>>().join("\t") + "\n"
    }
}

/// The result of a guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuestReport {
    /// `uname -r` of the guest.
    pub release: String,
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// Each job with its duration (seconds of the guest's clock) and whether it succeeded.
    pub jobs: Vec<(String, f64, bool)>,
    /// Whether init reported success.
    pub success: bool,
    /// Reason of a failure, as init reported it.
    pub failure: Option<String>,
    /// Failed tests.
    pub failures: Vec<String>,
    /// CPU time on this host, seconds.
    pub processor: u64,
}

impl GuestReport {
    /// Parses the output of the serial line.
    pub fn parse(log: &str) -> Self {
        let mut report = Self::default();
        for line in log.lines().map(str::trim) {
            let ours = line.find(MARK).map(|at| line[at + MARK.len()..].trim());
            match ours.and_then(|ours| ours.split_once(' ')) {
                Some(("kernel", release)) => report.release = release.to_owned(),
                Some(("success,", _)) => report.success = true,
                Some(("failure:", why)) => report.failure = Some(why.to_owned()),
                Some(("end", rest)) => {
                    let words: Vec<_> = rest.split(' ').collect();
                    if let [name, how, seconds] = words[..] {
                        let seconds = seconds.parse().unwrap_or(0.0);
                        report.jobs.push((name.to_owned(), seconds, how == "ok"));
                    }
                }
                _ => report.test_line(line),
            }
        }
        report
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

    /// Checks that every job ran and every test passed.
    ///
    /// # Errors
    ///
    /// Names what failed or did not run.
    pub fn check(&self, jobs: &[GuestJob]) -> Result<()> {
        if !self.failures.is_empty() {
            bail!("failed: {}", self.failures.join(", "));
        }
        if let Some(failure) = &self.failure {
            bail!("{failure}");
        }
        ensure!(self.success, "the guest did not report success");
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
        ensure!(self.passed > 0 || !tests, "no test ran");
        Ok(())
    }
}

/// Boots a guest and waits for its end. Writes its output to `log`.
///
/// # Errors
///
/// When qemu cannot be started, or the guest takes longer than `patience`.
pub fn boot(
    machine: GuestMachine,
    image: &Path,
    initramfs: &Path,
    log: &Path,
    patience: Duration,
) -> Result<GuestReport> {
    let serial = File::create(log)?;
    let qemu = machine.qemu();
    let mut command = Command::new(qemu);
    command
        .args(["-accel", "tcg", "-smp", "2"])
        .args(machine.hardware())
        .args(["-icount", "shift=0,sleep=off", "-rtc", "clock=vm"])
        .args(["-m", &MEMORY_MB.to_string()])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        // A network card whose cable ends nowhere: `tests/guest/driver.rs`.
        .args(["-netdev", "hubport,id=nowhere,hubid=0"])
        .args(["-device", "vmxnet3,netdev=nowhere"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args([
            "-append",
            &format!("console={} {KERNEL}", machine.console()),
        ])
        .stdin(Stdio::null())
        .stdout(serial.try_clone()?)
        .stderr(serial);
    let us = std::process::id();
    // SAFETY: prctl and getppid are async-signal-safe.
    unsafe {
        command.pre_exec(move || die_with(us));
    }
    let child = command.spawn().with_context(|| {
        let package = machine.package();
        format!("{qemu}: apt-get install --no-install-recommends {package}")
    })?;
    let mut running = Qemu(child);
    let until = Instant::now() + patience;
    let mut processor = 0;
    loop {
        // Not available once the process was reaped.
        processor = processor_seconds(running.0.id()).unwrap_or(processor);
        if let Some(status) = running.0.try_wait()? {
            let mut report = GuestReport::parse(&String::from_utf8_lossy(&fs::read(log)?));
            report.processor = processor;
            ensure!(status.success() || report.success, "{qemu}: {status}");
            return Ok(report);
        }
        if Instant::now() >= until {
            let report = GuestReport::parse(&String::from_utf8_lossy(&fs::read(log)?));
            let so_far = match report.jobs.last() {
                Some((name, ..)) => format!("its last job was {name}"),
                None => "it has finished no job".to_owned(),
            };
            bail!("not finished after {patience:?}; {so_far}");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// CPU time of all threads of a process, whole seconds.
fn processor_seconds(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // utime and stime are fields 12 and 13 after the name, which may contain any character.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|t| t.parse::<u64>().ok()).sum();
    // SAFETY: takes a number. A negative result is an error.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    (ticks > 0).then(|| ticks / per_second)
}

/// Makes the guest end when this process ends.
fn die_with(us: u32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::getppid() } as u32 != us {
        return Err(io::Error::other("the parent process has ended"));
    }
    Ok(())
}

/// A qemu process; dropping it kills it.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestJob, GuestReport};

    static LOG: &str = "\
        [    1.0] something of the kernel's\r\n\
        synprobe-vm: kernel 6.1.0-56-cloud-amd64\r\n\
        synprobe-vm: begin scenarios\r\n\
        test healthy::ipv4 ... ok\r\n\
        test lossy::ipv4   ... FAILED\r\n\
        test result: FAILED. 85 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\r\n\
        synprobe-vm: end scenarios failed 12.5\r\n\
        synprobe-vm: failure: scenarios failed\r\n";

    fn jobs() -> [GuestJob; 1] {
        [GuestJob {
            name: "scenarios".to_owned(),
            seconds: 60,
            command: vec!["/tests/scenarios".to_owned(), "-q".to_owned()],
            counts: true,
        }]
    }

    #[test]
    fn what_failed_is_named() {
        let report = GuestReport::parse(LOG);
        assert_eq!(report.release, "6.1.0-56-cloud-amd64");
        assert_eq!((report.passed, report.failed, report.ignored), (85, 1, 0));
        assert_eq!(report.jobs, [("scenarios".to_owned(), 12.5, false)]);
        let error = report.check(&jobs()).map_err(|e| e.to_string());
        assert_eq!(error, Err("failed: lossy::ipv4".to_owned()));
    }

    #[test]
    fn a_missing_line_is_a_failure() {
        let log = "synprobe-vm: end scenarios ok 3.0\ntest result: ok. 2 passed; 0 failed;\n";
        let silent = GuestReport::parse(log).check(&jobs());
        assert!(silent.is_err());
        let report = GuestReport::parse(&format!("{log}synprobe-vm: success, 1 jobs\n"));
        assert!(report.check(&jobs()).is_ok());
    }

    #[test]
    fn a_success_without_its_tests_is_none() {
        let report = GuestReport::parse("synprobe-vm: success, 0 jobs\n");
        assert!(report.check(&jobs()).is_err());
        let skipped = "synprobe-vm: end scenarios ok 3.0\nsynprobe-vm: success, 1 jobs\n\
            test result: ok. 2 passed; 0 failed; 1 ignored;\n";
        assert!(GuestReport::parse(skipped).check(&jobs()).is_err());
    }

    #[test]
    fn a_job_is_one_line() {
        let [job] = jobs();
        assert_eq!(job.line(), "scenarios\t60\t/tests/scenarios\t-q\n");
    }
}
