//! PID 1 of a guest of `cargo xtask vm`. Mounts file systems, loads modules, runs the jobs one by one, reports
//! how each ended, and powers the machine off. `xtask/src/vm/guest.rs` writes its input and reads its output.

use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    process::{Command, ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use synprobe_tests::guest::INIT;

/// Prefix of every line for the host.
const MARK: &str = "synprobe-vm:";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("guest-init: this program only runs as PID 1 of a virtual machine");
        return ExitCode::FAILURE;
    }
    match run() {
        // Without this line the guest has failed.
        Ok(jobs) => println!("{MARK} success, {jobs} jobs"),
        Err(error) => println!("{MARK} failure: {error:#}"),
    }
    // SAFETY: neither takes a pointer. The file systems are in memory, so nothing is lost.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    ExitCode::FAILURE
}

fn run() -> Result<usize> {
    // Tests detect the guest by this name.
    // SAFETY: the name is alive, ends with 0, and is shorter than the 16 bytes that are read.
    unsafe { libc::prctl(libc::PR_SET_NAME, INIT.as_ptr()) };
    mount_all()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("{MARK} kernel {}", release.trim());
    for module in fs::read_to_string("/modules.list")?.lines() {
        load(module).with_context(|| format!("module {module}"))?;
    }
    loopback_up().context("lo")?;
    let jobs = fs::read_to_string("/jobs.list")?;
    let mut failed = Vec::new();
    let mut count = 0;
    for line in jobs.lines() {
        let job = Job::parse(line)?;
        count += 1;
        println!("{MARK} begin {}", job.name);
        let (began, idle) = (Instant::now(), idle_seconds()?);
        let status = job.run().with_context(|| job.name.to_owned())?;
        println!(
            "{MARK} end {} {} {:.1}",
            job.name,
            if status.success() { "ok" } else { "failed" },
            began.elapsed().as_secs_f64()
        );
        let idle = idle_seconds()? - idle;
        println!("{MARK} idle {} {idle:.1}", job.name);
        if !status.success() {
            println!("{}: {status}", job.name);
            failed.push(job.name);
        }
    }
    ensure!(failed.is_empty(), "{} failed", failed.join(", "));
    Ok(count)
}

/// How long all CPUs together have had nothing to do: what a job took beside it is what the emulator has
/// to do.
fn idle_seconds() -> Result<f64> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    let idle = uptime.split_ascii_whitespace().nth(1);
    Ok(idle.context("/proc/uptime")?.parse()?)
}

/// One line of `/jobs.list`: name, seconds it may take, program, arguments; a tab between them.
struct Job<'a> {
    name: &'a str,
    patience: Duration,
    program: &'a str,
    arguments: Vec<&'a str>,
}

impl<'a> Job<'a> {
    fn parse(line: &'a str) -> Result<Self> {
        let mut words = line.split('\t');
        let (Some(name), Some(seconds), Some(program)) = (words.next(), words.next(), words.next())
        else {
            bail!("not a job: {line}");
        };
        Ok(Self {
            name,
            patience: Duration::from_secs(seconds.parse().with_context(|| line.to_owned())?),
            program,
            arguments: words.collect(),
        })
    }

    /// Runs it, and takes in whoever is left to PID 1 meanwhile.
    fn run(&self) -> Result<ExitStatus> {
        let child = Command::new(self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/bin")
            .env("TMPDIR", "/tmp")
            .env("HOME", "/tmp")
            .env("RUST_BACKTRACE", "1")
            .spawn()
            .with_context(|| self.program.to_owned())?;
        let pid = libc::pid_t::try_from(child.id())?;
        let until = Instant::now() + self.patience;
        let mut killed = false;
        loop {
            let mut status = 0;
            // SAFETY: the status is alive for the call.
            match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
                ended if ended == pid => return Ok(ExitStatus::from_raw(status)),
                0 => std::thread::sleep(Duration::from_millis(20)),
                ended if ended < 0 => return Err(io::Error::last_os_error().into()),
                _ => (),
            }
            if !killed && Instant::now() >= until {
                println!("{MARK} {} took more than {:?}", self.name, self.patience);
                // SAFETY: takes no pointers; the child has not been waited for.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                killed = true;
            }
        }
    }
}

fn mount_all() -> Result<()> {
    for (kind, place) in [
        (c"proc", c"/proc"),
        (c"sysfs", c"/sys"),
        (c"devtmpfs", c"/dev"),
        (c"tmpfs", c"/tmp"),
        (c"tmpfs", c"/run"),
        (c"cgroup2", c"/sys/fs/cgroup"),
    ] {
        mount(kind, place).with_context(|| format!("mounting {}", place.to_string_lossy()))?;
    }
    Ok(())
}

fn mount(kind: &CStr, place: &CStr) -> Result<()> {
    // Those below /sys are the kernel's own.
    fs::create_dir_all(place.to_str()?).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err(error),
    })?;
    // SAFETY: all strings are alive, and no file system here takes data.
    let done = unsafe {
        libc::mount(
            kind.as_ptr(),
            place.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // The kernel has mounted /dev itself.
            error if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            error => Err(error.into()),
        },
    }
}

fn load(path: &str) -> Result<()> {
    let file = File::open(path)?;
    let parameters = CString::default();
    // SAFETY: the descriptor and the empty parameters are alive.
    let done = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Built in, or loaded by the one before.
            error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            error => Err(error.into()),
        },
    }
}

/// The loopback device of the first namespace, which nobody else turns on here.
fn loopback_up() -> Result<()> {
    // SAFETY: a socket that is closed below; the request is a plain structure whose name is `lo` and
    // whose flags are set before it is read.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        ensure!(socket >= 0, io::Error::last_os_error());
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let done = libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request);
        let error = io::Error::last_os_error();
        libc::close(socket);
        ensure!(done == 0, error);
    }
    Ok(())
}
