//! The table of `synprobe states`.

use std::{cmp::Reverse, fmt::Write as _, net::IpAddr};

use crate::{
    model::Counted,
    util::format::{name, safe},
};

/// The tables as text, one for each namespace.
pub fn text(counted: &Counted) -> String {
    let mut text = String::new();
    for (n, ns) in counted.namespaces.iter().enumerate() {
        let gap = if n > 0 { "\n" } else { "" };
        let total: u64 = ns.states.values().sum();
        let _ = writeln!(
            text,
            "{gap}namespace {} ({}): {total} TCP sockets",
            safe(&ns.name),
            ns.netns
        );
        let mut states: Vec<_> = ns.states.iter().collect();
        states.sort_by_key(|(name, n)| (Reverse(**n), (*name).clone()));
        for (name, n) in states {
            let _ = writeln!(text, "  {name:<12} {n:>8}");
        }
        if ns.listeners.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "\n  {:<28} {:>9} {:>11} {:>8}  {:<20} OTHERS",
            "LISTENER", "ACCEPT-Q", "ESTABLISHED", "SYN_RECV", "PROCESS"
        );
        for l in &ns.listeners {
            let count = |name: &str| l.states.get(name).copied().unwrap_or(0);
            let addr = match l.local_addr {
                IpAddr::V6(v6) => format!("[{v6}]:{}", l.local_port),
                IpAddr::V4(v4) => format!("{v4}:{}", l.local_port),
            };
            let queue = format!("{}/{}", l.accept_queue, l.accept_queue_max);
            let process = match (&l.comm, l.pid) {
                (Some(comm), Some(pid)) => format!("{}/{pid}", name(comm)),
                _ => "?".to_owned(),
            };
            let others: Vec<_> = l
                .states
                .iter()
                .filter(|(name, _)| !matches!(&***name, "ESTABLISHED" | "SYN_RECV"))
                .map(|(name, n)| format!("{name} {n}"))
                .collect();
            let line = format!(
                "  {addr:<28} {queue:>9} {:>11} {:>8}  {process:<20} {}",
                count("ESTABLISHED"),
                count("SYN_RECV"),
                others.join(", ")
            );
            let _ = writeln!(text, "{}", line.trim_end());
            if !l.syn_recv_peers.is_empty() {
                let peers: Vec<_> = l
                    .syn_recv_peers
                    .iter()
                    .map(|(addr, n)| format!("{addr} ({n})"))
                    .collect();
                let _ = writeln!(
                    text,
                    "    half-open from {}; {} SYN-ACKs retransmitted so far",
                    peers.join(", "),
                    l.synack_retransmits
                );
            }
        }
    }
    if counted.namespaces.is_empty() {
        text.push_str("no TCP sockets\n");
    }
    text
}
