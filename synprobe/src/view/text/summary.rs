//! The first line of a run, and the tables and totals at its end.

use std::io::{self, Write};

use super::{Colour, TextView, join};
use crate::{
    model::{Completed, Confidence, End, Peer, Problem, Role, Start},
    util::{fill::fill, format},
    view::{
        blind_in,
        page::{heading, steps},
    },
};

/// Peers that are listed; the others are counted.
const PEERS_LISTED: usize = 40;
/// Their columns: name, width, and the width of a line from which on there is room. `AGAIN` is the sum of those after
/// `MAX`.
const PEER_COLUMNS: [(&str, usize, usize); 16] = [
    ("PEER", 24, 0),
    ("ROLE", 6, 0),
    ("ATTEMPTS", 8, 0),
    ("OK", 6, 0),
    ("FAILED", 6, 0),
    ("OPEN", 5, 0),
    ("AGAIN", 6, 0),
    ("P50", 8, 80),
    ("P99", 8, 90),
    ("MAX", 8, 100),
    ("SYN+", 6, 140),
    ("SYNACK+", 7, 140),
    ("RTO", 5, 140),
    ("TLP", 5, 140),
    ("FAST", 5, 140),
    ("RECOV", 6, 140),
];

/// Where a line is shorter, a peer has two: its address and role, and its numbers.
const NARROW: usize = 68;

/// A row of the table of peers.
fn peer_row(columns: &[String], width: usize) -> String {
    let mut text = String::new();
    let is_narrow = width < NARROW;
    let all = PEER_COLUMNS.iter().zip(columns);
    for (n, ((_, wide, from), column)) in all.enumerate() {
        match n {
            _ if *from > width => (),
            0 if is_narrow => text.push_str(column),
            1 if is_narrow => text.push_str(&format!("  {column}\n ")),
            0 => text.push_str(&format!("{column:<wide$}")),
            _ => text.push_str(&format!(" {column:>wide$}")),
        }
    }
    text
}

impl<W: Write> TextView<W> {
    /// A problem that no handshake shows.
    pub(super) fn problem(&mut self, p: &Problem) -> io::Result<()> {
        let colour = match p.confidence {
            Confidence::Certain => Colour::Red,
            _ => Colour::Yellow,
        };
        writeln!(self.out)?;
        self.filled(colour, &heading(p))?;
        let width = self.style.width;
        for e in &p.evidence {
            let label = if e.supports { "for" } else { "against" };
            for line in fill(&format!("  {label:<8}"), &" ".repeat(10), &e.fact, width) {
                writeln!(self.out, "{line}")?;
            }
        }
        match &p.remedy {
            Some(remedy) => {
                let lines = steps("  do      ", &" ".repeat(10), remedy, self.style);
                lines
                    .iter()
                    .try_for_each(|line| writeln!(self.out, "{line}"))
            }
            None => Ok(()),
        }
    }

    /// The day, what is watched, what the signs mean, and the columns.
    pub(super) fn start(&mut self, mono_ns: u64, s: &Start) -> io::Result<()> {
        self.mode = blind_in(s).map(|blind| format!("mode {}; it does not see: {blind}", s.mode));
        let filters: Vec<_> = s
            .filters
            .iter()
            .map(|(k, v)| format!("{} {}", k.replace('_', " "), v.replace(',', ", ")))
            .collect();
        let what = if filters.is_empty() {
            "every handshake".to_owned()
        } else {
            filters.join(", ")
        };
        let day = self.day(mono_ns);
        let head = format!(
            "{day}  synprobe {} on Linux {}: {what}; mode {}",
            s.version, s.kernel, s.mode
        );
        self.filled(Colour::Dim, &head)?;
        for missing in &s.missing {
            self.filled(Colour::Yellow, &format!("not known here: {missing}"))?;
        }
        let late = match &*s.mode {
            "tracepoints" => "; ~: found by a look at the socket tables, up to 1 s later",
            _ => "",
        };
        let folded = match self.fold {
            Some(_) => "; ×n: more of one kind in this second (--no-fold)",
            None => "",
        };
        let signs = format!(
            "< this host accepts, > it connects; verdict?: likely; next: it sends again in, end: it \
             gives up in{late}{folded}"
        );
        self.filled(Colour::Dim, &signs)?;
        let columns = self.columns.heading();
        writeln!(self.out, "{}", self.paint(Colour::Dim, &columns))
    }

    pub(super) fn peer(&mut self, p: &Peer) -> io::Result<()> {
        self.peers += 1;
        let width = self.style.width;
        let shown = |columns: &[String]| peer_row(columns, width);
        if self.peers == 1 {
            let names: Vec<String> = PEER_COLUMNS.iter().map(|c| c.0.to_owned()).collect();
            let head = format!("\n{}", shown(&names));
            writeln!(self.out, "{}", self.paint(Colour::Dim, &head))?;
        }
        if self.peers > PEERS_LISTED {
            return Ok(());
        }
        let again = p.syn_retransmits
            + p.synack_retransmits
            + p.rto_retransmits
            + p.tlp_retransmits
            + p.fast_retransmits
            + p.recovery_retransmits;
        let mut columns = vec![
            p.peer_addr.to_string(),
            p.role.name().to_owned(),
            p.attempts.to_string(),
            p.established.to_string(),
            p.failed.to_string(),
            p.open.to_string(),
            again.to_string(),
            format::maybe(p.dwell_p50_us),
            format::maybe(p.dwell_p99_us),
            format::maybe(p.dwell_max_us),
            p.syn_retransmits.to_string(),
            p.synack_retransmits.to_string(),
            p.rto_retransmits.to_string(),
            p.tlp_retransmits.to_string(),
            p.fast_retransmits.to_string(),
            p.recovery_retransmits.to_string(),
        ];
        let colour = match (p.failed, p.open) {
            (0, 0) => Colour::Plain,
            (0, _) => Colour::Yellow,
            _ => Colour::Red,
        };
        // A long address has a line of its own.
        if width >= NARROW && columns[0].len() > PEER_COLUMNS[0].1 {
            let addr = std::mem::take(&mut columns[0]);
            writeln!(self.out, "{}", self.paint(colour, &addr))?;
        }
        writeln!(self.out, "{}", self.paint(colour, &shown(&columns)))?;
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
        self.filled(Colour::Dim, &text)
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
            let text = format!(
                "not in the table: {} handshakes and retransmissions of evicted peers; distinct peers: {}",
                e.peers_unlisted,
                join(&[&distinct(Role::Client), &distinct(Role::Server)])
            );
            self.filled(Colour::Plain, &text)?;
        }
        for fact in &e.unexplained {
            self.filled(Colour::Yellow, &format!("not explained: {fact}"))?;
        }
        if let Some(mode) = self.mode.take() {
            writeln!(self.out)?;
            self.filled(Colour::Dim, &mode)?;
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
            "{} handshakes{counted} in {}{refused}: {} kernel records, {} lost, {} handshakes evicted",
            e.handshakes,
            format::duration(e.duration_us),
            e.events,
            e.lost,
            e.evicted
        );
        writeln!(self.out)?;
        self.filled(colour, &text)
    }
}
