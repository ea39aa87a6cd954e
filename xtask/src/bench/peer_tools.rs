//! Other tools on the same tracepoint.

use std::{env, fs, path::PathBuf};

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

/// Finds the installed tools: `tcpstates` of libbpf-tools, and `bpftrace`. Some distributions add a
/// prefix or a suffix to `tcpstates`. The Python tool of that name in bcc is not looked for.
pub fn find() -> Vec<PeerTool> {
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
        Some(PeerTool { name, path, args })
    });
    installed.collect()
}

fn is_elf(file: &PathBuf) -> bool {
    fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
}
