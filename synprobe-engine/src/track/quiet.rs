//! The quiet mode. A healthy handshake sends no record and is counted in the kernel, so the table must hold
//! nothing that may end without a record.

use std::collections::BTreeMap;

use synprobe_ebpf::{
    event::Flow,
    histogram::{BUCKETS, bucket, from_us},
};

use super::{
    Tracker,
    handshake::{HandshakeStart, OpenHandshake},
};
use crate::model::{Bucket, ByRole, Completed, HalfOpenRow, Handshake, Outcome, Role, Tuple};

/// What was reported of a handshake before its first record.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyHint {
    peer: ([u8; 16], u16),
    /// A RST for it was received.
    pub reset_seen: bool,
    /// An error was reported to the socket, and when.
    pub error: Option<(u32, u64)>,
}

/// Completed handshakes of one role and port.
#[derive(Clone, Debug)]
struct CompletedTally {
    /// Those with a record.
    by_record: [u64; BUCKETS],
    /// Those that the kernel side only counted, as last read.
    by_kernel: [u64; BUCKETS],
    untimed: u64,
}

impl CompletedTally {
    fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|at| self.by_record[at] + self.by_kernel[at])
    }
}

impl Default for CompletedTally {
    fn default() -> Self {
        Self {
            by_record: [0; BUCKETS],
            by_kernel: [0; BUCKETS],
            untimed: 0,
        }
    }
}

/// The tallies by role and port.
#[derive(Default)]
pub(super) struct Tallies {
    by_port: BTreeMap<(Role, Option<u16>), CompletedTally>,
    /// All that the kernel side only counted, as last read.
    by_kernel: ByRole<u64>,
}

impl Tallies {
    /// What the kernel side has counted since the run began; `None`: ports for which the kernel side had no
    /// room.
    pub fn set_kernel_counts(&mut self, role: Role, port: Option<u16>, counts: &[u64; BUCKETS]) {
        let tally = self.by_port.entry((role, port)).or_default();
        let before: u64 = tally.by_kernel.iter().sum();
        tally.by_kernel = *counts;
        let all = self.by_kernel.get_mut(role);
        *all = (*all + counts.iter().sum::<u64>()).saturating_sub(before);
    }

    /// Adds one with a record.
    pub fn add_record(&mut self, h: &Handshake) {
        let port = match h.connection.role {
            Role::Client => h.connection.peer_port,
            Role::Server => h.connection.local_port,
        };
        let tally = self.by_port.entry((h.connection.role, port)).or_default();
        match h.dwell_us {
            Some(us) => tally.by_record[bucket(u32::try_from(us).unwrap_or(u32::MAX))] += 1,
            None => tally.untimed += 1,
        }
    }

    pub fn by_kernel(&self) -> u64 {
        self.by_kernel.client + self.by_kernel.server
    }

    /// As lines.
    pub fn lines(&self) -> impl Iterator<Item = Completed> {
        self.by_port.iter().map(|((role, port), tally)| {
            let counts = tally.counts();
            let timed: u64 = counts.iter().sum();
            Completed {
                role: *role,
                port: *port,
                handshakes: timed + tally.untimed,
                untimed: tally.untimed,
                dwell_p50_us: quantile(&counts, 0.5),
                dwell_p99_us: quantile(&counts, 0.99),
                buckets: buckets(&counts),
            }
        })
    }
}

fn buckets(counts: &[u64; BUCKETS]) -> Vec<Bucket> {
    let filled = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    filled
        .map(|(at, count)| Bucket {
            from_us: from_us(at).into(),
            handshakes: *count,
        })
        .collect()
}

/// The end of the bucket in which it lies: no less than the true value, and less than a quarter more.
fn quantile(counts: &[u64; BUCKETS], share: f64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let rank = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let at = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    at.filter(|_| total > 0)
        .map(|at| u64::from(from_us((at + 1).min(BUCKETS - 1))))
}

impl Tracker {
    /// Keeps what was reported of a handshake that has no record yet.
    pub(super) fn early_hint(
        &mut self,
        sock: u64,
        flow: &Flow,
        update: impl FnOnce(&mut EarlyHint),
    ) {
        let peer = (flow.peer_addr, flow.peer_port);
        let before = self.early_hints.remove(&sock).filter(|r| r.peer == peer);
        let mut early_hint = before.unwrap_or(EarlyHint {
            peer,
            reset_seen: false,
            error: None,
        });
        update(&mut early_hint);
        self.early_hints.insert(sock, early_hint);
    }

    /// Takes what was reported before the first record.
    pub(super) fn recall(&mut self, sock: u64, tuple: &Tuple, open: &mut OpenHandshake) {
        let Some(early_hint) = self.early_hints.remove(&sock) else {
            return;
        };
        if early_hint.peer == (tuple.peer_addr, tuple.peer_port) {
            open.reset_seen = early_hint.reset_seen;
            if let Some((error, at_ns)) = early_hint.error {
                (open.soft_error, open.error_ns) = (error, Some(at_ns));
            }
        }
    }

    /// Whether the end of such a half-open is sure to send a record. Below the bound and without a
    /// retransmission it may not.
    pub(super) fn end_sends_record(
        &self,
        row: &HalfOpenRow,
        start: HandshakeStart,
        now_ns: u64,
    ) -> bool {
        row.retrans > 0
            || self.config.detail.slow_us().is_none_or(|slow_us| {
                let youngest_ns = start.at_ns + start.error_us * 1000;
                now_ns.saturating_sub(youngest_ns) >= u64::from(slow_us) * 1000
            })
    }

    /// Whether one that has vanished may have completed: then the kernel has counted it.
    pub(super) fn may_have_completed(&self, open: &OpenHandshake) -> bool {
        self.config.detail.slow_us().is_some_and(|slow_us| {
            let young = |start: HandshakeStart| {
                let age_ns = open.alive_ns.saturating_sub(start.at_ns);
                age_ns < u64::from(slow_us) * 1000 + start.error_us * 1000
            };
            open.retransmits == 0 && open.start.is_none_or(young)
        })
    }

    /// Active opens that the kernel has counted.
    pub fn counted_clients(&self) -> u64 {
        self.tallies.by_kernel.client
    }

    /// What the kernel side has counted of one role and port since the run began, on all CPUs.
    pub fn set_completed(&mut self, role: Role, port: Option<u16>, counts: &[u64; BUCKETS]) {
        self.tallies.set_kernel_counts(role, port, counts);
    }

    /// Adds a handshake with a line to the histogram, which then holds all that completed.
    pub(super) fn count_completed(&mut self, h: &Handshake) {
        if self.config.detail.slow_us().is_some() && h.outcome == Outcome::Established {
            self.tallies.add_record(h);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_no_less_than_the_truth_and_at_most_a_quarter_more() {
        let mut counts = [0; BUCKETS];
        for us in 1..=1000_u32 {
            counts[bucket(us)] += 1;
        }
        for (share, truth) in [(0.5, 500), (0.99, 990)] {
            let got = quantile(&counts, share).unwrap();
            assert!(
                (truth..=truth + truth / 4 + 1).contains(&got),
                "{share}: {got}"
            );
        }
        assert_eq!(quantile(&[0; BUCKETS], 0.5), None);
    }
}
