//! Other tools on the same tracepoint.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Seek},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Result, bail};

use super::process::{Watcher, unlinked_file};

/// An installed tool.
pub struct PeerTool {
    /// Common name.
    pub name: &'static str,
    /// Path of the program.
    pub path: PathBuf,
    /// Its arguments.
    pub args: &'static [&'static str],
}

/// The smallest useful script on the tracepoint: it prints the states and the ports.
const ONE_LINE: &str = "tracepoint:sock:inet_sock_set_state \
    { printf(\"%d %d %d %d\\n\", args->oldstate, args->newstate, args->sport, args->dport); }";

/// A script that comes with bpftrace. It prints each retransmission.
const RETRANSMISSIONS: &str = "/usr/sbin/tcpretrans.bt";

/// Common name, names of the file, arguments.
type Known = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// All of them. Some distributions add a prefix or a suffix to those of libbpf-tools. The Python tools of the same
/// names in bcc are not looked for.
const KNOWN: [Known; 4] = [
    (
        "tcpstates",
        &["tcpstates", "bpf-tcpstates", "tcpstates-libbpf"],
        &[],
    ),
    (
        "tcpconnlat",
        &["tcpconnlat", "bpf-tcpconnlat", "tcpconnlat-libbpf"],
        &[],
    ),
    ("tcpretrans.bt", &["bpftrace"], &[RETRANSMISSIONS]),
    ("bpftrace", &["bpftrace"], &["-e", ONE_LINE]),
];

/// Finds the installed ones of the tools that print a line of each transition.
pub fn find() -> Vec<PeerTool> {
    let of_transitions = |known: &Known| matches!(known.0, "tcpstates" | "bpftrace");
    let known = KNOWN.into_iter().filter(of_transitions);
    known.filter_map(|known| installed(known).ok()).collect()
}

/// Finds all of them; for one that is not installed, its name.
pub fn find_all() -> Vec<Result<PeerTool, &'static str>> {
    KNOWN.into_iter().map(installed).collect()
}

fn installed((name, files, args): Known) -> Result<PeerTool, &'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .collect();
    let mut places = files
        .iter()
        .flat_map(|f| folders.iter().map(move |d| d.join(f)));
    let path = places.find(is_elf).ok_or(name)?;
    Ok(PeerTool { name, path, args })
}

impl Watcher {
    /// Starts a peer tool.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn peer(program: &Path, args: &[&str], folder: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(args);
        // It reports lost events there, and why it does not run.
        let messages = unlinked_file(folder)?;
        command.stderr(messages.try_clone()?);
        // SAFETY: the closure makes system calls on constants only.
        unsafe { command.pre_exec(own_tracefs) };
        let started = Self::start(command, unlinked_file(folder)?, |watcher| {
            Ok(!watcher.process.programs().is_empty())
        });
        let mut watcher = match started {
            Ok(watcher) => watcher,
            Err(_) => bail!("{}", last_line(&messages)?),
        };
        watcher.fails_at_end = true;
        // Its programs are loaded; attaching takes a moment, and it prints nothing until its buffer is full.
        thread::sleep(Duration::from_millis(300));
        if watcher.process.died().is_some() {
            bail!("cannot attach its programs: {}", last_line(&messages)?);
        }
        Ok(watcher)
    }
}

/// Mounts tracefs in a mount namespace of the calling process. libbpf attaches by it, and many hosts
/// have not mounted it. Runs between fork and exec.
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
    // EBUSY: it is mounted already.
    match io::Error::last_os_error() {
        error if done || error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        error => Err(error),
    }
}

/// The last line that a program wrote there.
fn last_line(file: &File) -> Result<String> {
    let mut text = Vec::new();
    let mut file = file.try_clone()?;
    file.rewind()?;
    file.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Ok(last.unwrap_or("no message").trim().to_owned())
}

fn is_elf(file: &PathBuf) -> bool {
    fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
}
