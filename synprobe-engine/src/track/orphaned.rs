//! Half-opens that no dump can show: their namespaces are gone or cannot be entered. A half-open that lives
//! retransmits its SYN-ACK, which raises an event. Without one for longer than the kernel's schedule allows,
//! it has ended.

use std::collections::{HashMap, HashSet};

use super::{
    Tracker, handshake::OpenHandshake, handshake_end::HandshakeEnd, schedule::SynAckSchedule,
};
use crate::model::{DwellSource, Outcome, TcpState, Tuple};

/// A half-open without an event for less than this is kept, nanoseconds.
const SILENT_NS: u64 = 4_000_000_000;

/// `rskq_defer_accept` by namespace, the highest of all records: only the time-out of that number retransmits
/// the SYN-ACK (`syn_ack_recalc()`).
#[derive(Default)]
pub(super) struct Deferrals(HashMap<u32, u8>);

impl Deferrals {
    pub(super) fn note(&mut self, netns: u32, defer_accept: u8) {
        if defer_accept > 0 {
            let most = self.0.entry(netns).or_default();
            *most = defer_accept.max(*most);
        }
    }
}

impl Tracker {
    /// Ends the half-opens of namespaces that were not polled, now or a round ago, once their schedules are
    /// over.
    pub(super) fn end_orphaned(&mut self, polled: &HashSet<u32>, now_ns: u64) {
        let in_use: HashSet<u32> = self.namespaces().collect();
        self.deferrals.0.retain(|netns, _| in_use.contains(netns));
        if in_use.iter().all(|netns| polled.contains(netns)) {
            return;
        }
        let unseen = |(tuple, alive_ns): (Tuple, u64)| {
            let late = alive_ns + SILENT_NS < now_ns;
            (late && !polled.contains(&tuple.netns)).then_some(tuple)
        };
        let all: Vec<_> = self.half_opens.alive().filter_map(unseen).collect();
        for tuple in all {
            let deferred = self.deferrals.0.get(&tuple.netns).copied().unwrap_or(0);
            let over =
                |open: OpenHandshake| open.alive_ns + silence_bound_ns(&open, deferred) < now_ns;
            if !self.half_opens.get(&tuple).is_some_and(over) {
                continue;
            }
            if let Some(open) = self.half_opens.remove(&tuple) {
                let fact = "its network namespace cannot be read, and no SYN-ACK was retransmitted for longer \
                            than the schedule allows";
                let mut end = HandshakeEnd::new(Outcome::Dropped, now_ns).fact(fact);
                end.source = Some(DwellSource::SockDiag);
                end.error_us = now_ns.saturating_sub(open.alive_ns) / 1000;
                self.end(open, TcpState::Close, &end);
            }
        }
    }
}

/// The longest time that may pass without an event, nanoseconds: the current time-out, and those that may
/// pass without a SYN-ACK. It is doubled because the first time-out may differ from 1 s
/// (`tcp_timeout_init()`).
fn silence_bound_ns(open: &OpenHandshake, deferred: u8) -> u64 {
    let silent = match open.facts.defer_accept {
        Some(true) => u32::from(deferred.saturating_sub(1)),
        _ => 0,
    };
    // A SYN-ACK that the peer's repeated SYN causes does not lengthen the time-out (`tcp_rtx_synack()`).
    let by_timer = open.retransmits.saturating_sub(open.by_peer);
    let passed = by_timer.max(open.facts.time_outs);
    let gaps_us: u64 = (passed..=passed.saturating_add(silent))
        .map(|n| SynAckSchedule::PLAIN.gap_us(n))
        .sum();
    SILENT_NS + gaps_us * 2250
}
