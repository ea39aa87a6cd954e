//! The table of `synprobe states`.

use std::{cmp::Reverse, fmt::Write as _, net::SocketAddr};

use super::{
    Style,
    listeners::{nothing_waits, shortened, shortened_addr},
};
use crate::{
    model::{Counted, Counts, NetnsStates, PortStates},
    util::{
        fill::fill,
        format::{name, safe},
    },
};

/// The widest listener, and the widest process.
const LISTENER: usize = 28;
const PROCESS: usize = 20;
/// Where less is left of a process, there is no table.
const SHORTEST_PROCESS: usize = 12;

/// What is printed.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// The sockets of each namespace by state, beside its listeners.
    pub totals: bool,
    /// Also namespaces and listeners without half-opens, SYN_SENT, or connections that wait for accept().
    pub all: bool,
}

fn of(counts: &Counts, state: &str) -> u64 {
    counts.get(state).copied().unwrap_or(0)
}

fn waits(l: &PortStates) -> bool {
    l.accept_queue > 0 || of(&l.states, "SYN_RECV") > 0
}

fn is_troubled(n: &NetnsStates) -> bool {
    of(&n.states, "SYN_RECV") + of(&n.states, "SYN_SENT") > 0 || n.listeners.iter().any(waits)
}

/// The tables as text, one for each namespace.
pub fn text(counted: &Counted, shown: Shown, style: Style) -> String {
    let mut text = String::new();
    let is_alone = counted.namespaces.len() == 1;
    let (full, others): (Vec<&NetnsStates>, Vec<&NetnsStates>) = counted
        .namespaces
        .iter()
        .partition(|n| shown.all || is_alone || n.name == "host" || is_troubled(n));
    for (n, ns) in full.iter().enumerate() {
        if n > 0 {
            text.push('\n');
        }
        namespace(&mut text, ns, shown, style);
    }
    if !others.is_empty() {
        let mut sums = Counts::new();
        for (state, n) in others.iter().flat_map(|ns| &ns.states) {
            *sums.entry(state.clone()).or_default() += n;
        }
        let line = format!(
            "{} other {}, without half-opens (--all lists them): {}",
            others.len(),
            if others.len() == 1 {
                "namespace"
            } else {
                "namespaces"
            },
            by_number(&sums).join(", ")
        );
        push_filled(&mut text, "", &line, style);
    }
    if counted.namespaces.is_empty() {
        text.push_str(match shown.totals {
            true => "no TCP sockets\n",
            false => "no listener on these ports\n",
        });
    }
    text
}

fn push_filled(text: &mut String, first: &str, line: &str, style: Style) {
    for line in fill(first, "      ", line, style.width) {
        let _ = writeln!(text, "{line}");
    }
}

/// `ESTABLISHED 12`, the most first.
fn by_number(counts: &Counts) -> Vec<String> {
    let mut states: Vec<_> = counts.iter().collect();
    states.sort_by_key(|(name, n)| (Reverse(**n), (*name).clone()));
    states
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect()
}

fn namespace(text: &mut String, ns: &NetnsStates, shown: Shown, style: Style) {
    let total: u64 = ns.states.values().sum();
    let head = format!(
        "namespace {} ({}): {total} TCP sockets",
        safe(&ns.name),
        ns.netns
    );
    push_filled(text, "", &head, style);
    if shown.totals {
        let mut states: Vec<_> = ns.states.iter().collect();
        states.sort_by_key(|(name, n)| (Reverse(**n), (*name).clone()));
        for (name, n) in states {
            let _ = writeln!(text, "  {name:<12} {n:>8}");
        }
    }
    let listed: Vec<&PortStates> = ns
        .listeners
        .iter()
        .filter(|l| shown.all || waits(l))
        .collect();
    if !listed.is_empty() {
        if shown.totals {
            text.push('\n');
        }
        listeners(text, &listed, style);
    }
    match ns.listeners.len() - listed.len() {
        0 => (),
        n => push_filled(text, "  ", &nothing_waits(n, ""), style),
    }
}

fn addr(l: &PortStates) -> String {
    SocketAddr::new(l.local_addr, l.local_port).to_string()
}

fn process(l: &PortStates) -> String {
    match (&l.comm, l.pid) {
        (Some(comm), Some(pid)) => format!("{}/{pid}", name(comm)),
        _ => "?".to_owned(),
    }
}

/// The states that have no column.
fn others(l: &PortStates) -> String {
    let has_none = |name: &str| !matches!(name, "ESTABLISHED" | "SYN_RECV");
    let others = l.states.iter().filter(|(name, _)| has_none(name));
    let others: Vec<_> = others.map(|(name, n)| format!("{name} {n}")).collect();
    others.join(", ")
}

/// On a narrow terminal no table fits: each listener has lines of its own, and no heading.
fn narrow(text: &mut String, listed: &[&PortStates], style: Style) {
    for l in listed {
        let addr = shortened_addr(&addr(l), style.width.saturating_sub(2));
        let who = format!("{addr}  {}", process(l));
        push_filled(text, "  ", &who, style);
        let mut numbers = format!(
            "ACCEPT-Q {}/{}, ESTABLISHED {}, SYN_RECV {}",
            l.accept_queue,
            l.accept_queue_max,
            of(&l.states, "ESTABLISHED"),
            of(&l.states, "SYN_RECV"),
        );
        match others(l) {
            others if others.is_empty() => (),
            others => numbers.push_str(&format!(", {others}")),
        }
        push_filled(text, "      ", &numbers, style);
        half_open_from(text, l, style);
    }
}

/// The peers of its half-opens.
fn half_open_from(text: &mut String, l: &PortStates, style: Style) {
    if l.syn_recv_peers.is_empty() {
        return;
    }
    let peers = l.syn_recv_peers.iter();
    let peers: Vec<_> = peers.map(|(addr, n)| format!("{addr} ({n})")).collect();
    let line = format!(
        "half-open from {}; {} SYN-ACKs retransmitted so far",
        peers.join(", "),
        l.synack_retransmits
    );
    push_filled(text, "    ", &line, style);
}

fn listeners(text: &mut String, listed: &[&PortStates], style: Style) {
    let widest = |cells: Vec<String>, least: usize, most: usize| {
        let widest = cells.iter().map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0).clamp(least, most)
    };
    let wide = widest(listed.iter().map(|l| addr(l)).collect(), 8, LISTENER);
    // Where there is room, the whole name.
    let fixed = 2 + wide + 1 + 9 + 1 + 11 + 1 + 8 + 2;
    if fixed + SHORTEST_PROCESS > style.width {
        return narrow(text, listed, style);
    }
    let most = style.width.saturating_sub(fixed).max(PROCESS - 8);
    let name = widest(listed.iter().map(|l| process(l)).collect(), 7, most);
    let room = style.width.saturating_sub(fixed + name + 1);
    let head = format!(
        "  {:<wide$} {:>9} {:>11} {:>8}  {:<name$} OTHERS",
        "LISTENER", "ACCEPT-Q", "ESTABLISHED", "SYN_RECV", "PROCESS"
    );
    let _ = writeln!(text, "{}", shortened(&head, style.width));
    for l in listed {
        let others = others(l);
        let is_below = others.chars().count() > room;
        let line = format!(
            "  {:<wide$} {:>9} {:>11} {:>8}  {:<name$} {}",
            shortened_addr(&addr(l), wide),
            format!("{}/{}", l.accept_queue, l.accept_queue_max),
            of(&l.states, "ESTABLISHED"),
            of(&l.states, "SYN_RECV"),
            shortened(&process(l), name),
            if is_below { "" } else { &others }
        );
        let _ = writeln!(text, "{}", line.trim_end());
        if is_below {
            push_filled(text, "    ", &others, style);
        }
        half_open_from(text, l, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(port: u16, accept_queue: u32, states: &[(&'static str, u64)]) -> PortStates {
        PortStates {
            local_addr: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
            local_port: port,
            pid: Some(4_194_304),
            comm: Some("a-long-process".into()),
            accept_queue,
            accept_queue_max: 4096,
            states: states
                .iter()
                .map(|(name, n)| ((*name).into(), *n))
                .collect(),
            synack_retransmits: 7,
            syn_recv_peers: vec![("2001:db8::1".parse().unwrap(), 3)],
        }
    }

    fn namespace(
        name: &str,
        listeners: Vec<PortStates>,
        states: &[(&'static str, u64)],
    ) -> NetnsStates {
        NetnsStates {
            netns: 7,
            name: name.into(),
            states: states
                .iter()
                .map(|(name, n)| ((*name).into(), *n))
                .collect(),
            listeners,
        }
    }

    #[test]
    fn only_what_is_troubled_is_listed_and_it_fits() {
        let busy = [
            ("SYN_RECV", 3),
            ("CLOSE_WAIT", 12),
            ("TIME_WAIT", 1000),
            ("FIN_WAIT1", 5),
        ];
        let counted = Counted {
            namespaces: vec![
                namespace("host", vec![port(22, 0, &[])], &[("LISTEN", 1)]),
                namespace("web", vec![port(80, 9, &busy), port(81, 0, &[])], &busy),
                namespace("db", vec![port(5432, 0, &[])], &[("ESTABLISHED", 4)]),
                namespace("mq", vec![], &[("ESTABLISHED", 3)]),
            ],
            failures: Vec::new(),
        };
        let shown = Shown {
            totals: true,
            all: false,
        };
        let few = text(&counted, shown, Style::plain(80));
        assert!(few.lines().all(|line| line.chars().count() <= 80), "{few}");
        let others = "2 other namespaces, without half-opens (--all lists them): ESTABLISHED 7\n";
        assert!(few.ends_with(others), "{few}");
        assert!(
            few.contains("nothing waits at 1 listener (--all lists them)"),
            "{few}"
        );
        assert!(
            few.contains("9/4096") && few.contains("CLOSE_WAIT 12"),
            "{few}"
        );
        let all = text(
            &counted,
            Shown {
                totals: true,
                all: true,
            },
            Style::plain(80),
        );
        assert!(
            all.contains("namespace db (7)") && !all.contains("--all"),
            "{all}"
        );
        assert!(all.lines().all(|line| line.chars().count() <= 80), "{all}");
        let narrow = text(&counted, shown, Style::plain(40));
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 40),
            "{narrow}"
        );
        assert!(
            narrow.contains("ACCEPT-Q 9/4096, ESTABLISHED 0,"),
            "{narrow}"
        );
    }
}
