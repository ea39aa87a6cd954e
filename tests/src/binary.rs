//! Runs the `synprobe` binary as a user does.

use std::{
    env, fs,
    io::Read,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use synprobe_lab::Ns;

/// Time limit of a run that should end at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary of the tests' profile, in a place where every user may execute it.
///
/// `CARGO_BIN_EXE_*` exists only within one package. Therefore this builds the binary once with the same
/// cargo and the workspace's features, which reuses existing artifacts. Without cargo (the tests were copied
/// to another machine) it uses the binary beside the tests.
pub fn path() -> Result<&'static PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("the synprobe binary: {error}"))
}

fn build() -> Result<PathBuf> {
    let test = env::current_exe().context("the test's own path")?;
    let profile_dir = test
        .parent()
        .and_then(|deps| deps.parent())
        .context("the test is not in target/<profile>/deps")?;
    if let Some(cargo) = env::var_os("CARGO") {
        let target_dir = profile_dir.parent().context("a target directory")?;
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--bin", "synprobe"])
            .args(["-p", "synprobe", "-p", "synprobe-tests", "-p", "xtask"])
            .arg("--target-dir")
            .arg(target_dir)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        match profile_dir.file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => &mut build,
            Some(profile) => build.args(["--profile", profile]),
        };
        ensure!(build.status()?.success(), "cargo build failed");
    }
    let built = profile_dir.join("synprobe");
    // The target directory may be accessible to root only.
    let copy = env::temp_dir().join(format!("synprobe-under-test-{}", std::process::id()));
    fs::copy(&built, &copy).with_context(|| format!("copying {}", built.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// Removes the copy.
pub fn remove() {
    if let Ok(copy) = path() {
        // A copy that cannot be removed is in the system's temporary directory.
        let _ = fs::remove_file(copy);
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None`: killed by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// The one line on standard error.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one.
    pub fn one_line(&self) -> Result<&str> {
        let mut lines = self.err.lines();
        match (lines.next(), lines.next()) {
            (Some(line), None) => Ok(line),
            _ => bail!("not one line on standard error: {self:?}"),
        }
    }
}

/// The binary with these arguments; both outputs are pipes. It speaks English, whatever the locale of the tests is.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(path()?);
    command
        .args(arguments)
        .env_remove("LC_ALL")
        .env_remove("LC_MESSAGES")
        .env_remove("LANG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Runs the binary and waits for its end.
pub fn run(arguments: &[&str]) -> Result<Ran> {
    ended(command(arguments)?.spawn().context("starting synprobe")?)
}

/// Waits for the end of a run and reads its remaining output.
pub fn ended(mut child: Child) -> Result<Ran> {
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        err.as_mut()
            .map_or(Ok(0), |err| err.read_to_end(&mut text))?;
        std::io::Result::Ok(text)
    });
    let writer = std::thread::spawn(move || {
        let mut text = Vec::new();
        out.as_mut()
            .map_or(Ok(0), |out| out.read_to_end(&mut text))?;
        std::io::Result::Ok(text)
    });
    let status = wait(&mut child)?;
    let text = |thread: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        let bytes = thread.join().map_err(|_| anyhow!("a reader panicked"))??;
        anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Ran {
        code: status.code(),
        out: text(writer)?,
        err: text(reader)?,
    })
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            bail!("synprobe did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a run.
pub fn signal(child: &Child, signal: libc::c_int) -> Result<()> {
    let pid = libc::pid_t::try_from(child.id())?;
    // SAFETY: kill() takes no pointers. The child was not reaped yet, so the id is its own.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// Whether a run has a handler for a signal.
pub fn catches(child: &Child, signal: libc::c_int) -> Result<bool> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let mut lines = status.lines();
    let caught = lines.find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.context("SigCgt")?.trim(), 16)?;
    Ok(caught & 1 << (signal - 1) != 0)
}

/// A namespace as an argument: the path of its descriptor, as it has no name.
pub fn netns_path(ns: &Ns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), ns.fd().as_raw_fd())
}

/// A value of `/proc/PID/status` in KiB, such as `VmRSS`.
pub fn status_kib(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let figure = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(figure.with_context(|| field.to_owned())?.parse()?)
}

/// Ids of the eBPF programs that a process holds, directly or by a link.
pub fn programs_of(pid: u32) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed already.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        ids.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("prog_id:"))
                .filter_map(|id| id.trim().parse::<u32>().ok()),
        );
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Whether the kernel has a program with this id.
pub fn program_exists(id: u32) -> Result<bool> {
    /// `BPF_PROG_GET_FD_BY_ID` (include/uapi/linux/bpf.h).
    const PROG_GET_FD_BY_ID: libc::c_long = 13;
    // The first fields of union bpf_attr: id, next id, flags.
    let attr = [id, 0, 0];
    // SAFETY: the attributes are alive and their length is their own.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_GET_FD_BY_ID,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(false),
            _ => Err(error.into()),
        };
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    unsafe { libc::close(fd as libc::c_int) };
    Ok(true)
}
