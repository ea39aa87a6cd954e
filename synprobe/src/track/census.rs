//! Our count held against the kernel's, while we run.
//!
//! `TCPSynRetrans` of a namespace rises with every SYN and SYN-ACK that is sent again, just before the
//! tracepoint is raised (`__tcp_retransmit_skb()`, `tcp_rtx_synack()`). What the kernel counted and no
//! record told of was missed, by whatever fault, and is reported: nothing is lost in silence. A socket
//! counts too (`tcp_sock.total_retrans`, `request_sock.num_retrans`), and its own next record shows what
//! was missed of it, also where a filter makes the namespace's sum useless.

use std::collections::{HashMap, VecDeque};

/// An event whose counter was read may still be on its way through its program for so long.
const ON_ITS_WAY_NS: u64 = 10_000_000;

/// A reading of the counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Before it was read, CLOCK_MONOTONIC nanoseconds.
    pub before_ns: u64,
    /// After.
    pub after_ns: u64,
    /// Its value.
    pub value: u64,
}

#[derive(Default)]
struct Tally {
    /// Events seen.
    seen: u64,
    /// Times of the last of them, since the last reading.
    recent: VecDeque<u64>,
    /// First reading, and the events that it certainly holds.
    first: Option<(u64, u64)>,
    /// Missing ones that were reported.
    reported: u64,
    /// Missing ones that a socket's own count has shown: some or all of those above.
    by_socket: u64,
}

impl Tally {
    fn seen_by(&self, at_ns: u64) -> u64 {
        self.seen - self.recent.iter().filter(|at| **at > at_ns).count() as u64
    }
}

/// The tallies, by network namespace.
#[derive(Default)]
pub(super) struct Census {
    tallies: HashMap<u32, Tally>,
}

impl Census {
    /// A SYN or a SYN-ACK was sent again, or tried to be.
    pub fn event(&mut self, netns: u32, at_ns: u64) {
        let tally = self.tallies.entry(netns).or_default();
        tally.seen += 1;
        tally.recent.push_back(at_ns);
    }

    /// A reading; every event up to then has been taken in. How many more are missing than were known
    /// to be: never too many, and too few only while events are on their way.
    pub fn reading(&mut self, netns: u32, count: Count) -> u64 {
        let tally = self.tallies.entry(netns).or_default();
        let missing = match tally.first {
            None => {
                tally.first = Some((count.value, tally.seen_by(count.before_ns)));
                (tally.reported, tally.by_socket) = (0, 0);
                0
            }
            Some((first, seen)) => {
                let counted = count.value.saturating_sub(first);
                let told = tally.seen_by(count.after_ns + ON_ITS_WAY_NS) - seen;
                counted.saturating_sub(told)
            }
        };
        tally.recent.retain(|at| *at > count.before_ns);
        let news = missing.saturating_sub(tally.reported);
        tally.reported += news;
        news
    }

    /// A socket's own count shows so many that no event told of. How many of them were not reported.
    pub fn missed(&mut self, netns: u32, events: u64) -> u64 {
        let tally = self.tallies.entry(netns).or_default();
        tally.by_socket += events;
        let news = tally.by_socket.saturating_sub(tally.reported);
        tally.reported += news;
        news
    }

    /// Forgets the namespaces that are not looked at any more.
    pub fn keep(&mut self, netns: impl Fn(&u32) -> bool) {
        self.tallies.retain(|inode, _| netns(inode));
    }
}

/// Records that are known to be lost: what else shows that they are missing is no news.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Excused {
    pub states: u64,
    pub retransmissions: u64,
    pub requests: u64,
}

/// What no event told of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Untold {
    /// SYNs and SYN-ACKs sent again: whose count shows it.
    Retransmissions(&'static str),
    /// That an active open is over.
    ClientEnds,
    /// Ends of half-opens, in the exact mode.
    HalfOpenEnds,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(census: &mut Census, at: u64, value: u64) -> u64 {
        census.reading(
            1,
            Count {
                before_ns: at,
                after_ns: at + 1000,
                value,
            },
        )
    }

    const S: u64 = 1_000_000_000;

    #[test]
    fn what_the_kernel_counted_and_nobody_told_is_missing_once() {
        let mut census = Census::default();
        census.event(1, S);
        assert_eq!(
            read(&mut census, 2 * S, 1001),
            0,
            "the first reading is the base"
        );
        census.event(1, 3 * S);
        assert_eq!(read(&mut census, 4 * S, 1002), 0);
        assert_eq!(read(&mut census, 5 * S, 1032), 30);
        assert_eq!(read(&mut census, 6 * S, 1032), 0, "not again");
        census.event(1, 7 * S);
        assert_eq!(read(&mut census, 8 * S, 1034), 1);
    }

    #[test]
    fn what_a_socket_shows_and_the_namespace_counts_is_missing_once() {
        let mut census = Census::default();
        assert_eq!(read(&mut census, S, 1000), 0);
        assert_eq!(census.missed(1, 2), 2);
        assert_eq!(read(&mut census, 2 * S, 1003), 1, "two are known");
        assert_eq!(census.missed(1, 1), 0, "the third's socket tells late");
        assert_eq!(census.missed(1, 1), 1);
    }

    #[test]
    fn events_beside_the_reading_are_not_missing() {
        let mut census = Census::default();
        // Counted already, its record stamped after the reading; and one that came later.
        census.event(1, 2 * S + 5_000);
        census.event(1, 2 * S + 500_000_000);
        assert_eq!(read(&mut census, 2 * S, 1), 0);
        assert_eq!(read(&mut census, 3 * S, 2), 0);
        assert_eq!(read(&mut census, 4 * S, 2), 0);
    }
}
