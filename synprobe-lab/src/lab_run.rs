//! One scenario's run: what was made held against what was seen.

use std::fmt::Write as _;

use synprobe_common::model::{Body, End, Line, Missed, Outcome, RetransmitKind, Role};

use crate::{
    Counters, LabCounters, Made, Side,
    comparison::{Comparison, Told},
};

/// What a lab run gave.
pub struct LabRun {
    /// What was made.
    pub made: Made,
    /// How far the kernel's own counters moved meanwhile.
    pub counters: LabCounters,
    /// Every line that was said.
    pub lines: Vec<Line>,
    /// The totals.
    pub end: End,
    /// Inodes of the client's and the server's namespace.
    pub namespaces: [u32; 2],
    /// The run began in the middle of it ([`Scenario::is_incident`]): totals of the two are no equals.
    pub incident: bool,
}

impl LabRun {
    /// Handshakes of a role that ended so.
    pub fn handshakes(&self, role: Role, outcome: Outcome) -> u64 {
        let matches = |line: &&Line| match &line.body {
            Body::Handshake(h) => h.connection.role == role && h.outcome == outcome,
            _ => false,
        };
        self.lines.iter().filter(matches).count() as u64
    }

    /// Segments that one side sent again, of one kind; those that could not be sent are left out.
    pub fn retransmits(&self, side: Side, kind: RetransmitKind) -> u64 {
        let netns = self.namespaces[usize::from(side == Side::Server)];
        let segments = |line: &Line| match &line.body {
            Body::Retransmit(r) if r.connection.netns == netns && r.kind == kind && !r.failed => {
                u64::from(r.segs)
            }
            _ => 0,
        };
        self.lines.iter().map(segments).sum()
    }

    /// What was told as lost of one side and kind.
    fn told_as_lost(&self, side: Side, of: impl Fn(u32) -> Missed) -> u64 {
        let of = of(self.namespaces[usize::from(side == Side::Server)]);
        let told = |line: &Line| match &line.body {
            Body::Lost(lost) if lost.of == of => lost.events,
            _ => 0,
        };
        self.lines.iter().map(told).sum()
    }

    fn comparisons(&self) -> Vec<Comparison> {
        let mut all = Vec::new();
        if !self.incident {
            self.compare_totals(&mut all);
        }
        self.compare_counters(&mut all);
        let produced = self.end.produced;
        all.push(Comparison {
            what: "kernel records, received and lost".to_owned(),
            made: produced..=produced,
            seen: self.end.events + self.end.lost,
            told_as_lost: Told::Nothing,
            by: "synprobe",
        });
        all
    }

    /// What synprobe saw.
    fn compare_totals(&self, comparisons: &mut Vec<Comparison>) {
        for role in [Role::Client, Role::Server] {
            for outcome in Outcome::ALL {
                let made = self.made.count(role, outcome);
                let seen = self.handshakes(role, outcome);
                if made != (0..=0) || seen > 0 {
                    let what = format!("{} handshakes {}", role.name(), outcome.name());
                    comparisons.push(Comparison {
                        what,
                        made,
                        seen,
                        told_as_lost: Told::Nothing,
                        by: "synprobe",
                    });
                }
            }
        }
        for expected in &self.made.retransmits {
            if let Some(kind) = RetransmitKind::ALL
                .into_iter()
                .find(|k| k.name() == expected.kind)
            {
                let seen = self.retransmits(expected.side, kind);
                let what = format!("{} {} retransmissions", side(expected.side), expected.kind);
                comparisons.push(Comparison {
                    what,
                    made: expected.count.clone(),
                    seen,
                    told_as_lost: match kind {
                        RetransmitKind::Syn | RetransmitKind::Synack => {
                            Told::These(self.told_as_lost(expected.side, Missed::Handshakes))
                        }
                        _ => Told::Among(self.told_as_lost(expected.side, Missed::Data)),
                    },
                    by: "synprobe",
                });
            }
        }
        for which in [Side::Client, Side::Server] {
            let again = |kind| self.retransmits(which, kind);
            let handshakes = again(RetransmitKind::Syn) + again(RetransmitKind::Synack);
            let all: u64 = RetransmitKind::ALL.into_iter().map(again).sum();
            let missed = self.told_as_lost(which, Missed::Handshakes);
            let missed_all = missed + self.told_as_lost(which, Missed::Data);
            for (what, name, seen, missed) in [
                ("SYNs and SYN-ACKs", "TCPSynRetrans", handshakes, missed),
                ("segments", "RetransSegs", all, missed_all),
            ] {
                // Those that could not be sent are in both counters; only SYNs are refused so in the lab.
                let counters = self.side(which);
                let counted = counters
                    .get(name)
                    .saturating_sub(counters.get("TCPRetransFail"));
                if seen + counted > 0 {
                    comparisons.push(Comparison {
                        what: format!("{} {what} again, by {name}", side(which)),
                        made: counted..=counted,
                        seen,
                        told_as_lost: Told::These(missed),
                        by: "synprobe",
                    });
                }
            }
        }
    }

    /// What the kernel counted.
    fn compare_counters(&self, all: &mut Vec<Comparison>) {
        for expected in &self.made.counters {
            let of_side = self.side(expected.side);
            if of_side.has(expected.name) {
                let what = format!("{} {}", side(expected.side), expected.name);
                let seen = of_side.get(expected.name);
                all.push(Comparison {
                    what,
                    made: expected.moved.clone(),
                    seen,
                    told_as_lost: Told::Nothing,
                    by: "the kernel",
                });
            }
        }
    }

    fn side(&self, side: Side) -> &Counters {
        match side {
            Side::Client => &self.counters.client,
            Side::Server => &self.counters.server,
        }
    }

    /// What was made, what was seen, how the two compare; and whether they agree.
    pub fn report(&self) -> (String, bool) {
        let mut text = String::from("\n");
        for fault in &self.made.faults {
            let count = &fault.count;
            let _ = writeln!(
                text,
                "lost on purpose: {} of {} {}",
                count.dropped, count.seen, fault.what
            );
        }
        if self.incident {
            text.push_str(
                "note: the run began in the middle: handshakes and retransmissions are not compared\n",
            );
        }
        for note in &self.made.notes {
            let _ = writeln!(text, "note: {note}");
        }
        if self.made.interrupted {
            text.push_str("interrupted: what was made is not complete, nothing is compared\n");
            return (text, true);
        }
        let comparisons = self.comparisons();
        let width = comparisons.iter().map(|c| c.what.len()).max().unwrap_or(0);
        let mut differences = 0;
        for c in &comparisons {
            let made = match (c.made.start(), c.made.end()) {
                (a, b) if a == b => a.to_string(),
                (a, b) => format!("{a} to {b}"),
            };
            differences += usize::from(!c.agrees());
            let _ = writeln!(
                text,
                "{:<width$}  made {made:>8}  seen {:>6} by {:<10}  {}",
                c.what,
                c.seen,
                c.by,
                c.mark()
            );
        }
        let _ = match differences {
            0 => writeln!(text, "as made: {} comparisons agree", comparisons.len()),
            n => writeln!(
                text,
                "NOT as made: {n} of {} comparisons differ",
                comparisons.len()
            ),
        };
        (text, differences == 0)
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}
