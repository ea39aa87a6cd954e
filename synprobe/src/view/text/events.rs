//! What each event's row says: transitions, retransmissions, ends of handshakes.

use std::io::{self, Write};

use super::{
    Colour, TextView,
    row::{EventRow, RowPeer, Weight, end_of},
};
use crate::{
    model::{
        Confidence, Connection, ConnectionReset, DwellSource, Handshake, OpenReason, Outcome,
        Retransmit, RetransmitKind, Role, State, SynRefused, Trigger, who,
    },
    util::format,
};

/// A gap below this part of what the schedule predicts is not explained by it.
const EARLY: u64 = 4;

/// Details in the order in which they are printed; empty ones are none.
fn details<const N: usize>(all: [(Weight, String); N]) -> Vec<(Weight, String)> {
    all.into_iter()
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

impl<W: Write> TextView<W> {
    /// The row of a connection. `kind`: its event without what differs from row to row.
    fn event(
        &mut self,
        mono_ns: u64,
        c: &Connection,
        kind: &str,
        event: (&str, Colour),
        gap: String,
        mut details: Vec<(Weight, String)>,
    ) -> io::Result<()> {
        let netns = self.netns(c.netns_name.as_deref(), c.netns);
        if !netns.is_empty() {
            details.push((Weight::Netns, netns));
        }
        let local = end_of(c.local_addr, c.local_port);
        let (port, local) = match c.role {
            Role::Client => (c.peer_port, format!("from {local}")),
            Role::Server => (c.local_port, format!("at {local}")),
        };
        details.push((Weight::Local, local));
        let row = EventRow {
            time: self.time(mono_ns)?,
            id: Some(c.id),
            role: Some(c.role),
            port,
            peer: RowPeer::One(
                c.peer_addr,
                // The called port has a column.
                (c.role == Role::Server).then_some(c.peer_port).flatten(),
            ),
            event: (event.0.to_owned(), event.1),
            gap,
            details,
        };
        self.row(c.netns, kind, row)
    }

    fn netns(&self, name: Option<&str>, inode: u32) -> String {
        match name {
            Some(name) if self.namespaces && name.starts_with("netns:") => {
                format::safe(name).into_owned()
            }
            Some(name) if self.namespaces && name != "host" => {
                format!("netns {}", format::safe(name))
            }
            None if self.namespaces => format!("netns {inode}"),
            _ => String::new(),
        }
    }

    pub(super) fn syn_refused(&mut self, mono_ns: u64, r: &SynRefused) -> io::Result<()> {
        let reason = match &r.reason {
            Some(reason) => format!("{} ({})", format::safe(&r.what), format::safe(reason)),
            None => format::safe(&r.what).into_owned(),
        };
        let remedy = match &r.remedy {
            Some(remedy) => format!("see: {}", format::safe(remedy)),
            None => String::new(),
        };
        let (role, port, local) = match &r.forward {
            Some(to) => {
                let devices = [&to.from_interface, &to.to_interface];
                let mut way: Vec<String> = devices
                    .into_iter()
                    .flatten()
                    .map(|d| format::safe(d).into_owned())
                    .collect();
                way.push(end_of(to.to_addr, Some(to.to_port)));
                (None, Some(to.to_port), format!("to {}", way.join(" → ")))
            }
            None => {
                let local = match r.local_addr {
                    Some(addr) => format!("at {}", end_of(addr, r.local_port)),
                    None => "at several".to_owned(),
                };
                (Some(Role::Server), r.local_port, local)
            }
        };
        let weight = match role {
            None => Weight::Cause,
            Some(_) => Weight::Local,
        };
        let row = EventRow {
            time: self.time(mono_ns)?,
            id: None,
            role,
            port,
            peer: match r.peer_addr {
                Some(peer) => RowPeer::One(peer, None),
                None => RowPeer::Several("several peers".to_owned()),
            },
            event: ("SYN REFUSED".to_owned(), Colour::Red),
            gap: format!("×{}", r.count),
            details: details([
                (Weight::Cause, reason),
                (weight, local),
                (
                    Weight::Process,
                    who(r.comm.as_deref(), r.pid, &r.workload).into_owned(),
                ),
                (Weight::Netns, self.netns(r.netns_name.as_deref(), r.netns)),
                (Weight::Due, remedy),
            ]),
        };
        self.print(&row)
    }

    pub(super) fn connection_reset(&mut self, mono_ns: u64, r: &ConnectionReset) -> io::Result<()> {
        let sent = match r.bytes_sent {
            0 => "nothing was sent".to_owned(),
            n => format!("{n} bytes had been sent, none received"),
        };
        let fin = match r.fin_received {
            true => "the peer closed first (FIN)".to_owned(),
            false => String::new(),
        };
        let details = details([
            (Weight::Cause, sent),
            (Weight::Error, fin),
            (Weight::Process, process(&r.connection)),
        ]);
        let after = format!("+{}", format::duration(r.age_us));
        let event = ("RESET", Colour::Red);
        self.event(mono_ns, &r.connection, "RESET", event, after, details)
    }

    pub(super) fn state(&mut self, mono_ns: u64, s: &State) -> io::Result<()> {
        let is_handshake = s.old.is_handshake() || s.new.is_handshake();
        let event = match is_handshake {
            true => s.new.name().to_owned(),
            false => format!("→{}", s.new.name()),
        };
        let dwell = match is_handshake {
            true => String::new(),
            false => s.dwell_us.map_or(String::new(), format::duration),
        };
        let details = details([(Weight::Process, process(&s.connection))]);
        let painted = (&*event, Colour::Dim);
        self.event(mono_ns, &s.connection, &event, painted, dwell, details)
    }

    pub(super) fn retransmit(&mut self, mono_ns: u64, r: &Retransmit) -> io::Result<()> {
        let what = match r.kind {
            RetransmitKind::Syn => "SYN",
            RetransmitKind::Synack => "SYN-ACK",
            RetransmitKind::Rto => "RTO",
            RetransmitKind::Tlp => "loss probe",
            RetransmitKind::Fast => "fast retrans",
            RetransmitKind::Recovery => "recovery",
        };
        let again = format!("{what} again");
        let (event, kind) = match (r.kind, r.attempt) {
            (RetransmitKind::Syn | RetransmitKind::Synack, Some(n)) => {
                (format!("{what}+{n}"), again)
            }
            (RetransmitKind::Syn | RetransmitKind::Synack, None) => (again.clone(), again),
            _ => (what.to_owned(), what.to_owned()),
        };
        let (why, due) = match (r.trigger, r.expected_gap_us) {
            (Some(Trigger::Peer), _) => ("peer", None),
            // The kernel's timers are never early: something else sent it. Far below the schedule, something else
            // than the time-out made the kernel repeat it.
            (trigger, Some(expected))
                if r.gap_us.is_some_and(|gap| {
                    gap < match trigger {
                        Some(_) => expected - expected / 8,
                        None => expected / EARLY,
                    }
                }) =>
            {
                ("early", Some(expected))
            }
            (_, Some(expected)) => ("timer", Some(expected)),
            _ => ("", None),
        };
        let next = match (r.next_us, r.gives_up_us) {
            (Some(next), Some(_)) => format!("next {}", brief(next)),
            (None, Some(_)) => "last".to_owned(),
            _ => String::new(),
        };
        let failed = match &r.error {
            Some(error) if r.failed => format!("NOT SENT: {error}"),
            _ => String::new(),
        };
        let kind = format!("{kind}/{why}{failed}");
        let end = r.gives_up_us.map(|us| format!("end {}", brief(us)));
        let due = due.map(|us| format!("due after {}", format::duration(us)));
        let details = details([
            (Weight::Cause, failed),
            (Weight::Cause, why.to_owned()),
            (Weight::Next, next),
            (Weight::End, end.unwrap_or_default()),
            (Weight::Due, due.unwrap_or_default()),
        ]);
        let gap = r
            .gap_us
            .map_or(String::new(), |gap| format!("+{}", format::duration(gap)));
        let painted = (&*event, Colour::Yellow);
        self.event(mono_ns, &r.connection, &kind, painted, gap, details)
    }

    pub(super) fn handshake(&mut self, mono_ns: u64, h: &Handshake) -> io::Result<()> {
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
            (n, 0) => format!("again ×{n}"),
            (n, by) => format!("again ×{n} ({by} by peer)"),
        };
        let verdict = match (h.verdict, h.confidence) {
            (Some(verdict), Confidence::Certain) => verdict.name().to_owned(),
            (Some(verdict), _) => format!("{verdict}?"),
            (None, _) => String::new(),
        };
        let open = match h.open_reason {
            Some(OpenReason::Evicted) => "evicted from the table",
            Some(OpenReason::EndNotSeen) => "its end was not seen",
            Some(OpenReason::RunEnded) | None => "",
        };
        let kind = format!("{event}/{verdict}");
        let details = details([
            (Weight::Cause, verdict),
            (Weight::Error, h.error.clone().unwrap_or_default()),
            (Weight::Error, open.to_owned()),
            (Weight::Due, unknown.to_owned()),
            (Weight::Count, again),
            (Weight::Gaps, format::ladder(&h.gaps_us)),
            (Weight::Bound, bound),
            (Weight::Process, process(&h.connection)),
        ]);
        let painted = (&*event, colour);
        self.event(mono_ns, &h.connection, &kind, painted, dwell, details)
    }
}

/// Whole seconds; below one, milliseconds.
fn brief(us: u64) -> String {
    match us {
        0..999_500 => format!("{}ms", (us + 500) / 1000),
        us => format!("{}s", (us + 500_000) / 1_000_000),
    }
}

fn process(c: &Connection) -> String {
    who(c.comm.as_deref(), c.pid, &c.workload).into_owned()
}
