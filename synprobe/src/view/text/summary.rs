//! The first line of a run, and the tables and totals at its end.

use std::io::{self, Write};

use super::{Colour, TextView, join};
use crate::{
    model::{Completed, Confidence, End, Peer, Problem, Role, Start},
    util::format,
    view::{blind_in, page::heading},
};

/// Peers that are listed; the others are counted.
const PEERS_LISTED: usize = 40;

impl<W: Write> TextView<W> {
    /// A problem that no handshake shows.
    pub(super) fn problem(&mut self, p: &Problem) -> io::Result<()> {
        let colour = match p.confidence {
            Confidence::Certain => Colour::Red,
            _ => Colour::Yellow,
        };
        writeln!(self.out, "\n{}", self.paint(colour, &heading(p)))?;
        for e in &p.evidence {
            let label = if e.supports { "for" } else { "against" };
            writeln!(self.out, "  {label:<8}{}", format::safe(&e.fact))?;
        }
        match &p.remedy {
            Some(remedy) => writeln!(self.out, "  {:<8}{}", "do", format::safe(remedy)),
            None => Ok(()),
        }
    }

    pub(super) fn start(&mut self, s: &Start) -> io::Result<()> {
        self.mode = blind_in(s).map(|blind| format!("mode {}; it does not see: {blind}", s.mode));
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

    pub(super) fn peer(&mut self, p: &Peer) -> io::Result<()> {
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

    pub(super) fn completed(&mut self, c: &Completed) -> io::Result<()> {
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

    pub(super) fn end(&mut self, e: &End) -> io::Result<()> {
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
                "not in the table: {} handshakes and retransmissions of evicted peers; distinct peers: {}",
                e.peers_unlisted,
                join(&[&distinct(Role::Client), &distinct(Role::Server)])
            )?;
        }
        for fact in &e.unexplained {
            let text = format!("not explained: {}", format::safe(fact));
            writeln!(self.out, "{}", self.paint(Colour::Yellow, &text))?;
        }
        if let Some(mode) = self.mode.take() {
            writeln!(self.out, "\n{}", self.paint(Colour::Dim, &mode))?;
        }
        let colour = if e.lost == 0 && e.evicted == 0 {
            Colour::Dim
        } else {
            Colour::Red
        };
        let counted = match e.counted {
            0 => String::new(),
            n => format!(" printed, {n} healthy ones counted,"),
        };
        let refused = match e.syns_refused {
            0 => String::new(),
            1 => ", 1 SYN refused by this host".to_owned(),
            n => format!(", {n} SYNs refused by this host"),
        };
        let text = format!(
            "\n{} handshakes{counted} in {}{refused}: {} kernel records, {} lost, {} handshakes evicted",
            e.handshakes,
            format::duration(e.duration_us),
            e.events,
            e.lost,
            e.evicted
        );
        writeln!(self.out, "{}", self.paint(colour, &text))
    }
}
