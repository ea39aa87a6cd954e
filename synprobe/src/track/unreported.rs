//! What no event told of, and something else shows: lost, and said once.

use super::{Observation, Tracker};
use crate::{
    decode::Event,
    model::{Lost, Missed, SocketDump, TcpState},
};

/// Records that are known to be lost: what else shows that they are missing is no news.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AlreadyCounted {
    pub states: u64,
    pub retransmissions: u64,
    pub requests: u64,
}

/// Handshakes that the full table evicted since the last `lost` line about them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evictions {
    pub count: u64,
    /// When the first of them was, CLOCK_MONOTONIC nanoseconds.
    pub since_ns: Option<u64>,
}

/// Evictions are reported together, at most once in this time.
pub(super) const EVICTION_REPORT_NS: u64 = 1_000_000_000;

/// What no event told of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unreported {
    /// SYNs and SYN-ACKs sent again: whose count shows it.
    Retransmissions(&'static str),
    /// Other segments sent again.
    Segments,
    /// That an active open is over.
    ClientEnds,
    /// Ends of half-opens, in the exact mode.
    HalfOpenEnds,
}

impl Tracker {
    /// Holds what was seen against the namespace's own counter. With a filter nobody can tell which of
    /// what it counted was asked for.
    pub(super) fn audit_counters(&mut self, dump: &SocketDump) {
        let Some(mut count) = dump
            .retransmitted
            .filter(|_| self.config.selection.is_whole())
        else {
            return;
        };
        if !self.config.sees_failures {
            // Attempts that failed are counted and raise no event; which of them were SYNs, nobody tells.
            for counted in [&mut count.again.handshake, &mut count.again.segments] {
                *counted = counted.saturating_sub(dump.retrans_fail);
            }
        }
        let (netns, at_ns) = (dump.netns, count.after_ns);
        let missing = self.mib_audit.reading(netns, count);
        let by = Unreported::Retransmissions("TCPSynRetrans");
        self.count_unreported(netns, at_ns, missing.handshake, by);
        self.count_unreported(netns, at_ns, missing.data, Unreported::Segments);
    }

    /// What an event tells that was sent again, for the mib_audit: where nobody reads the counters it
    /// would only be kept.
    pub(super) fn audit_event(&mut self, event: &Event) {
        let (handshake, segments) = match event {
            Event::SynAck(..) => (true, 1),
            Event::Retransmit(r, TcpState::SynSent | TcpState::SynRecv) => (true, r.segs),
            Event::Retransmit(r, _) => (false, r.segs),
            _ => return,
        };
        if self.config.selection.is_whole() {
            let netns = event.flow().netns;
            self.mib_audit
                .event(netns, event.at_ns(), handshake, segments);
        }
    }

    /// A socket's own count is ahead of the events by so many.
    pub(super) fn missed(&mut self, netns: u32, at_ns: u64, events: u32) {
        let news = self.mib_audit.missed(netns, events.into());
        self.count_unreported(
            netns,
            at_ns,
            news,
            Unreported::Retransmissions("the socket"),
        );
    }

    /// Reports the evictions since the last report as lost, if there are any.
    pub(super) fn report_evictions(&mut self, at_ns: u64) {
        let events = std::mem::take(&mut self.evictions).count;
        if events > 0 {
            self.totals.unreported += events;
            let lost = Lost {
                events,
                reason: "handshakes evicted from the table (--max-handshakes)".to_owned(),
                of: Missed::Evicted,
            };
            self.observe(Observation::Lost { at_ns, lost });
        }
    }

    /// Something else than an event told of these: lost, unless they are known to be.
    pub(super) fn count_unreported(
        &mut self,
        netns: u32,
        at_ns: u64,
        events: u64,
        what: Unreported,
    ) {
        let (excuse, named, by, of) = match what {
            Unreported::Retransmissions(by) => (
                &mut self.already_counted.retransmissions,
                "retransmissions",
                by,
                Missed::Handshakes(netns),
            ),
            Unreported::Segments => (
                &mut self.already_counted.retransmissions,
                "segments sent again",
                "RetransSegs",
                Missed::Data(netns),
            ),
            Unreported::ClientEnds => (
                &mut self.already_counted.states,
                "ends of active opens",
                "sock_diag",
                Missed::Others,
            ),
            Unreported::HalfOpenEnds => (
                &mut self.already_counted.requests,
                "ends of half-opens",
                "sock_diag",
                Missed::Others,
            ),
        };
        let already_counted = match what {
            // A record that is known to be lost may have been of any number of segments.
            Unreported::Segments if *excuse > 0 => events,
            _ => events.min(*excuse),
        };
        *excuse = excuse.saturating_sub(already_counted);
        let events = events - already_counted;
        if events > 0 {
            self.totals.unreported += events;
            let reason = format!("{named} in namespace {netns}: {by} shows them and no event told");
            let lost = Lost { events, reason, of };
            self.observe(Observation::Lost { at_ns, lost });
        }
    }
}
