//! Text for eyes: one aligned line an event, then the peers, most trouble first.

use std::{
    collections::HashSet,
    io::{self, Write},
};

use super::{View, WallClock, rfc3339};
use crate::{
    model::{
        Body, Completed, Confidence, Connection, DwellSource, End, Handshake, Line, OpenReason,
        Outcome, Peer, Retransmit, RetransmitKind, Role, Start, State, TcpState, Trigger,
    },
    util::format,
};

/// Peers listed at the end; the others are counted.
const PEERS_LISTED: usize = 40;
/// Width of the two endpoints to begin with; it grows with what is shown.
const ENDPOINTS: usize = 40;

#[derive(Clone, Copy)]
enum Colour {
    Plain,
    Dim,
    Green,
    Yellow,
    Red,
}

/// See the module.
pub struct TextView<W> {
    out: W,
    colour: bool,
    namespaces: bool,
    endpoints: usize,
    peers: usize,
}

impl<W: Write> TextView<W> {
    /// Writes to `out`, which should be buffered; `colour` only for a terminal whose user did not set
    /// NO_COLOR; `namespaces` names the namespace of each line, unless it is the host's own.
    pub fn new(out: W, colour: bool, namespaces: bool) -> Self {
        Self {
            out,
            colour,
            namespaces,
            endpoints: ENDPOINTS,
            peers: 0,
        }
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            _ if !self.colour => return text.to_owned(),
            Colour::Plain => return text.to_owned(),
            Colour::Dim => "2",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Time, role, endpoints, event, dwell, details: always in these columns.
    fn row(
        &mut self,
        time: &str,
        c: &Connection,
        event: (&str, Colour),
        dwell: &str,
        details: &str,
    ) -> io::Result<()> {
        let endpoints = endpoints(c);
        self.endpoints = self.endpoints.max(endpoints.chars().count());
        let width = self.endpoints;
        let netns = match &c.netns_name {
            Some(name) if self.namespaces && &**name != "host" => {
                format!("netns {}", format::safe(name))
            }
            None if self.namespaces => format!("netns {}", c.netns),
            _ => String::new(),
        };
        let details = join(&[details, &netns]);
        let event = self.paint(event.1, &format!("{:<13}", event.0));
        let text = format!(
            "{time}  {:<6}  {endpoints:<width$}  {event}  {dwell:>8}  {details}",
            c.role.name()
        );
        writeln!(self.out, "{}", text.trim_end())
    }

    fn state(&mut self, time: &str, s: &State) -> io::Result<()> {
        let handshake = s.old.is_handshake() || s.new.is_handshake();
        let event = if handshake {
            s.new.name().to_owned()
        } else {
            format!("→{}", s.new.name())
        };
        let details = match (s.new, s.connection.role) {
            (TcpState::SynRecv, Role::Server) => "half-open since then".to_owned(),
            _ => String::new(),
        };
        let dwell = if handshake {
            String::new()
        } else {
            s.dwell_us.map_or(String::new(), format::duration)
        };
        let details = join(&[&details, &process(&s.connection)]);
        self.row(time, &s.connection, (&event, Colour::Dim), &dwell, &details)
    }

    fn retransmit(&mut self, time: &str, r: &Retransmit) -> io::Result<()> {
        let event = match r.kind {
            RetransmitKind::Syn => "SYN again",
            RetransmitKind::Synack => "SYN-ACK again",
            RetransmitKind::Rto => "RTO",
            RetransmitKind::Tlp => "loss probe",
            RetransmitKind::Fast => "fast retrans",
            RetransmitKind::Recovery => "recovery",
        };
        let attempt = r.attempt.map_or(String::new(), |n| format!("#{n}"));
        let why = match (r.trigger, r.expected_gap_us) {
            (Some(Trigger::Peer), _) => "the peer repeated its SYN".to_owned(),
            (_, Some(expected)) => format!("due after {}", format::duration(expected)),
            _ => String::new(),
        };
        let ahead = match (r.next_us, r.gives_up_us) {
            (Some(next), Some(end)) => {
                format!(
                    "next in {}, gives up in {}",
                    format::duration(next),
                    format::duration(end)
                )
            }
            (None, Some(end)) => format!("the last one: gives up in {}", format::duration(end)),
            _ => String::new(),
        };
        let failed = match &r.error {
            Some(error) if r.failed => format!("NOT SENT: {error}"),
            _ => String::new(),
        };
        let details = join(&[&attempt, &failed, &why, &ahead]);
        let gap = r
            .gap_us
            .map_or(String::new(), |gap| format!("+{}", format::duration(gap)));
        self.row(time, &r.connection, (event, Colour::Yellow), &gap, &details)
    }

    fn handshake(&mut self, time: &str, h: &Handshake) -> io::Result<()> {
        let colour = match h.outcome {
            Outcome::Established if h.retransmits == 0 => Colour::Green,
            Outcome::Established | Outcome::Open => Colour::Yellow,
            _ => Colour::Red,
        };
        let event = match h.outcome {
            Outcome::Established => "ESTABLISHED".to_owned(),
            other => other.name().replace('_', " "),
        };
        let dwell = match (h.dwell_us, h.dwell_source) {
            (Some(us), Some(DwellSource::SockDiag)) => format!("~{}", format::duration(us)),
            (us, _) => format::maybe(us),
        };
        let bound = match h.dwell_error_us {
            Some(us) => format!("± {}", format::duration(us)),
            None => String::new(),
        };
        let unknown = match h.dwell_us {
            None => "its beginning was not seen",
            Some(_) => "",
        };
        let again = match (h.retransmits, h.retransmits_by_peer) {
            (0, _) => String::new(),
            (n, 0) => format!("{n} sent again"),
            (n, by) => format!("{n} sent again, {by} because the peer repeated its SYN"),
        };
        let verdict = match (h.verdict, h.confidence) {
            (Some(verdict), Confidence::Certain) => verdict.name().to_owned(),
            (Some(verdict), _) => format!("likely {verdict}"),
            (None, _) => String::new(),
        };
        let open = match h.open_reason {
            Some(OpenReason::Evicted) => "evicted from the table",
            Some(OpenReason::EndNotSeen) => "its end was not seen",
            Some(OpenReason::RunEnded) | None => "",
        };
        let error = h.error.clone().unwrap_or_default();
        let details = join(&[
            &bound,
            unknown,
            open,
            &error,
            &verdict,
            &again,
            &format::ladder(&h.gaps_us),
            &process(&h.connection),
        ]);
        self.row(time, &h.connection, (&event, colour), &dwell, &details)
    }

    fn peer(&mut self, p: &Peer) -> io::Result<()> {
        self.peers += 1;
        if self.peers == 1 {
            let head = format!(
                "\n{:<39} {:<6} {:>8} {:>8} {:>7} {:>6} {:>9} {:>9} {:>9} {:>6} {:>7} {:>5} {:>5} {:>5} {:>6}",
                "PEER",
                "ROLE",
                "ATTEMPTS",
                "OK",
                "FAILED",
                "OPEN",
                "P50",
                "P99",
                "MAX",
                "SYN+",
                "SYNACK+",
                "RTO",
                "TLP",
                "FAST",
                "RECOV"
            );
            writeln!(self.out, "{}", self.paint(Colour::Dim, &head))?;
        }
        if self.peers > PEERS_LISTED {
            return Ok(());
        }
        let text = format!(
            "{:<39} {:<6} {:>8} {:>8} {:>7} {:>6} {:>9} {:>9} {:>9} {:>6} {:>7} {:>5} {:>5} {:>5} {:>6}",
            p.peer_addr.to_string(),
            p.role.name(),
            p.attempts,
            p.established,
            p.failed,
            p.open,
            format::maybe(p.dwell_p50_us),
            format::maybe(p.dwell_p99_us),
            format::maybe(p.dwell_max_us),
            p.syn_retransmits,
            p.synack_retransmits,
            p.rto_retransmits,
            p.tlp_retransmits,
            p.fast_retransmits,
            p.recovery_retransmits,
        );
        let colour = match (p.failed, p.open) {
            (0, 0) => Colour::Plain,
            (0, _) => Colour::Yellow,
            _ => Colour::Red,
        };
        writeln!(self.out, "{}", self.paint(colour, &text))?;
        for (refused, queue) in [
            (p.syns_refused_accept_queue, "accept"),
            (p.syns_refused_syn_queue, "SYN"),
        ] {
            if let Some(n @ 1..) = refused {
                let text = format!("    {n} of its SYNs refused: the {queue} queue was full");
                writeln!(self.out, "{}", self.paint(Colour::Red, &text))?;
            }
        }
        Ok(())
    }

    fn start(&mut self, s: &Start) -> io::Result<()> {
        let filters: Vec<_> = s.filters.iter().map(|(k, v)| format!("{k} {v}")).collect();
        let what = if filters.is_empty() {
            "every handshake".to_owned()
        } else {
            filters.join(", ")
        };
        let head = format!(
            "synprobe {} on Linux {}: {what}; mode {}; times are UTC",
            s.version, s.kernel, s.mode
        );
        writeln!(self.out, "{}", self.paint(Colour::Dim, &head))?;
        for missing in &s.missing {
            writeln!(
                self.out,
                "{}",
                self.paint(Colour::Yellow, &format!("not known here: {missing}"))
            )?;
        }
        Ok(())
    }

    fn completed(&mut self, c: &Completed) -> io::Result<()> {
        let port = match (c.port, c.role) {
            (Some(port), Role::Client) => format!("to port {port}"),
            (Some(port), Role::Server) => format!("on port {port}"),
            (None, _) => "on other ports".to_owned(),
        };
        let mut text = format!(
            "{:<6}  {port:<14}  {} completed, p50 {}, p99 {}",
            c.role.name(),
            c.handshakes,
            format::maybe(c.dwell_p50_us),
            format::maybe(c.dwell_p99_us),
        );
        if c.untimed > 0 {
            text += &format!(", {} of unknown time", c.untimed);
        }
        writeln!(self.out, "{}", self.paint(Colour::Dim, &text))
    }

    fn end(&mut self, e: &End) -> io::Result<()> {
        if self.peers > PEERS_LISTED {
            writeln!(self.out, "and {} more peers", self.peers - PEERS_LISTED)?;
        }
        if e.peers_unlisted > 0 {
            let distinct = |role: Role| match *e.peers_distinct.get(role) {
                0 => String::new(),
                n => {
                    let name = role.name();
                    match *e.peers_distinct_error.get(role) * 100.0 {
                        error if error > 0.0 => format!("about {n} as {name} (± {error:.2} %)"),
                        _ => format!("{n} as {name}"),
                    }
                }
            };
            writeln!(
                self.out,
                "not in the table: {} handshakes and retransmissions of peers that made room; different peers: {}",
                e.peers_unlisted,
                join(&[&distinct(Role::Client), &distinct(Role::Server)])
            )?;
        }
        let colour = if e.lost == 0 && e.evicted == 0 {
            Colour::Dim
        } else {
            Colour::Red
        };
        let counted = match e.counted {
            0 => String::new(),
            n => format!(" with a line and {n} that went well"),
        };
        let text = format!(
            "\n{} handshakes{counted} in {}: {} kernel records, {} lost, {} handshakes evicted",
            e.handshakes,
            format::duration(e.duration_us),
            e.events,
            e.lost,
            e.evicted
        );
        writeln!(self.out, "{}", self.paint(colour, &text))
    }

    fn line(&mut self, line: &Line, clock: WallClock, over: &HashSet<u64>) -> io::Result<()> {
        let full = rfc3339(clock, line.mono_ns);
        // 2026-01-02T03:04:05.678901Z → 03:04:05.678
        let time = full.get(11..23).unwrap_or(&full).to_owned();
        match &line.body {
            Body::Start(s) => self.start(s),
            Body::State(s) => {
                let leaves = s.old.is_handshake();
                let begins = s.new.is_handshake() && !leaves;
                // A handshake's end is told by its own line, and so is one that is over at once.
                if leaves && s.new != TcpState::SynRecv || begins && over.contains(&s.connection.id)
                {
                    return Ok(());
                }
                self.state(&time, s)
            }
            Body::Retransmit(r) => self.retransmit(&time, r),
            Body::Handshake(h) => self.handshake(&time, h),
            Body::Peer(p) => self.peer(p),
            Body::Completed(c) => self.completed(c),
            // Those who print them print a page, not lines.
            Body::Listener(_) | Body::Problem(_) | Body::Connect(_) => Ok(()),
            Body::Lost(l) => {
                let text = format!("{time}  LOST {}: {}", l.events, format::safe(&l.reason));
                writeln!(self.out, "{}", self.paint(Colour::Red, &text))
            }
            Body::End(e) => self.end(e),
        }
    }
}

impl<W: Write> View for TextView<W> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        let over: HashSet<u64> = lines
            .iter()
            .filter_map(|line| match &line.body {
                Body::Handshake(h) => Some(h.connection.id),
                _ => None,
            })
            .collect();
        lines
            .iter()
            .try_for_each(|line| self.line(line, clock, &over))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn endpoints(c: &Connection) -> String {
    let end = |addr: std::net::IpAddr, port: Option<u16>| {
        let port = port.map_or_else(|| "?".to_owned(), |p| p.to_string());
        if addr.is_ipv6() {
            format!("[{addr}]:{port}")
        } else {
            format!("{addr}:{port}")
        }
    };
    let arrow = match c.role {
        Role::Client => "→",
        Role::Server => "←",
    };
    format!(
        "{} {arrow} {}",
        end(c.local_addr, c.local_port),
        end(c.peer_addr, c.peer_port)
    )
}

fn process(c: &Connection) -> String {
    match (c.pid, &c.comm) {
        (Some(pid), Some(comm)) => format!("{}/{pid}", format::safe(comm)),
        _ => String::new(),
    }
}

fn join(parts: &[&str]) -> String {
    let parts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).copied().collect();
    parts.join(", ")
}
