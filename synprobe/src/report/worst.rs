//! The worst handshakes: each with its transmissions, and a row for the table.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{ReportBounds, cause::HandshakeCause};
use crate::{
    model::{Handshake, Retransmit, RetransmitKind, Role, Trigger},
    util::bounded::Bounded,
};

/// Ladders of one role and cause.
const LADDERS: usize = 3;

/// A SYN or SYN-ACK that was retransmitted.
#[derive(Clone, Debug)]
pub(super) struct SentAgain {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at_ns: u64,
    pub gap_us: Option<u64>,
    /// That gap by the kernel's schedule; `None`: not predicted, because the peer caused it.
    pub expected_gap_us: Option<u64>,
    pub by_peer: bool,
    /// Why the kernel could not send it.
    pub failed: Option<String>,
    /// When the kernel gives up, by its schedule, from then on.
    pub gives_up_us: Option<u64>,
}

impl SentAgain {
    /// When it was due by the kernel's schedule, CLOCK_MONOTONIC nanoseconds.
    pub fn due_ns(&self) -> Option<u64> {
        let before = self.at_ns.checked_sub(self.gap_us? * 1000)?;
        Some(before + self.expected_gap_us? * 1000)
    }
}

/// One handshake with its transmissions.
#[derive(Clone, Debug)]
pub(super) struct Ladder {
    pub handshake: Box<Handshake>,
    /// Those that were seen, without the first.
    pub sent: Vec<SentAgain>,
    /// When it ended or was last seen, CLOCK_MONOTONIC nanoseconds.
    pub ended_ns: u64,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct TroubledRow {
    /// The same without its lists.
    pub handshake: Box<Handshake>,
    /// The first fact for its verdict, else the first.
    pub fact: Option<String>,
    /// On the axis of all pictures, nanoseconds.
    pub began: i128,
}

/// See the module.
#[derive(Clone)]
pub(super) struct Worst {
    bounds: ReportBounds,
    under_way: Bounded<u64, Vec<SentAgain>>,
    ladders: BTreeMap<(Role, HandshakeCause), Vec<Ladder>>,
    rows: BTreeMap<(Role, HandshakeCause), Vec<TroubledRow>>,
}

/// The worse, the greater.
fn badness(h: &Handshake) -> (u32, u64) {
    let dwell = h.dwell_us.or(h.dwell_at_least_us);
    (h.retransmits, dwell.unwrap_or(0))
}

impl Worst {
    pub fn new(bounds: ReportBounds) -> Self {
        Self {
            bounds,
            under_way: Bounded::new(bounds.remembered),
            ladders: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    pub fn retransmit(&mut self, at_ns: u64, r: &Retransmit) {
        if !matches!(r.kind, RetransmitKind::Syn | RetransmitKind::Synack) {
            return;
        }
        let id = r.connection.id;
        if self.under_way.get(&id).is_none() {
            self.under_way.insert(id, Vec::new());
        }
        let most = self.bounds.sent;
        let Some(sent) = self.under_way.get_mut(&id).filter(|s| s.len() < most) else {
            return;
        };
        sent.push(SentAgain {
            at_ns,
            gap_us: r.gap_us,
            expected_gap_us: r.expected_gap_us,
            by_peer: r.trigger == Some(Trigger::Peer),
            failed: r.failed.then(|| r.error.clone().unwrap_or_default()),
            gives_up_us: r.gives_up_us,
        });
    }

    /// Takes in the end of a handshake. `began`: on the axis of all pictures.
    pub fn handshake(&mut self, h: &Handshake, ended_ns: u64, began: i128) {
        let sent = self.under_way.remove(&h.connection.id);
        let cause = HandshakeCause::of(h);
        if cause == HandshakeCause::Well {
            return;
        }
        let key = (h.connection.role, cause);
        let ladders = self.ladders.entry(key).or_default();
        if ladders.len() < LADDERS || ladders.iter().any(|l| badness(&l.handshake) < badness(h)) {
            ladders.push(Ladder {
                handshake: Box::new(h.clone()),
                sent: sent.unwrap_or_default(),
                ended_ns,
            });
            ladders.sort_by_key(|l| Reverse(badness(&l.handshake)));
            ladders.truncate(LADDERS);
        }
        let rows = self.rows.entry(key).or_default();
        rows.push(row(h, began));
        if rows.len() >= 2 * self.bounds.rows {
            keep_the_worst(rows, self.bounds.rows);
        }
    }

    /// Another run begins: its handshakes are numbered anew.
    pub fn next_run(&mut self) {
        self.under_way = Bounded::new(self.bounds.remembered);
    }

    /// The ladders of one role and cause, worst first.
    pub fn ladders(&self) -> impl Iterator<Item = (Role, HandshakeCause, &[Ladder])> {
        let all = self.ladders.iter();
        all.map(|((role, cause), ladders)| (*role, *cause, &**ladders))
    }

    /// The rows of each role and cause, at most `most` of each, in the order in which they began.
    pub fn rows(&self, most: usize) -> Vec<TroubledRow> {
        let mut all = Vec::new();
        for rows in self.rows.values() {
            let mut rows = rows.clone();
            keep_the_worst(&mut rows, most);
            all.append(&mut rows);
        }
        all.sort_by_key(|row| (row.began, row.handshake.connection.id));
        all
    }

    /// Rows of one role and cause, at most.
    pub fn most_rows(&self) -> usize {
        self.bounds.rows
    }

    /// How many roles and causes have rows.
    pub fn kinds(&self) -> usize {
        self.rows.len()
    }
}

fn keep_the_worst(rows: &mut Vec<TroubledRow>, most: usize) {
    rows.sort_by_key(|row| Reverse(badness(&row.handshake)));
    rows.truncate(most);
}

fn row(h: &Handshake, began: i128) -> TroubledRow {
    let fact = h.evidence.iter().find(|e| e.supports);
    let fact = fact.or(h.evidence.first()).map(|e| e.fact.clone());
    let bare = Handshake {
        evidence: Vec::new(),
        remedy: None,
        gaps_us: Vec::new(),
        ..h.clone()
    };
    TroubledRow {
        handshake: Box::new(bare),
        fact,
        began,
    }
}
