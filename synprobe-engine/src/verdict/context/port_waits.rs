//! The connections of one port that wait for accept(): what the checks of its queues prove, and the estimate of their
//! mean wait. See [`super::accept_waits`].

use crate::model::{AcceptReading, AcceptWait, AcceptWaitSource};

/// A wait from which on it is long: a check is a second after the one before, and no two rounds take the same
/// time.
pub const LONG_US: u64 = 900_000;
const LONG_NS: u64 = LONG_US * 1000;
/// Between two checks that are further apart the length of the queue is not known.
const APART_NS: u64 = 5_000_000_000;
/// Checks with a connection in the queue that an estimate needs.
const CHECKS: u64 = 3;
/// Connections that it needs, of those that come and of those that leave.
const CONNECTIONS: u64 = 3;
/// Where one of them is more than this many times the other, there is no estimate.
const UNEQUAL: u64 = 3;
/// Earlier checks that are remembered of a port.
const MARKS: usize = 64;

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
pub(super) struct Mark {
    pub read: AcceptReading,
    /// Connections that waited.
    pub queue: u64,
    /// Handshakes of the port when the round began; `None`: not counted.
    pub arrived: Option<u64>,
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
    pub(super) lines: u64,
    /// All completed handshakes of the port when the round began; `None`: not counted.
    pub(super) begun: Option<u64>,
    /// The check of this round.
    pub(super) now: Option<Mark>,
    /// Checks since which a connection has been waiting, oldest first, and the last one.
    pub(super) marks: Vec<Mark>,
    checks: u64,
    with_queue: u64,
    span_ns: u64,
    /// The sum over time of the queue's length, connections times nanoseconds.
    area: u128,
    came: u64,
    left: u64,
    by_opens: LongWaits,
    by_port: LongWaits,
    /// The queue grew by more than the handshakes of the port: these are not all that came.
    unaccounted: bool,
}

impl PortWaits {
    /// The round is over, and every record of its time is taken in. `arrived`: completed handshakes of the port
    /// so far; `None`: not counted. `by_port`: they are to be had, at most checks.
    pub(super) fn round_ends(&mut self, arrived: Option<u64>, by_port: bool) {
        let Some(now) = self.now.take() else { return };
        if let Some(last) = self.marks.last().copied() {
            self.compare(&last, &now, arrived);
            self.add(&last, &now, by_port && !self.unaccounted);
        }
        let arrived = arrived.filter(|_| !self.unaccounted);
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

    /// Whether the handshakes of the port account for what came into the queue.
    fn compare(&mut self, last: &Mark, now: &Mark, arrived: Option<u64>) {
        let Some((arrived, then)) = arrived.zip(last.arrived) else {
            return;
        };
        let most = last.queue.saturating_add(arrived.saturating_sub(then));
        if now.queue > most && !self.unaccounted {
            *self = Self {
                marks: std::mem::take(&mut self.marks),
                by_opens: self.by_opens,
                by_port: self.by_opens,
                lines: self.lines,
                unaccounted: true,
                ..Self::default()
            };
            self.marks.iter_mut().for_each(|mark| mark.arrived = None);
        }
    }

    /// Adds the time between two checks to the estimate. `PassiveOpens` counts for other listeners too: it is used
    /// only where the handshakes of a port are never counted.
    fn add(&mut self, last: &Mark, now: &Mark, by_port: bool) {
        let ns = now.read.before_ns.saturating_sub(last.read.before_ns);
        let opens = now.read.opens_before.zip(last.read.opens_before);
        let of_port = now.arrived.zip(last.arrived).filter(|_| !self.unaccounted);
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
        let (fewer, more) = (self.came.min(self.left), self.came.max(self.left));
        // Little's law is one of a steady state.
        let steady = more <= fewer.saturating_mul(UNEQUAL);
        let enough = self.with_queue >= CHECKS && fewer >= CONNECTIONS && steady;
        let connections = u128::from(fewer) + u128::from(more);
        let mean_ns = self.area * 2 / connections.max(1);
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

    /// The mean length of the queue, and the connections a second that came into it and left it, the mean of both: the
    /// estimate is the one divided by the other.
    pub fn length_and_rate(&self) -> (f64, f64) {
        let span_ns = self.span_ns.max(1) as f64;
        let connections = (self.came as f64 + self.left as f64) / 2.0;
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

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}
