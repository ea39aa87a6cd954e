//! How long connections wait for accept(), from the lengths of the accept queues and from how many came.
//!
//! Two things follow without a look at accept() itself:
//!
//! - The mean wait, by Little's law: the mean length of the queue, divided by the rate at which connections come or
//!   leave. An estimate: the length is known once a second.
//! - A lower bound that is no estimate: where a check shows more connections than came since an earlier check, the
//!   difference has been waiting since then.
//!
//! How many came is counted twice. `PassiveOpens` counts those of the whole namespace, and misses none. The handshakes
//! of the port are fewer where the namespace has other listeners. They are too few where records were lost without a
//! trace, and where connections come to a listener of another port (TPROXY, a BPF sk_lookup program). A queue that grew
//! by more than came shows that, and they are not used. All sockets of a port are taken together.

use std::collections::{BTreeMap, HashMap};

use synprobe_ebpf::histogram::{BUCKETS, from_us};

use super::port_waits::{Mark, PortWaits};
use crate::model::{AcceptCounts, AcceptReading, AcceptWait, AcceptWaitSource, Listener};

/// Ports that are remembered: those at which a connection was seen to wait.
const PORTS: usize = 4096;

/// Namespace and port.
type Place = (u32, u16);

fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
}

/// The end of the bucket in which it lies: no less than the true value, and less than a quarter more. `None` for the
/// last bucket, which has no end.
fn quantile(counts: &[u64], share: f64) -> Option<u64> {
    let rank = ((total(counts) as f64 * share).ceil() as u64).max(1);
    let mut seen: u64 = 0;
    let at = counts.iter().position(|count| {
        seen = seen.saturating_add(*count);
        seen >= rank
    })?;
    (at + 1 < BUCKETS).then(|| u64::from(from_us(at + 1)))
}

/// See the module.
#[derive(Default)]
pub struct AcceptWaits {
    /// In an order that no hash decides.
    ports: BTreeMap<Place, PortWaits>,
    /// What was measured at accept().
    measured: BTreeMap<Place, AcceptCounts>,
    /// Handshakes that the kernel side has only counted, as read just now, by port.
    counted: HashMap<u16, u64>,
    readings: HashMap<u32, AcceptReading>,
    /// The quiet mode: most handshakes have no line.
    pub quiet: bool,
}

impl AcceptWaits {
    /// A handshake of this host's server completed, and has a line.
    pub fn completed(&mut self, netns: u32, port: Option<u16>) {
        let place = port.map(|port| (netns, port));
        if let Some(waits) = place.and_then(|place| self.ports.get_mut(&place)) {
            waits.lines += 1;
        }
    }

    /// What the kernel side has only counted. `others`: those of ports without a count of their own; any of
    /// the ports may be among them.
    pub fn counted(&mut self, ports: Vec<(u16, u64)>, others: u64) {
        self.counted = match others {
            0 => ports.into_iter().collect(),
            _ => HashMap::new(),
        };
    }

    /// Completed handshakes of a port so far; `None`: not counted.
    fn arrived(quiet: bool, counted: &HashMap<u16, u64>, port: u16, lines: u64) -> Option<u64> {
        match quiet {
            true => Some(counted.get(&port)?.saturating_add(lines)),
            false => Some(lines),
        }
    }

    /// The queues are about to be read.
    pub fn round_begins(&mut self) {
        for ((_, port), waits) in &mut self.ports {
            waits.begun = Self::arrived(self.quiet, &self.counted, *port, waits.lines);
        }
        self.counted.clear();
    }

    /// When the queues of [`Self::sample`] were read.
    pub fn read(&mut self, readings: Vec<AcceptReading>) {
        self.readings = readings.into_iter().map(|r| (r.netns, r)).collect();
    }

    /// Takes in the queues.
    pub(super) fn sample(&mut self, listeners: &[Listener]) {
        let mut waiting: BTreeMap<Place, u64> = BTreeMap::new();
        for l in listeners {
            let place = (l.netns, l.local_port);
            let queue = u64::from(l.accept_queue.unwrap_or(0));
            let known = self.ports.contains_key(&place) || self.ports.len() < PORTS && queue > 0;
            if known && self.readings.contains_key(&l.netns) {
                *waiting.entry(place).or_default() += queue;
            }
        }
        for (place, queue) in waiting {
            let Some(read) = self.readings.get(&place.0).copied() else {
                continue;
            };
            let waits = self.ports.entry(place).or_default();
            waits.now = Some(Mark {
                read,
                queue,
                arrived: waits.begun,
            });
        }
        // A listener that was closed took its queue along.
        for ((netns, _), waits) in &mut self.ports {
            if waits.now.is_none() && self.readings.contains_key(netns) {
                waits.marks.clear();
            }
        }
        self.readings.clear();
    }

    /// The round is over. `sees_all`: every handshake of a port has a line, or is counted.
    pub(super) fn round_ends(&mut self, sees_all: bool) {
        for ((_, port), waits) in &mut self.ports {
            let arrived = Self::arrived(self.quiet, &self.counted, *port, waits.lines);
            waits.round_ends(arrived.filter(|_| sees_all), sees_all);
        }
        self.counted.clear();
        if self.ports.len() >= PORTS {
            let proven = |w: &PortWaits| w.by_port().checks > 0;
            let waits = |w: &PortWaits| w.marks.last().is_some_and(|m| m.queue > 0);
            self.ports.retain(|_, w| proven(w) || waits(w));
        }
    }

    /// Ports at which connections waited at the last check.
    pub fn waiting(&self) -> Vec<u16> {
        let last = |w: &PortWaits| w.now.or(w.marks.last().copied());
        let waits = |w: &PortWaits| last(w).is_some_and(|mark| mark.queue > 0);
        let mut ports: Vec<u16> = self
            .ports
            .iter()
            .filter(|(_, w)| waits(w))
            .map(|((_, port), _)| *port)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Takes in what was measured at accept().
    pub fn measured(&mut self, counts: Vec<AcceptCounts>) {
        for c in counts {
            let place = (c.netns, c.port);
            if self.measured.len() < PORTS || self.measured.contains_key(&place) {
                self.measured.insert(place, c);
            }
        }
    }

    /// All that was measured at accept(), by namespace and port.
    pub fn all_measured(&self) -> impl Iterator<Item = &AcceptCounts> {
        self.measured.values()
    }

    /// How long the connections of a port waited; `None`: nothing is known. What was measured at accept() comes
    /// before the estimate.
    pub fn wait(&self, netns: u32, port: u16) -> Option<AcceptWait> {
        let estimate = self.of(netns, port).map(PortWaits::wait);
        let Some(m) = self.measured.get(&(netns, port)) else {
            return estimate;
        };
        let accepted = total(&m.counts);
        Some(AcceptWait {
            mean_us: m.total_us.checked_div(accepted),
            source: AcceptWaitSource::Accept,
            accepted: Some(accepted),
            p50_us: quantile(&m.counts, 0.5),
            p99_us: quantile(&m.counts, 0.99),
            accepted_by: m.accepted_by.clone(),
            ..estimate.unwrap_or_else(|| PortWaits::default().wait())
        })
    }

    /// What is known of a port.
    pub fn of(&self, netns: u32, port: u16) -> Option<&PortWaits> {
        self.ports.get(&(netns, port))
    }
}

#[cfg(test)]
mod tests {
    use super::super::port_waits::LongWaits;
    use super::*;
    use crate::verdict::fixtures::{NETNS, SEC, T0, listener};

    /// What a round shows: the length of the queue, and how many came since the run began.
    struct Round {
        queue: u32,
        opens: u64,
        of_port: u64,
    }

    /// Rounds a second apart. `sees_all`: the handshakes of the port are counted.
    fn after(quiet: bool, sees_all: bool, rounds: &[Round]) -> AcceptWaits {
        let mut waits = AcceptWaits {
            quiet,
            ..AcceptWaits::default()
        };
        let mut lines = 0;
        for (n, round) in (0..).zip(rounds) {
            if quiet {
                waits.counted(vec![(8080, round.of_port)], 0);
            } else {
                (lines..round.of_port).for_each(|_| waits.completed(NETNS, Some(8080)));
                lines = round.of_port;
            }
            waits.round_begins();
            waits.read(vec![AcceptReading {
                netns: NETNS,
                before_ns: T0 + n * SEC,
                after_ns: T0 + n * SEC + 1000,
                opens_before: Some(round.opens),
                opens_after: Some(round.opens),
            }]);
            waits.sample(&[listener(round.queue, 0)]);
            if quiet {
                waits.counted(vec![(8080, round.of_port)], 0);
            }
            waits.round_ends(sees_all);
        }
        waits
    }

    /// `came` a second to the port and as many more to others, of which `queue` wait in each second.
    fn steady(queue: &[u32], came: u64, others: u64) -> Vec<Round> {
        let round = |(n, queue): (u64, &u32)| Round {
            queue: *queue,
            opens: 100 + n * (came + others),
            of_port: n * came,
        };
        (0..).zip(queue).map(round).collect()
    }

    fn of(waits: &AcceptWaits) -> &PortWaits {
        waits.of(NETNS, 8080).unwrap()
    }

    #[test]
    fn more_in_the_queue_than_came_has_waited_since() {
        // 10 a second, each for 2.5 s.
        for quiet in [false, true] {
            let waits = after(quiet, true, &steady(&[25; 8], 10, 0));
            let wait = of(&waits).wait();
            assert_eq!(wait.longest_at_least_us, Some(1_999_999), "quiet {quiet}");
            let proven = of(&waits).by_opens();
            // 25 less the 10 of one second, at every check but the first.
            assert_eq!((proven.checks, proven.most), (7, 15));
            let (length, rate) = of(&waits).length_and_rate();
            assert!((length - 25.0).abs() < 0.01 && (rate - 10.0).abs() < 0.01);
            assert_eq!(wait.mean_us, Some(2_500_000));
        }
    }

    #[test]
    fn a_queue_whose_connections_are_others_each_time_proves_nothing() {
        let waits = after(false, true, &steady(&[40; 8], 40, 0));
        assert_eq!(of(&waits).by_port(), LongWaits::default());
        assert_eq!(of(&waits).wait().longest_at_least_us, None);
    }

    #[test]
    fn one_pause_is_long_at_one_check() {
        let waits = after(false, true, &steady(&[0, 5, 14, 0, 0, 0], 10, 0));
        let proven = of(&waits).by_port();
        assert_eq!((proven.checks, proven.most), (1, 4));
    }

    #[test]
    fn other_listeners_of_the_namespace_need_the_handshakes_of_the_port() {
        let rounds = steady(&[25; 8], 10, 30);
        for quiet in [false, true] {
            let waits = after(quiet, true, &rounds);
            assert_eq!(of(&waits).by_opens(), LongWaits::default());
            assert!(of(&waits).by_port().checks >= 5, "quiet {quiet}");
            assert_eq!(of(&waits).wait().mean_us, Some(2_500_000));
        }
        // Not where records were lost, or peers are selected: then it is only too few that are proven.
        let waits = after(false, false, &rounds);
        assert_eq!(of(&waits).by_port(), LongWaits::default());
    }

    #[test]
    fn ports_without_a_count_of_their_own_may_be_this_one() {
        let mut waits = after(true, true, &steady(&[25; 3], 10, 30));
        let before = of(&waits).by_port();
        waits.counted(vec![(8080, 20)], 1);
        waits.round_begins();
        waits.read(vec![AcceptReading {
            netns: NETNS,
            before_ns: T0 + 3 * SEC,
            after_ns: T0 + 3 * SEC,
            opens_before: Some(220),
            opens_after: Some(220),
        }]);
        waits.sample(&[listener(25, 0)]);
        waits.counted(vec![(8080, 20)], 1);
        waits.round_ends(true);
        assert_eq!(of(&waits).by_port(), before);
    }

    #[test]
    fn a_queue_that_grows_by_more_than_the_port_s_handshakes_is_not_proven_by_them() {
        // A healthy proxy: what comes to it has another port (TPROXY).
        let queue = [3, 1, 3, 2, 3, 3, 2, 3];
        let rounds: Vec<Round> = (0..)
            .zip(queue)
            .map(|(n, queue)| Round {
                queue,
                opens: n * 500,
                of_port: 0,
            })
            .collect();
        for quiet in [false, true] {
            let waits = after(quiet, true, &rounds);
            assert_eq!(of(&waits).by_port(), of(&waits).by_opens(), "quiet {quiet}");
            assert_eq!(of(&waits).by_port().checks, 0);
            // 500 a second: it is by PassiveOpens.
            let mean_us = of(&waits).wait().mean_us.unwrap();
            assert!((3000..7000).contains(&mean_us), "{mean_us}");
        }
    }

    #[test]
    fn a_queue_that_nobody_empties_has_no_mean() {
        let waits = after(false, true, &steady(&[1, 2, 3, 4, 5, 6], 1, 0));
        let wait = of(&waits).wait();
        assert_eq!((wait.mean_us, wait.left), (None, 0));
        assert_eq!(wait.longest_at_least_us, Some(4_999_999));
    }

    #[test]
    fn a_closed_listener_takes_its_queue_along() {
        let mut waits = after(false, true, &steady(&[5, 5, 5], 0, 0));
        assert_eq!(waits.waiting(), [8080]);
        waits.read(vec![AcceptReading {
            netns: NETNS,
            ..AcceptReading::default()
        }]);
        waits.sample(&[]);
        waits.round_ends(true);
        assert!(waits.waiting().is_empty());
    }

    #[test]
    fn ports_at_which_nobody_waits_cost_nothing() {
        let waits = after(false, true, &steady(&[0; 5], 100, 0));
        assert!(waits.of(NETNS, 8080).is_none());
    }
}
