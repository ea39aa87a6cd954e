//! The page that `diagnose` ends in: what can be pasted into a ticket.

use std::{collections::BTreeMap, fmt::Write as _, io, mem};

use super::{View, WallClock, rfc3339};
use crate::{
    model::{
        Body, Confidence, Counted, End, Evidence, Handshake, Line, Lost, Missed, Outcome, Problem,
        Role, Start, VerdictKind,
    },
    util::format,
};

/// Width of the text.
const WIDTH: usize = 100;
/// Problems, worst first, that are told in full.
const IN_FULL: usize = 8;
/// Those after them that have a line each.
const IN_A_LINE: usize = 12;
/// Half-opens of before the run are worth a word.
const THERE_BEFORE: u64 = 1;

fn head(p: &Problem) -> String {
    let sure = match p.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Insufficient => "not enough evidence",
    };
    let name = p.verdict.map_or("no verdict", VerdictKind::name);
    format!("{}. {name}, {sure}: {}", p.rank, place(p))
}

/// Gathers the lines of a run; [`Page::text`] makes the page of them.
#[derive(Default)]
pub struct Page {
    start: Option<Start>,
    began: String,
    problems: Vec<Problem>,
    lost: Vec<Lost>,
    end: Option<End>,
    judged: u64,
    there_before: u64,
    undecided: u64,
}

impl View for Page {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        for line in lines {
            match &line.body {
                Body::Start(start) => {
                    self.start = Some(start.clone());
                    self.began = rfc3339(clock, line.mono_ns);
                }
                Body::Problem(problem) => self.problems.push(problem.as_ref().clone()),
                Body::Lost(lost) => self.lost.push(lost.clone()),
                Body::End(end) => self.end = Some(end.clone()),
                Body::Handshake(h) => self.handshake(h),
                _ => (),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn handshake(&mut self, h: &Handshake) {
        self.judged += 1;
        self.there_before += u64::from(h.facts.was_there);
        let failed = h.outcome != Outcome::Established && !h.was_evicted();
        self.undecided += u64::from(h.verdict.is_none() && failed);
    }

    /// The page.
    pub fn text(&self, states: &Counted, colour: bool) -> String {
        let mut text = String::new();
        self.head(&mut text, colour);
        histogram(&mut text, states);
        let real = self.problems.iter().filter(|p| p.verdict.is_some());
        if real.count() == 0 {
            text.push_str("\nNothing wrong was found.\n");
        }
        for problem in self.problems.iter().take(IN_FULL) {
            self.problem(&mut text, problem, colour);
        }
        self.the_others(&mut text);
        self.blind_spots(&mut text, states, colour);
        text
    }

    fn head(&self, text: &mut String, colour: bool) {
        let (Some(start), Some(end)) = (&self.start, &self.end) else {
            return;
        };
        let filters: Vec<String> = start
            .filters
            .iter()
            .map(|(name, value)| format!("{} {value}", name.replace('_', " ")))
            .collect();
        let what = if filters.is_empty() {
            "the whole host".to_owned()
        } else {
            filters.join(", ")
        };
        let head = format!(
            "synprobe {} diagnose: {what}, Linux {}, {} of watching from {} on",
            start.version,
            start.kernel,
            format::duration(end.duration_us),
            self.began
                .get(..19)
                .unwrap_or(&self.began)
                .replace('T', " ")
                + " UTC",
        );
        let _ = writeln!(text, "{}", paint(colour, "1", &head));
        let _ = writeln!(
            text,
            "{} handshakes ended or were open, {} of them in trouble; {} kernel records",
            end.handshakes + end.counted,
            self.judged,
            end.events
        );
    }

    /// A line for each of those that are less bad, and a count of the rest.
    fn the_others(&self, text: &mut String) {
        let others = self.problems.get(IN_FULL..).unwrap_or_default();
        if others.is_empty() {
            return;
        }
        text.push('\n');
        for p in others.iter().take(IN_A_LINE) {
            let _ = writeln!(text, "{}", head(p));
        }
        let mut rest: BTreeMap<&str, usize> = BTreeMap::new();
        for p in others.iter().skip(IN_A_LINE) {
            *rest.entry(p.verdict_name()).or_default() += 1;
        }
        if !rest.is_empty() {
            let rest: Vec<_> = rest.iter().map(|(v, n)| format!("{v} ×{n}")).collect();
            let _ = writeln!(
                text,
                "and more of the kind: {} (--format json has all)",
                rest.join(", ")
            );
        }
    }

    fn problem(&self, text: &mut String, p: &Problem, colour: bool) {
        let code = match (p.verdict, p.confidence) {
            (None | Some(VerdictKind::DeferAccept), _) => "2",
            (_, Confidence::Certain) => "1;31",
            _ => "1;33",
        };
        let _ = writeln!(text, "\n{}", paint(colour, code, &head(p)));
        for e in &p.evidence {
            fact(text, e);
        }
        if !p.peers.is_empty() {
            let named: Vec<String> = p
                .peers
                .iter()
                .map(|s| format!("{} ×{}", s.peer_addr, s.handshakes))
                .collect();
            let more = match p.peers_more {
                0 => String::new(),
                n => format!(", and {n} more"),
            };
            entry(text, "peers", &format!("{}{more}", named.join(", ")));
        }
        if let Some(remedy) = &p.remedy {
            entry(text, "do", remedy);
        }
        if let Some(verdict) = p.verdict {
            entry(text, "more", &format!("synprobe explain {verdict}"));
        }
    }

    /// What could not be seen.
    fn blind_spots(&self, text: &mut String, states: &Counted, colour: bool) {
        let mut spots = Vec::new();
        let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
        // Evicted handshakes have an entry of their own below.
        for one in self.lost.iter().filter(|one| one.of != Missed::Evicted) {
            *lost.entry(&one.reason).or_default() += one.events;
        }
        for (reason, events) in lost {
            spots.push(format!(
                "{events} lost: {reason}; verdicts are less sure for it"
            ));
        }
        if self.end.as_ref().is_some_and(|end| end.counted > 0) {
            spots.push(
                "handshakes that went well were only counted, not looked at: what is usual for a peer, and \
                 so what is slow for it, is not known (--every looks at all)"
                    .to_owned(),
            );
        }
        if self.there_before >= THERE_BEFORE {
            spots.push(format!(
                "{} of the handshakes were there before the run: what came before is known only as far \
                 as the kernel's own counts tell",
                self.there_before
            ));
        }
        if self.undecided > 0 {
            spots.push(format!(
                "{} handshakes showed too little in this time: a longer --duration shows more (SYN-ACKs \
                 are sent at 1, 3, 7, 15, 31 s)",
                self.undecided
            ));
        }
        if let Some(start) = &self.start {
            spots.extend(
                start
                    .missing
                    .iter()
                    .map(|m| format!("not known on this host: {m}")),
            );
        }
        if let Some(end) = self.end.as_ref().filter(|end| end.evicted > 0) {
            spots.push(format!(
                "{} handshakes evicted from the full table: what became of them is not known (a larger \
                 --max-handshakes keeps them)",
                end.evicted
            ));
        }
        spots.extend(states.failures.iter().cloned());
        if spots.is_empty() {
            text.push_str("\nNothing was lost.\n");
            return;
        }
        let _ = writeln!(text, "\n{}", paint(colour, "1", "What could not be seen"));
        for spot in spots {
            entry(text, "-", &spot);
        }
    }
}

/// Whose problem it is.
fn place(p: &Problem) -> String {
    let process = match (&p.comm, p.pid) {
        (Some(comm), Some(pid)) => format!(" ({}/{pid})", format::safe(comm)),
        _ => String::new(),
    };
    let what = match (p.role, p.local_addr, p.local_port, p.peer_port) {
        (Role::Server, Some(addr), Some(port), _) => {
            format!("server {}{process}", std::net::SocketAddr::new(addr, port))
        }
        (Role::Client, _, _, Some(port)) => format!("client{process} to port {port}"),
        (Role::Client, ..) => format!("client{process}"),
        _ => "server".to_owned(),
    };
    match &p.netns_name {
        Some(name) if name.starts_with("netns:") => format!("{what}, {}", format::safe(name)),
        Some(name) if &**name != "host" => format!("{what}, netns {}", format::safe(name)),
        None => format!("{what}, netns {}", p.netns),
        _ => what,
    }
}

fn histogram(text: &mut String, states: &Counted) {
    for netns in &states.namespaces {
        let mut counts: Vec<(&str, u64)> = netns.states.iter().map(|(s, n)| (&**s, *n)).collect();
        counts.sort_by_key(|(state, n)| (std::cmp::Reverse(*n), *state));
        let counts: Vec<String> = counts.iter().map(|(s, n)| format!("{s} {n}")).collect();
        let name = if netns.name == "host" {
            String::new()
        } else {
            format!(" of netns {}", format::safe(&netns.name))
        };
        entry(text, "states", &format!("{}{name}", counts.join("  ")));
    }
}

fn fact(text: &mut String, e: &Evidence) {
    entry(text, if e.supports { "for" } else { "against" }, &e.fact);
}

/// A label, and text filled beside it.
fn entry(text: &mut String, label: &str, body: &str) {
    let mut line = format!("  {label:<8}");
    let indent = line.chars().count();
    let mut column = indent;
    for word in format::safe(body).split(' ') {
        let len = word.chars().count();
        if column > indent && column + 1 + len > WIDTH {
            let _ = writeln!(text, "{}", mem::take(&mut line).trim_end());
            line = " ".repeat(indent);
            column = indent;
        } else if column > indent {
            line.push(' ');
            column += 1;
        }
        line.push_str(word);
        column += len;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::PeerShare,
        model::{Counted, NetnsStates},
    };

    fn evidence(fact: &str, supports: bool) -> Evidence {
        Evidence {
            fact: fact.to_owned(),
            supports,
        }
    }

    fn lines() -> Vec<Line> {
        let start = Start {
            version: "0.1.0".into(),
            kernel: "6.18.44".into(),
            features: Vec::new(),
            mode: "tracepoints".into(),
            mode_why: None,
            missing: vec!["network namespaces".into()],
            filters: [("port".to_owned(), "8080".to_owned())].into(),
            ..Start::default()
        };
        let problem = Problem {
            rank: 1,
            verdict: Some(VerdictKind::AcceptQueueFull),
            confidence: Confidence::Certain,
            role: Role::Server,
            netns: 7,
            netns_name: Some("host".into()),
            local_addr: Some("0.0.0.0".parse().unwrap()),
            local_port: Some(8080),
            peer_port: None,
            pid: Some(99),
            comm: Some("ja\u{1b}va".into()),
            handshakes: 307,
            open: 307,
            peers: vec![PeerShare {
                peer_addr: "10.1.2.3".parse().unwrap(),
                handshakes: 40,
            }],
            peers_more: 61,
            evidence: vec![
                evidence("307 half-opens: 307 open; the longest 48.0 s", true),
                evidence(
                    "listener 0.0.0.0:8080 (java/99): accept queue full in 10 of 10 looks, up to 129 of 128",
                    true,
                ),
                evidence(
                    "its own final ACK was not seen to be refused in this run",
                    false,
                ),
            ],
            remedy: Some("ss -ltnp 'sport = :8080'".into()),
        };
        let lost = Lost {
            events: 5,
            reason: "state records: the ring was full (a larger --ring-size helps)".into(),
            of: Missed::States,
        };
        let end = End {
            events: 1200,
            lost: 5,
            handshakes: 907,
            duration_us: 10_000_000,
            ..End::default()
        };
        let line = |body| Line { mono_ns: 0, body };
        vec![
            line(Body::Start(start)),
            line(Body::Problem(Box::new(problem))),
            line(Body::Lost(lost)),
            line(Body::End(end)),
        ]
    }

    fn states() -> Counted {
        let host = NetnsStates {
            netns: 7,
            name: "host".into(),
            states: [("ESTABLISHED", 500), ("SYN_RECV", 307), ("LISTEN", 1)]
                .map(|(state, count)| (state.into(), count))
                .into(),
            listeners: Vec::new(),
        };
        Counted {
            namespaces: vec![host],
            failures: vec!["namespace web: Operation not permitted".into()],
        }
    }

    #[test]
    fn the_page_says_what_is_wrong_why_what_to_do_and_what_could_not_be_seen() {
        let mut page = Page::default();
        page.show(&lines(), WallClock::new(1_767_323_045_000_000_000, 0))
            .unwrap();
        let text = page.text(&states(), false);
        let wanted = "\
synprobe 0.1.0 diagnose: port 8080, Linux 6.18.44, 10.0 s of watching from 2026-01-02 03:04:05 UTC on
907 handshakes ended or were open, 0 of them in trouble; 1200 kernel records
  states  ESTABLISHED 500  SYN_RECV 307  LISTEN 1

1. accept-queue-full, certain: server 0.0.0.0:8080 (ja\\u{1b}va/99)
  for     307 half-opens: 307 open; the longest 48.0 s
  for     listener 0.0.0.0:8080 (java/99): accept queue full in 10 of 10 looks, up to 129 of 128
  against its own final ACK was not seen to be refused in this run
  peers   10.1.2.3 ×40, and 61 more
  do      ss -ltnp 'sport = :8080'
  more    synprobe explain accept-queue-full

What could not be seen
  -       5 lost: state records: the ring was full (a larger --ring-size helps); verdicts are less
          sure for it
  -       not known on this host: network namespaces
  -       namespace web: Operation not permitted
";
        assert_eq!(text, wanted, "{text}");
        assert!(page.text(&states(), true).contains("\x1b[1;31m1. accept"));
    }

    #[test]
    fn a_quiet_host_gets_a_quiet_page() {
        let mut page = Page::default();
        let quiet: Vec<Line> = lines()
            .into_iter()
            .filter(|l| matches!(l.body, Body::End(_)))
            .collect();
        page.show(&quiet, WallClock::default()).unwrap();
        let text = page.text(&Counted::default(), false);
        assert!(text.contains("Nothing wrong was found."), "{text}");
        assert!(text.contains("Nothing was lost."), "{text}");
    }
}
