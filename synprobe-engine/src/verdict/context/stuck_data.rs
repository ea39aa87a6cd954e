//! Connections whose data is not acknowledged after the handshake.

use crate::{
    model::{Connection, Retransmit, RetransmitKind},
    util::bounded::Bounded,
};

/// Retransmissions of one segment from which on it counts as stuck. The default RTO_MIN of 200 ms makes them
/// last for more than a second.
const ENOUGH: u32 = 3;

/// A connection that retransmits one data segment again and again.
#[derive(Clone, Debug)]
pub struct StuckConnection {
    /// Whose.
    pub connection: Connection,
    /// How often the segment was retransmitted.
    pub attempts: u32,
    /// From its first retransmission to the last, microseconds.
    pub lasted_us: u64,
    first_ns: u64,
    last_ns: u64,
    /// Between the last two, nanoseconds.
    gap_ns: u64,
}

/// The ACK of the handshake is at most this much older than the first retransmission of what follows, nanoseconds.
const SINCE_ACK_NS: u64 = 10_000_000_000;

impl StuckConnection {
    /// What was dropped earlier has nothing to do with it, CLOCK_MONOTONIC nanoseconds.
    pub fn since_ns(&self) -> u64 {
        self.first_ns.saturating_sub(SINCE_ACK_NS)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct StuckData(Bounded<u64, StuckConnection>);

impl StuckData {
    /// Takes in a retransmission at CLOCK_MONOTONIC `at_ns`. The first of another segment shows that the last
    /// one was acknowledged.
    pub(super) fn note(&mut self, r: &Retransmit, at_ns: u64) {
        if matches!(r.kind, RetransmitKind::Syn | RetransmitKind::Synack) || r.failed {
            return;
        }
        let attempts = r.attempt.unwrap_or(1);
        let id = r.connection.id;
        if attempts > 1
            && let Some(stuck) = self.0.get_mut(&id)
        {
            stuck.attempts = attempts;
            stuck.gap_ns = at_ns.saturating_sub(stuck.last_ns);
            stuck.last_ns = at_ns;
            stuck.lasted_us = at_ns.saturating_sub(stuck.first_ns) / 1000;
            return;
        }
        self.0.remove(&id);
        self.0.insert(
            id,
            StuckConnection {
                connection: r.connection.clone(),
                attempts,
                lasted_us: 0,
                first_ns: at_ns,
                last_ns: at_ns,
                gap_ns: 0,
            },
        );
    }

    /// Forgets those without a retransmission for a window of `length_ns`. The time-out doubles each time: where
    /// the next one is due later than that, it is waited for.
    pub(super) fn forget_before(&mut self, at_ns: u64, length_ns: u64) {
        self.0.retain(|_, stuck| {
            let quiet_ns = at_ns.saturating_sub(stuck.last_ns);
            quiet_ns <= length_ns.max(stuck.gap_ns.saturating_mul(2))
        });
    }

    /// Those that are stuck, oldest first.
    pub(super) fn connections(&self) -> impl Iterator<Item = &StuckConnection> {
        self.0
            .iter()
            .map(|(_, stuck)| stuck)
            .filter(|stuck| stuck.attempts >= ENOUGH)
    }
}
