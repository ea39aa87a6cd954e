//! The commands of a remedy, as docs/events.md describes its text, and their runs.

use std::{
    collections::BTreeSet,
    env,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail, ensure};
use synprobe_tests::binary;

/// Programs that remedies call. A step whose first word is none of them is a sentence.
const PROGRAMS: &[&str] = &[
    "ausearch",
    "bpftool",
    "bridge",
    "cat",
    "conntrack",
    "dmesg",
    "ethtool",
    "free",
    "ip",
    "ip6tables-save",
    "iptables-save",
    "kill",
    "ls",
    "mpstat",
    "mtr",
    "nft",
    "nsenter",
    "nstat",
    "ping",
    "prlimit",
    "ss",
    "synprobe",
    "sysctl",
    "systemctl",
    "tc",
    "tcpdump",
    "tr",
    "traceroute",
    "tracepath",
];

/// One command of a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As a shell runs it.
    pub command: String,
    /// It is for the peer's host.
    pub on_the_peer: bool,
}

/// The commands of a remedy, in their order.
pub fn commands(remedy: &str) -> Vec<Step> {
    let text = remedy.split(" # ").next().unwrap_or_default();
    text.split("; ").filter_map(step).collect()
}

fn step(text: &str) -> Option<Step> {
    let is_command = |text: &str| {
        let first = text.split(' ').next().unwrap_or_default();
        PROGRAMS.contains(&first)
    };
    let (sentence, command) = match is_command(text) {
        true => ("", text),
        false => text
            .match_indices(": ")
            .map(|(at, _)| (&text[..at], &text[at + 2..]))
            .find(|(_, rest)| is_command(rest))?,
    };
    // The namespace has no name and no process: no command leads there. The service may be this test's own.
    if sentence.contains("in netns:[") || command.starts_with("systemctl restart ") {
        return None;
    }
    Some(Step {
        command: command.to_owned(),
        on_the_peer: sentence.starts_with("on the peer"),
    })
}

/// The programs of a command line.
fn programs(command: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    // A quoted filter may have a `|`.
    for part in command.split(" | ") {
        let mut words = part.split(' ').peekable();
        while let Some(word) = words.next() {
            found.insert(word);
            match word {
                "nsenter" => {
                    while words
                        .next()
                        .is_some_and(|word| word != "-n" && !word.starts_with("--net"))
                    {
                    }
                }
                // `ip netns exec NAME`
                "ip" if part.contains("ip netns exec ") => {
                    words.nth(2);
                }
                _ => break,
            }
        }
    }
    found
}

fn is_installed(program: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    program == "synprobe" || env::split_paths(&paths).any(|dir| dir.join(program).is_file())
}

/// A program of the command that this machine has not.
pub fn missing(command: &str) -> Option<String> {
    let all = programs(command);
    let missing = all.into_iter().find(|program| !is_installed(program));
    missing.map(str::to_owned)
}

/// A directory in which the binary under test has its own name.
fn binary_dir() -> Result<&'static Path> {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = DIR.get() {
        return Ok(dir);
    }
    let dir = env::temp_dir().join(format!("synprobe-remedies-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
    let link = dir.join("synprobe");
    if !link.exists() {
        // Another test of this process may be faster.
        let _ = symlink(binary::path()?, &link);
    }
    Ok(DIR.get_or_init(|| dir))
}

/// Removes it.
pub fn clean() {
    let dir = env::temp_dir().join(format!("synprobe-remedies-{}", std::process::id()));
    // It is in the system's temporary directory.
    let _ = std::fs::remove_dir_all(dir);
}

/// Runs a command by `sh -c`, and returns what it printed.
///
/// # Errors
///
/// When it fails. A packet that does not come back, and nothing found, is no failure of a command that looks.
pub fn run(command: &str) -> Result<String> {
    // It captures until it is stopped: with -d it compiles its filter, prints it and ends.
    let runs = match command.contains("tcpdump ") {
        true => command.replacen("tcpdump ", "tcpdump -d ", 1),
        false => command.to_owned(),
    };
    let path = env::join_paths(
        std::iter::once(binary_dir()?.to_owned())
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    let ran = Command::new("timeout")
        .args(["60", "sh", "-c", &runs])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| runs.clone())?;
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    let err = String::from_utf8_lossy(&ran.stderr);
    let Some(code) = ran.status.code() else {
        bail!("{runs}: {}", ran.status);
    };
    let all = programs(command);
    let may_fail = match code {
        // The answer is that there is none.
        1 => ["ping", "grep", "traceroute", "tracepath"]
            .iter()
            .any(|p| all.contains(p)),
        // No route: it says so.
        2 => {
            ["ip route get", "ping "]
                .iter()
                .any(|c| command.contains(c))
                && err.contains("unreachable")
        }
        // Of `connect`: it could not.
        4 => all.contains("synprobe"),
        _ => false,
    };
    ensure!(code == 0 || may_fail, "{runs}: status {code}: {out}{err}");
    Ok(out + &err)
}
