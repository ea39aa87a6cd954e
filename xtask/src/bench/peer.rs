//! Programs of others on the same tracepoint.

use std::{env, fs, path::PathBuf};

/// One of them.
pub struct Peer {
    /// As people call it.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What it is asked.
    pub args: &'static [&'static str],
}

/// The least that a script can do on the tracepoint that says anything: which way, and between whom.
const ONE_LINE: &str = "tracepoint:sock:inet_sock_set_state \
    { printf(\"%d %d %d %d\\n\", args->oldstate, args->newstate, args->sport, args->dport); }";

/// Those that are installed: `tcpstates` of libbpf-tools (Debian leaves the name, others add a prefix or a
/// suffix; the one of bcc's Python tools is another program and is not looked for), and `bpftrace`.
pub fn find() -> Vec<Peer> {
    let known: [(&str, &[&str], &[&str]); 2] = [
        (
            "tcpstates",
            &["tcpstates", "bpf-tcpstates", "tcpstates-libbpf"],
            &[],
        ),
        ("bpftrace", &["bpftrace"], &["-e", ONE_LINE]),
    ];
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .collect();
    let installed = known.into_iter().filter_map(|(name, files, args)| {
        let mut places = files
            .iter()
            .flat_map(|f| folders.iter().map(move |d| d.join(f)));
        let path = places.find(is_elf)?;
        Some(Peer { name, path, args })
    });
    installed.collect()
}

fn is_elf(file: &PathBuf) -> bool {
    fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
}
