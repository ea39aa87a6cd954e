//! Compares the events received with the kernel's counters, during the run.
//!
//! `TCPSynRetrans` of a namespace rises with every SYN and SYN-ACK that is retransmitted, and `RetransSegs`
//! with every segment, those included, just before the tracepoint is raised (`__tcp_retransmit_skb()`,
//! `tcp_rtx_synack()`). What the kernel counted without an event was missed, for whatever reason, and is
//! reported as lost. A socket counts too (`tcp_sock.total_retrans`, `request_sock.num_retrans`), and its own
//! next record shows what was missed of it, also where a filter makes the namespace's sums useless.

use crate::model::{RetransCounts, RetransReading};
use std::collections::{HashMap, VecDeque};

/// An event may reach the ring this long after its counter was raised, nanoseconds.
const ON_ITS_WAY_NS: u64 = 10_000_000;
/// Events remembered between two readings of a namespace; with more, the next one is a new base.
const UNREAD: usize = 1 << 18;

/// Room for so many is kept.
const FEW: usize = 256;

/// What a reading shows to be missing, beyond what was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// SYNs and SYN-ACKs.
    pub handshake: u64,
    /// Other segments.
    pub data: u64,
}

/// An event since the last reading.
struct Unread {
    at_ns: u64,
    handshake: bool,
    segments: u32,
}

#[derive(Default)]
struct RetransTally {
    /// Counted from events.
    seen: RetransCounts,
    /// The last of them, since the last reading.
    unread: VecDeque<Unread>,
    /// First reading, and the events that it certainly includes.
    first: Option<(RetransCounts, RetransCounts)>,
    /// Missing ones that were reported.
    reported: Missing,
    /// Missing ones that a socket's own count has shown: some or all of those of handshakes above.
    by_socket: u64,
}

impl RetransTally {
    fn event(&mut self, event: Unread) {
        if self.unread.len() == UNREAD {
            *self = Self::default();
        }
        self.seen.handshake += u64::from(event.handshake);
        self.seen.segments += u64::from(event.segments);
        self.unread.push_back(event);
    }

    fn seen_by(&self, at_ns: u64) -> RetransCounts {
        let mut later = RetransCounts::default();
        for event in self.unread.iter().filter(|event| event.at_ns > at_ns) {
            later.handshake += u64::from(event.handshake);
            later.segments += u64::from(event.segments);
        }
        self.seen.less(later)
    }

    fn reading(&mut self, count: RetransReading) -> Missing {
        let news = match self.first {
            None => {
                self.first = Some((count.counts, self.seen_by(count.before_ns)));
                (self.reported, self.by_socket) = Default::default();
                Missing::default()
            }
            Some((first, seen)) => {
                let seen_since = self.seen_by(count.after_ns + ON_ITS_WAY_NS).less(seen);
                let missing = count.counts.less(first).less(seen_since);
                let handshake = missing.handshake.saturating_sub(self.reported.handshake);
                self.reported.handshake += handshake;
                let data = missing.segments.saturating_sub(self.reported.handshake);
                let data = data.saturating_sub(self.reported.data);
                self.reported.data += data;
                Missing { handshake, data }
            }
        };
        self.unread.retain(|event| event.at_ns > count.before_ns);
        // After a burst: every namespace has its own.
        if self.unread.capacity() / 4 > self.unread.len() {
            self.unread.shrink_to(FEW);
        }
        news
    }
}

/// The tallies, by network namespace.
#[derive(Default)]
pub(super) struct MibAudit {
    tallies: HashMap<u32, RetransTally>,
}

impl MibAudit {
    /// Segments were retransmitted, or failed to be: a SYN or a SYN-ACK, or others.
    pub fn event(&mut self, netns: u32, at_ns: u64, handshake: bool, segments: u32) {
        self.tallies.entry(netns).or_default().event(Unread {
            at_ns,
            handshake,
            segments,
        });
    }

    /// A reading; every event up to then has been taken in. How many more are missing than were known
    /// to be: never too many, and too few only while events are on their way.
    pub fn reading(&mut self, netns: u32, count: RetransReading) -> Missing {
        self.tallies.entry(netns).or_default().reading(count)
    }

    /// A socket's own count shows `events` retransmissions of a SYN or SYN-ACK that no event reported.
    /// Returns how many of them are not reported as lost yet.
    pub fn missed(&mut self, netns: u32, events: u64) -> u64 {
        let tally = self.tallies.entry(netns).or_default();
        tally.by_socket += events;
        let news = tally.by_socket.saturating_sub(tally.reported.handshake);
        tally.reported.handshake += news;
        news
    }

    /// Forgets the namespaces that are not polled any more.
    pub fn keep(&mut self, netns: impl Fn(&u32) -> bool) {
        self.tallies.retain(|inode, _| netns(inode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(at: u64, handshake: u64, segments: u64) -> RetransReading {
        RetransReading {
            before_ns: at,
            after_ns: at + 1000,
            counts: RetransCounts {
                handshake,
                segments,
            },
        }
    }

    /// Where only SYNs are retransmitted.
    fn syns(mib_audit: &mut MibAudit, at_ns: u64, value: u64) -> u64 {
        let missing = mib_audit.reading(1, at(at_ns, value, value));
        assert_eq!(missing.data, 0);
        missing.handshake
    }

    #[test]
    fn what_the_kernel_counted_and_nobody_told_is_missing_once() {
        let mut mib_audit = MibAudit::default();
        mib_audit.event(1, S, true, 1);
        assert_eq!(
            syns(&mut mib_audit, 2 * S, 1001),
            0,
            "the first reading is the base"
        );
        mib_audit.event(1, 3 * S, true, 1);
        assert_eq!(syns(&mut mib_audit, 4 * S, 1002), 0);
        assert_eq!(syns(&mut mib_audit, 5 * S, 1032), 30);
        assert_eq!(syns(&mut mib_audit, 6 * S, 1032), 0, "not again");
        mib_audit.event(1, 7 * S, true, 1);
        assert_eq!(syns(&mut mib_audit, 8 * S, 1034), 1);
    }

    #[test]
    fn what_a_socket_shows_and_the_namespace_counts_is_missing_once() {
        let mut mib_audit = MibAudit::default();
        assert_eq!(syns(&mut mib_audit, S, 1000), 0);
        assert_eq!(mib_audit.missed(1, 2), 2);
        assert_eq!(syns(&mut mib_audit, 2 * S, 1003), 1, "two are known");
        assert_eq!(mib_audit.missed(1, 1), 0, "the third's socket tells late");
        assert_eq!(mib_audit.missed(1, 1), 1);
    }

    #[test]
    fn events_beside_the_reading_are_not_missing() {
        let mut mib_audit = MibAudit::default();
        // Counted already, its record stamped after the reading; and one that came later.
        mib_audit.event(1, 2 * S + 5_000, true, 1);
        mib_audit.event(1, 2 * S + 500_000_000, true, 1);
        assert_eq!(syns(&mut mib_audit, 2 * S, 1), 0);
        assert_eq!(syns(&mut mib_audit, 3 * S, 2), 0);
        assert_eq!(syns(&mut mib_audit, 4 * S, 2), 0);
    }

    #[test]
    fn data_is_told_apart_from_syns_and_counted_by_the_segment() {
        let mut mib_audit = MibAudit::default();
        let missing = |handshake, data| Missing { handshake, data };
        assert_eq!(mib_audit.reading(1, at(S, 10, 100)), missing(0, 0));
        mib_audit.event(1, 2 * S, true, 1);
        mib_audit.event(1, 2 * S, false, 7);
        // One SYN and a probe more than events told of.
        assert_eq!(mib_audit.reading(1, at(3 * S, 12, 110)), missing(1, 1));
        assert_eq!(mib_audit.reading(1, at(4 * S, 12, 110)), missing(0, 0));
        assert_eq!(mib_audit.reading(1, at(5 * S, 12, 115)), missing(0, 5));
        // What a socket has told of is in both counters.
        assert_eq!(mib_audit.missed(1, 2), 1);
        assert_eq!(mib_audit.reading(1, at(6 * S, 13, 116)), missing(0, 0));
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_begun_anew() {
        let mut mib_audit = MibAudit::default();
        for n in 0..=UNREAD as u64 {
            mib_audit.event(1, S + n, true, 1);
        }
        assert_eq!(mib_audit.tallies[&1].unread.len(), 1);
        assert_eq!(syns(&mut mib_audit, 2 * S, 5_000_000), 0, "a new base");
        assert_eq!(syns(&mut mib_audit, 3 * S, 5_000_002), 2);
    }

    #[test]
    fn the_memory_of_a_burst_is_returned() {
        let mut tally = RetransTally::default();
        for at_ns in 0..100_000 {
            tally.event(Unread {
                at_ns,
                handshake: true,
                segments: 1,
            });
        }
        tally.reading(RetransReading {
            before_ns: 100_000,
            after_ns: 100_001,
            counts: RetransCounts::default(),
        });
        assert!(tally.unread.is_empty());
        assert!(tally.unread.capacity() <= 2 * FEW);
    }
}
