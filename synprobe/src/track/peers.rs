//! Totals by peer address and role, bounded.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use sketches_ddsketch::{Config, DDSketch};

use crate::model::{Handshake, Outcome, Peer, RetransmitKind, Role};

/// Relative error of the quantiles: 1 %.
const QUANTILE_ERROR: f64 = 0.01;
/// Buckets of one sketch: from 1 µs to an hour at 1 %.
const QUANTILE_BUCKETS: u32 = 1200;

#[derive(Default)]
struct Totals {
    attempts: u64,
    established: u64,
    failed: u64,
    open: u64,
    dwell: Option<Box<DDSketch>>,
    dwell_max_us: Option<u64>,
    retransmits: [u64; RetransmitKind::ALL.len()],
    verdicts: BTreeMap<String, u64>,
}

/// The peers of a run.
pub struct Peers {
    totals: HashMap<(IpAddr, Role), Totals>,
    limit: usize,
    unlisted: u64,
}

impl Peers {
    /// At most `limit` peers are told apart.
    pub fn new(limit: usize) -> Self {
        Self {
            totals: HashMap::new(),
            limit,
            unlisted: 0,
        }
    }

    /// Handshakes and retransmissions of peers for which there was no room.
    pub fn unlisted(&self) -> u64 {
        self.unlisted
    }

    fn entry(&mut self, peer: IpAddr, role: Role) -> Option<&mut Totals> {
        if self.totals.len() >= self.limit && !self.totals.contains_key(&(peer, role)) {
            self.unlisted += 1;
            return None;
        }
        Some(self.totals.entry((peer, role)).or_default())
    }

    /// A handshake ended (or the run did).
    pub fn ended(&mut self, handshake: &Handshake) {
        let connection = &handshake.connection;
        let Some(totals) = self.entry(connection.peer_addr, connection.role) else {
            return;
        };
        totals.attempts += 1;
        match handshake.outcome {
            Outcome::Established => totals.established += 1,
            Outcome::Open => totals.open += 1,
            _ => totals.failed += 1,
        }
        if let Some(verdict) = &handshake.verdict {
            *totals.verdicts.entry(verdict.clone()).or_default() += 1;
        }
        let Some(dwell_us) = handshake
            .dwell_us
            .filter(|_| handshake.outcome != Outcome::Open)
        else {
            return;
        };
        totals.dwell_max_us = totals.dwell_max_us.max(Some(dwell_us));
        let sketch = totals.dwell.get_or_insert_with(|| {
            Box::new(DDSketch::new(Config::new(
                QUANTILE_ERROR,
                QUANTILE_BUCKETS,
                1.0,
            )))
        });
        sketch.add(dwell_us as f64);
    }

    /// A segment was sent again.
    pub fn retransmitted(&mut self, peer: IpAddr, role: Role, kind: RetransmitKind, count: u64) {
        if let Some(totals) = self.entry(peer, role) {
            totals.retransmits[kind as usize] += count;
        }
    }

    /// The table, most trouble first: failures, then what is still open, then retransmissions.
    pub fn table(&self) -> Vec<Peer> {
        let mut table: Vec<Peer> = self
            .totals
            .iter()
            .map(|(key, totals)| row(key, totals))
            .collect();
        let resent = |p: &Peer| p.syn_retransmits + p.synack_retransmits + p.rto_retransmits;
        table.sort_by(|a, b| {
            (b.failed, b.open, resent(b), b.dwell_max_us, b.attempts)
                .cmp(&(a.failed, a.open, resent(a), a.dwell_max_us, a.attempts))
                .then_with(|| (a.peer_addr, a.role).cmp(&(b.peer_addr, b.role)))
        });
        table
    }
}

fn row((peer_addr, role): &(IpAddr, Role), totals: &Totals) -> Peer {
    let quantile = |q: f64| {
        let value = totals.dwell.as_ref()?.quantile(q).ok()??;
        // A sketch's quantile may overshoot the largest value by its relative error.
        Some((value.round().max(0.0) as u64).min(totals.dwell_max_us?))
    };
    let resent = |kind: RetransmitKind| totals.retransmits[kind as usize];
    Peer {
        peer_addr: *peer_addr,
        role: *role,
        attempts: totals.attempts,
        established: totals.established,
        failed: totals.failed,
        open: totals.open,
        dwell_p50_us: quantile(0.5),
        dwell_p99_us: quantile(0.99),
        dwell_max_us: totals.dwell_max_us,
        syn_retransmits: resent(RetransmitKind::Syn),
        synack_retransmits: resent(RetransmitKind::Synack),
        rto_retransmits: resent(RetransmitKind::Rto),
        tlp_retransmits: resent(RetransmitKind::Tlp),
        fast_retransmits: resent(RetransmitKind::Fast),
        recovery_retransmits: resent(RetransmitKind::Recovery),
        verdicts: totals.verdicts.clone(),
    }
}
