//! The run of one scenario: ground truth compared with what synprobe and the kernel counted.

use std::fmt::Write as _;

use synprobe_common::model::{Body, End, Line, Missed, Outcome, RetransmitKind, Role};

use crate::{
    GroundTruth, LabCounters, Side, TcpCounters,
    comparison::{Comparison, ReportedLoss},
};

/// The results of a lab run.
pub struct LabRun {
    /// The ground truth.
    pub truth: GroundTruth,
    /// How much the kernel's counters increased during the run.
    pub counters: LabCounters,
    /// Every line that synprobe printed.
    pub lines: Vec<Line>,
    /// The totals.
    pub end: End,
    /// Inodes of the client's and the server's namespace.
    pub namespaces: [u32; 2],
    /// The run began during an incident ([`Scenario::is_incident`](crate::Scenario::is_incident)), so
    /// totals are not comparable.
    pub incident: bool,
}

impl LabRun {
    /// Number of handshakes of a role with an outcome.
    pub fn handshakes(&self, role: Role, outcome: Outcome) -> u64 {
        let matches = |line: &&Line| match &line.body {
            Body::Handshake(h) => h.connection.role == role && h.outcome == outcome,
            _ => false,
        };
        self.lines.iter().filter(matches).count() as u64
    }

    /// Segments of one kind that one side retransmitted; failed transmissions are not counted.
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
    fn reported_lost(&self, side: Side, of: impl Fn(u32) -> Missed) -> u64 {
        let of = of(self.namespaces[usize::from(side == Side::Server)]);
        let lost = |line: &Line| match &line.body {
            Body::Lost(lost) if lost.of == of => lost.events,
            _ => 0,
        };
        self.lines.iter().map(lost).sum()
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
            expected: produced..=produced,
            seen: self.end.events + self.end.lost,
            reported_lost: ReportedLoss::Nothing,
            by: "synprobe",
        });
        all
    }

    /// Compares what synprobe reported.
    fn compare_totals(&self, comparisons: &mut Vec<Comparison>) {
        for role in [Role::Client, Role::Server] {
            for outcome in Outcome::ALL {
                let expected = self.truth.count(role, outcome);
                let seen = self.handshakes(role, outcome);
                if expected != (0..=0) || seen > 0 {
                    let what = format!("{} handshakes {}", role.name(), outcome.name());
                    comparisons.push(Comparison {
                        what,
                        expected,
                        seen,
                        reported_lost: ReportedLoss::Nothing,
                        by: "synprobe",
                    });
                }
            }
        }
        for expected in &self.truth.retransmits {
            if let Some(kind) = RetransmitKind::ALL
                .into_iter()
                .find(|k| k.name() == expected.kind)
            {
                let seen = self.retransmits(expected.side, kind);
                let what = format!("{} {} retransmissions", side(expected.side), expected.kind);
                comparisons.push(Comparison {
                    what,
                    expected: expected.count.clone(),
                    seen,
                    reported_lost: match kind {
                        RetransmitKind::Syn | RetransmitKind::Synack => ReportedLoss::Exactly(
                            self.reported_lost(expected.side, Missed::Handshakes),
                        ),
                        _ => ReportedLoss::UpTo(self.reported_lost(expected.side, Missed::Data)),
                    },
                    by: "synprobe",
                });
            }
        }
        for which in [Side::Client, Side::Server] {
            let count = |kind| self.retransmits(which, kind);
            let handshakes = count(RetransmitKind::Syn) + count(RetransmitKind::Synack);
            let all: u64 = RetransmitKind::ALL.into_iter().map(count).sum();
            let missed = self.reported_lost(which, Missed::Handshakes);
            let missed_all = missed + self.reported_lost(which, Missed::Data);
            for (what, name, seen, missed) in [
                ("SYNs and SYN-ACKs", "TCPSynRetrans", handshakes, missed),
                ("segments", "RetransSegs", all, missed_all),
            ] {
                // Both counters include failed transmissions. In the lab only SYNs fail.
                let counters = self.side(which);
                let counted = counters
                    .get(name)
                    .saturating_sub(counters.get("TCPRetransFail"));
                if seen + counted > 0 {
                    comparisons.push(Comparison {
                        what: format!("{} {what} retransmitted, by {name}", side(which)),
                        expected: counted..=counted,
                        seen,
                        reported_lost: ReportedLoss::Exactly(missed),
                        by: "synprobe",
                    });
                }
            }
        }
    }

    /// Compares what the kernel counted.
    fn compare_counters(&self, all: &mut Vec<Comparison>) {
        for expected in &self.truth.counters {
            let of_side = self.side(expected.side);
            if of_side.has(expected.name) {
                let what = format!("{} {}", side(expected.side), expected.name);
                let seen = of_side.get(expected.name);
                all.push(Comparison {
                    what,
                    expected: expected.moved.clone(),
                    seen,
                    reported_lost: ReportedLoss::Nothing,
                    by: "the kernel",
                });
            }
        }
    }

    fn side(&self, side: Side) -> &TcpCounters {
        match side {
            Side::Client => &self.counters.client,
            Side::Server => &self.counters.server,
        }
    }

    /// The report of the run, and whether every comparison agrees.
    pub fn report(&self) -> (String, bool) {
        let mut text = String::from("\n");
        for fault in &self.truth.faults {
            let count = &fault.count;
            let _ = writeln!(
                text,
                "injected loss: {} of {} {}",
                count.dropped, count.seen, fault.what
            );
        }
        if self.incident {
            text.push_str(
                "note: the run began during the incident: handshakes and retransmissions are not compared\n",
            );
        }
        for note in &self.truth.notes {
            let _ = writeln!(text, "note: {note}");
        }
        if self.truth.interrupted {
            text.push_str("interrupted: the scenario is not complete, nothing is compared\n");
            return (text, true);
        }
        let comparisons = self.comparisons();
        let width = comparisons.iter().map(|c| c.what.len()).max().unwrap_or(0);
        let mut differences = 0;
        for c in &comparisons {
            let expected = match (c.expected.start(), c.expected.end()) {
                (a, b) if a == b => a.to_string(),
                (a, b) => format!("{a} to {b}"),
            };
            differences += usize::from(!c.agrees());
            let _ = writeln!(
                text,
                "{:<width$}  expected {expected:>8}  counted {:>6} by {:<10}  {}",
                c.what,
                c.seen,
                c.by,
                c.mark()
            );
        }
        let _ = match differences {
            0 => writeln!(text, "as expected: {} comparisons agree", comparisons.len()),
            n => writeln!(
                text,
                "NOT as expected: {n} of {} comparisons differ",
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
