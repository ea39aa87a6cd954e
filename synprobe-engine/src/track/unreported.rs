//! What a counter or sock_diag shows and no event reported: counted as lost, once.

use super::{Observation, Tracker};
use crate::{
    decode::Event,
    model::{Lost, Missed, SocketDump, TcpState},
};

/// Records that are already counted as lost. A counter that shows the same loss adds nothing.
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
    /// Time of the first of them, CLOCK_MONOTONIC nanoseconds.
    pub since_ns: Option<u64>,
}

/// Evictions are reported together, at most once in this time.
pub(super) const EVICTION_REPORT_NS: u64 = 1_000_000_000;

/// What no event reported.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unreported {
    /// Retransmissions of SYNs and SYN-ACKs, and which counter shows them.
    Retransmissions(&'static str),
    /// Retransmissions of other segments.
    Segments,
    /// Ends of active opens.
    ClientEnds,
    /// Ends of half-opens, in the exact mode.
    HalfOpenEnds,
}

impl Tracker {
    /// Compares the events with the namespace's own counters. With a filter the counters are useless: they
    /// include what was not selected.
    pub(super) fn audit_counters(&mut self, dump: &SocketDump) {
        let Some(mut count) = dump
            .retransmitted
            .filter(|_| self.config.selection.is_whole())
        else {
            return;
        };
        if !self.config.sees_failures {
            // Failed attempts are counted and raise no event. Which of them were SYNs is not known.
            for counted in [&mut count.counts.handshake, &mut count.counts.segments] {
                *counted = counted.saturating_sub(dump.retrans_fail);
            }
        }
        let (netns, at_ns) = (dump.netns, count.after_ns);
        let missing = self.mib_audit.reading(netns, count);
        let what = Unreported::Retransmissions("counted in TCPSynRetrans");
        self.count_unreported(netns, at_ns, missing.handshake, what);
        self.count_unreported(netns, at_ns, missing.data, Unreported::Segments);
    }

    /// Counts the retransmission of an event for the audit. With a filter no audit reads it.
    pub(super) fn audit_event(&mut self, event: &Event) {
        let (handshake, segments) = match event {
            Event::SynAck(..) => (true, 1),
            Event::Retransmit(r, TcpState::SynSent | TcpState::SynRecv) => (r.no_syn == 0, r.segs),
            Event::Retransmit(r, _) => (false, r.segs),
            _ => return,
        };
        if self.config.selection.is_whole() {
            let netns = event.flow().netns;
            self.mib_audit
                .event(netns, event.at_ns(), handshake, segments);
        }
    }

    /// A socket's own count exceeds the events by this many.
    pub(super) fn missed(&mut self, netns: u32, at_ns: u64, events: u32) {
        let news = self.mib_audit.missed(netns, events.into());
        self.count_unreported(
            netns,
            at_ns,
            news,
            Unreported::Retransmissions("counted by the socket"),
        );
    }

    /// Reports the evictions since the last report as lost, if there are any.
    pub(super) fn report_evictions(&mut self, at_ns: u64) {
        let events = std::mem::take(&mut self.evictions).count;
        if events > 0 {
            self.totals.unreported += events;
            let lost = Lost {
                events,
                reason: "handshakes evicted from the table (--max-memory, --max-handshakes)"
                    .to_owned(),
                of: Missed::Evicted,
            };
            self.observe(Observation::Lost { at_ns, lost });
        }
    }

    /// Counts events that were not received as lost, less those that are already counted.
    pub(super) fn count_unreported(
        &mut self,
        netns: u32,
        at_ns: u64,
        events: u64,
        what: Unreported,
    ) {
        let (known, named, shown, of) = match what {
            Unreported::Retransmissions(shown) => (
                &mut self.already_counted.retransmissions,
                "retransmissions",
                shown,
                Missed::Handshakes(netns),
            ),
            Unreported::Segments => (
                &mut self.already_counted.retransmissions,
                "segments retransmitted",
                "counted in RetransSegs",
                Missed::Data(netns),
            ),
            Unreported::ClientEnds => (
                &mut self.already_counted.states,
                "ends of active opens",
                "shown by sock_diag",
                Missed::Handshakes(netns),
            ),
            Unreported::HalfOpenEnds => (
                &mut self.already_counted.requests,
                "ends of half-opens",
                "shown by sock_diag",
                Missed::Handshakes(netns),
            ),
        };
        let already_counted = match what {
            // A record that is known to be lost may have been of any number of segments.
            Unreported::Segments if *known > 0 => events,
            _ => events.min(*known),
        };
        *known = known.saturating_sub(already_counted);
        let events = events - already_counted;
        if events > 0 {
            self.totals.unreported += events;
            let reason =
                format!("{named} in namespace {netns}: {shown}, but no event was received");
            let lost = Lost { events, reason, of };
            self.observe(Observation::Lost { at_ns, lost });
        }
    }
}
