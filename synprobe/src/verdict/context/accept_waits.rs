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
//! of the port are fewer where the namespace has other listeners; lost records would make them too few. All
//! sockets of a port are taken together.

use std::collections::{BTreeMap, HashMap};

use synprobe_ebpf::histogram::{BUCKETS, from_us};

use crate::model::{AcceptCounts, AcceptReading, AcceptWait, AcceptWaitSource, Listener};

/// A wait from which on it is long: a check is a second after the one before, and no two rounds take the same
/// time.
pub const LONG_US: u64 = 900_000;
const LONG_NS: u64 = LONG_US * 1000;
/// Between two checks that are further apart the length of the queue is not known.
const APART_NS: u64 = 5_000_000_000;
/// Checks with a connection in the queue that an estimate needs.
const CHECKS: u64 = 3;
/// Connections that it needs.
const CONNECTIONS: u64 = 3;
/// Ports that are remembered: those at which a connection was seen to wait.
const PORTS: usize = 4096;
/// Earlier checks that are remembered of a port.
const MARKS: usize = 64;

/// Namespace and port.
type Place = (u32, u16);

/// What is proven of waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongWaits {
    /// Checks at which a connection had waited for [`LONG_US`] or more.
    pub checks: u64,
    /// How many had, at the check with the most.
    pub most: u64,
    /// The longest wait that is proven, nanoseconds.
    longest_ns: u64,
}

impl LongWaits {
    /// The longest wait that is proven, microseconds.
    pub fn longest_us(&self) -> u64 {
        self.longest_ns / 1000
    }

    /// Takes in a check: since when how many of the connections have been waiting at least.
    fn note(&mut self, waiting: impl Iterator<Item = (u64, u64)>) {
        let mut long = 0;
        for (waited_ns, connections) in waiting.filter(|(_, connections)| *connections > 0) {
            self.longest_ns = self.longest_ns.max(waited_ns);
            if waited_ns >= LONG_NS {
                long = long.max(connections);
            }
        }
        self.checks += u64::from(long > 0);
        self.most = self.most.max(long);
    }
}

/// One check of the queues of a port.
#[derive(Clone, Copy)]
struct Mark {
    read: AcceptReading,
    /// Connections that waited.
    queue: u64,
    /// Handshakes of the port when the round began; `None`: not counted.
    arrived: Option<u64>,
}

impl Mark {
    /// Connections that came into the queues between two checks, at most, as `PassiveOpens` has it.
    fn opens_since(&self, earlier: &Self) -> Option<u64> {
        let now = self.read.opens_after?;
        Some(now.saturating_sub(earlier.read.opens_before?))
    }

    /// How long what waited at both has waited, at least.
    fn waited_ns(&self, earlier: &Self) -> u64 {
        self.read.before_ns.saturating_sub(earlier.read.after_ns)
    }
}

/// The connections of one port in one namespace that wait for accept().
#[derive(Default)]
pub struct PortWaits {
    /// Completed handshakes that have a line.
    lines: u64,
    /// All completed handshakes of the port when the round began; `None`: not counted.
    begun: Option<u64>,
    /// The check of this round.
    now: Option<Mark>,
    /// Checks since which a connection has been waiting, oldest first, and the last one.
    marks: Vec<Mark>,
    checks: u64,
    with_queue: u64,
    span_ns: u64,
    /// The sum over time of the queue's length, connections times nanoseconds.
    area: u128,
    came: u64,
    left: u64,
    by_opens: LongWaits,
    by_port: LongWaits,
}

impl PortWaits {
    /// The round is over, and every record of its time is taken in. `arrived`: completed handshakes of the port
    /// so far; `None`: not counted. `by_port`: they are to be had, at most checks.
    fn round_ends(&mut self, arrived: Option<u64>, by_port: bool) {
        let Some(now) = self.now.take() else { return };
        if let Some(last) = self.marks.last().copied() {
            self.add(&last, &now, by_port);
        }
        let fewest = |earlier: &Mark| {
            let of_port = arrived.zip(earlier.arrived);
            let of_port = of_port.map(|(now, then)| now.saturating_sub(then));
            least(now.opens_since(earlier), of_port)
        };
        let still = |came: Option<u64>| came.map_or(0, |came| now.queue.saturating_sub(came));
        let of = |came: &dyn Fn(&Mark) -> Option<u64>| -> Vec<(u64, u64)> {
            let marks = self.marks.iter();
            marks
                .map(|earlier| (now.waited_ns(earlier), still(came(earlier))))
                .collect()
        };
        let (by_opens, by_port) = (of(&|earlier| now.opens_since(earlier)), of(&fewest));
        self.by_opens.note(by_opens.into_iter());
        self.by_port.note(by_port.into_iter());
        self.marks.retain(|earlier| still(fewest(earlier)) > 0);
        if self.marks.len() >= MARKS {
            // The oldest stays.
            let mut nth = 0;
            self.marks.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
        }
        self.marks.push(now);
    }

    /// Adds the time between two checks to the estimate. `PassiveOpens` counts for other listeners too: it is used
    /// only where the handshakes of a port are never counted.
    fn add(&mut self, last: &Mark, now: &Mark, by_port: bool) {
        let ns = now.read.before_ns.saturating_sub(last.read.before_ns);
        let opens = now.read.opens_before.zip(last.read.opens_before);
        let of_port = now.arrived.zip(last.arrived);
        let rose = |(now, then): (u64, u64)| now.saturating_sub(then);
        let came = match (by_port, of_port) {
            (true, None) => None,
            _ => least(opens.map(rose), of_port.map(rose)),
        };
        let Some(came) = came.filter(|_| ns <= APART_NS) else {
            return;
        };
        self.checks += 1;
        self.with_queue += u64::from(last.queue > 0 || now.queue > 0);
        self.span_ns += ns;
        self.area += u128::from(last.queue + now.queue) * u128::from(ns) / 2;
        self.came = self.came.saturating_add(came);
        let left = last.queue.saturating_add(came).saturating_sub(now.queue);
        self.left = self.left.saturating_add(left);
    }

    /// What is known of the waits.
    pub fn wait(&self) -> AcceptWait {
        let connections = self.came.max(self.left);
        let enough = self.with_queue >= CHECKS && connections >= CONNECTIONS && self.left > 0;
        let mean_ns = self.area / u128::from(connections.max(1));
        AcceptWait {
            mean_us: enough.then(|| u64::try_from(mean_ns / 1000).unwrap_or(u64::MAX)),
            source: AcceptWaitSource::Queue,
            checks: self.checks,
            span_us: self.span_ns / 1000,
            left: self.left,
            longest_at_least_us: Some(self.by_port.longest_us()).filter(|us| *us > 0),
            accepted: None,
            p50_us: None,
            p99_us: None,
            accepted_by: None,
        }
    }

    /// The mean length of the queue, and the connections a second that came into it or left it: the estimate is
    /// the one divided by the other.
    pub fn length_and_rate(&self) -> (f64, f64) {
        let span_ns = self.span_ns.max(1) as f64;
        let connections = self.came.max(self.left) as f64;
        (self.area as f64 / span_ns, connections * 1e9 / span_ns)
    }

    /// What is proven by `PassiveOpens` alone.
    pub fn by_opens(&self) -> LongWaits {
        self.by_opens
    }

    /// What is proven where the handshakes of the port were counted too.
    pub fn by_port(&self) -> LongWaits {
        self.by_port
    }
}

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

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
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
            let proven = |w: &PortWaits| w.by_port.checks > 0;
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
