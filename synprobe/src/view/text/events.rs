//! One line an event: transitions, retransmissions, ends of handshakes.

use std::{
    io::{self, Write},
    net::IpAddr,
};

use super::{Colour, TextView, join};
use crate::{
    model::{
        Confidence, Connection, ConnectionReset, DwellSource, Handshake, OpenReason, Outcome,
        Retransmit, RetransmitKind, Role, State, SynRefused, TcpState, Trigger, who,
    },
    util::format,
};

/// A gap below this part of what the schedule predicts is not explained by it.
const EARLY: u64 = 4;

impl<W: Write> TextView<W> {
    /// Prints the columns: time, role, endpoints, event, dwell, details.
    fn row(
        &mut self,
        time: &str,
        c: &Connection,
        event: (&str, Colour),
        dwell: &str,
        details: &str,
    ) -> io::Result<()> {
        let netns = self.netns(c.netns_name.as_deref(), c.netns);
        let details = join(&[details, &netns]);
        self.columns(time, c.role.name(), &endpoints(c), event, dwell, &details)
    }

    fn netns(&self, name: Option<&str>, inode: u32) -> String {
        match name {
            Some(name) if self.namespaces && name != "host" => {
                format!("netns {}", format::safe(name))
            }
            None if self.namespaces => format!("netns {inode}"),
            _ => String::new(),
        }
    }

    fn columns(
        &mut self,
        time: &str,
        role: &str,
        endpoints: &str,
        event: (&str, Colour),
        dwell: &str,
        details: &str,
    ) -> io::Result<()> {
        self.endpoints = self.endpoints.max(endpoints.chars().count());
        let width = self.endpoints;
        let event = self.paint(event.1, &format!("{:<13}", event.0));
        let text = format!(
            "{time}  {:<6}  {endpoints:<width$}  {event}  {dwell:>8}  {details}",
            role
        );
        writeln!(self.out, "{}", text.trim_end())
    }

    pub(super) fn syn_refused(&mut self, time: &str, r: &SynRefused) -> io::Result<()> {
        let local = match (r.local_addr, r.local_port) {
            (Some(addr), port) => end_of(addr, port),
            (None, _) => "several".to_owned(),
        };
        let peer = match r.peer_addr {
            Some(peer) => peer.to_string(),
            None => "peers".to_owned(),
        };
        let reason = match &r.reason {
            Some(reason) => format!("{} ({})", format::safe(&r.what), format::safe(reason)),
            None => format::safe(&r.what).into_owned(),
        };
        let remedy = match &r.remedy {
            Some(remedy) => format!("see: {}", format::safe(remedy)),
            None => String::new(),
        };
        let netns = self.netns(r.netns_name.as_deref(), r.netns);
        let process = who(r.comm.as_deref(), r.pid, &r.workload);
        let details = join(&[&reason, &process, &netns, &remedy]);
        let (role, endpoints) = match &r.forward {
            Some(to) => {
                let mut way = vec![peer];
                let devices = [&to.from_interface, &to.to_interface];
                way.extend(
                    devices
                        .into_iter()
                        .flatten()
                        .map(|d| format::safe(d).into_owned()),
                );
                way.push(end_of(to.to_addr, Some(to.to_port)));
                ("router", way.join(" → "))
            }
            None => ("server", format!("{local} ← {peer}")),
        };
        let event = ("SYN REFUSED", Colour::Red);
        let count = format!("×{}", r.count);
        self.columns(time, role, &endpoints, event, &count, &details)
    }

    pub(super) fn connection_reset(&mut self, time: &str, r: &ConnectionReset) -> io::Result<()> {
        let sent = match r.bytes_sent {
            0 => "nothing was sent".to_owned(),
            n => format!("{n} bytes had been sent, none received"),
        };
        let fin = match r.fin_received {
            true => "the peer closed first (FIN)",
            false => "",
        };
        let details = join(&[&sent, fin, &process(&r.connection)]);
        let after = format!("+{}", format::duration(r.age_us));
        let event = ("RESET", Colour::Red);
        self.row(time, &r.connection, event, &after, &details)
    }

    pub(super) fn state(&mut self, time: &str, s: &State) -> io::Result<()> {
        let handshake = s.old.is_handshake() || s.new.is_handshake();
        let event = if handshake {
            s.new.name().to_owned()
        } else {
            format!("→{}", s.new.name())
        };
        let details = match (s.new, s.connection.role) {
            (TcpState::SynRecv, Role::Server) => "half-open".to_owned(),
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

    pub(super) fn retransmit(&mut self, time: &str, r: &Retransmit) -> io::Result<()> {
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
            // The kernel's timers are never early: something else sent it.
            (_, Some(expected)) if r.gap_us.is_some_and(|gap| gap < expected - expected / 8) => {
                format!("earlier than its timer ({})", format::duration(expected))
            }
            // Far below the schedule: something else than the time-out made the kernel repeat it.
            (None, Some(expected)) if r.gap_us.is_some_and(|gap| gap < expected / EARLY) => {
                "before its time-out".to_owned()
            }
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

    pub(super) fn handshake(&mut self, time: &str, h: &Handshake) -> io::Result<()> {
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
            (None, _) if h.dwell_at_least_us.is_some() => {
                format!("≥{}", format::maybe(h.dwell_at_least_us))
            }
            (us, _) => format::maybe(us),
        };
        let bound = match h.dwell_error_us {
            Some(us) => format!("± {}", format::duration(us)),
            None => String::new(),
        };
        let unknown = match h.dwell_us {
            None => "its start was not seen",
            Some(_) => "",
        };
        let again = match (h.retransmits, h.retransmits_by_peer) {
            (0, _) => String::new(),
            (n, 0) => retransmissions(n),
            (n, by) => format!(
                "{}, {by} because the peer repeated its SYN",
                retransmissions(n)
            ),
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
}

fn end_of(addr: IpAddr, port: Option<u16>) -> String {
    let port = port.map_or_else(|| "?".to_owned(), |p| p.to_string());
    if addr.is_ipv6() {
        format!("[{addr}]:{port}")
    } else {
        format!("{addr}:{port}")
    }
}

fn endpoints(c: &Connection) -> String {
    let arrow = match c.role {
        Role::Client => "→",
        Role::Server => "←",
    };
    format!(
        "{} {arrow} {}",
        end_of(c.local_addr, c.local_port),
        end_of(c.peer_addr, c.peer_port)
    )
}

fn retransmissions(n: u32) -> String {
    match n {
        1 => "1 retransmission".to_owned(),
        n => format!("{n} retransmissions"),
    }
}

fn process(c: &Connection) -> String {
    who(c.comm.as_deref(), c.pid, &c.workload).into_owned()
}
