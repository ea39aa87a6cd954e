//! Sums over all handshakes: how they went on, how long they took, how many were in progress.

use std::collections::BTreeMap;

use synprobe_ebpf::histogram::{BUCKETS, bucket};

use super::{
    cause::HandshakeCause,
    time_axis::{Intervals, TimeAxis},
};
use crate::model::{Completed, Handshake, Outcome, QueueSample, Role};

/// From a role over an outcome to a cause.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowCounts {
    counts: BTreeMap<(Role, Outcome, HandshakeCause), u64>,
    /// Those that completed, by role, where the kernel side counted them: with and without a line.
    completed: BTreeMap<Role, u64>,
}

impl FlowCounts {
    pub fn add(&mut self, h: &Handshake) {
        let key = (h.connection.role, h.outcome, HandshakeCause::of(h));
        *self.counts.entry(key).or_default() += 1;
    }

    pub fn completed(&mut self, completed: &Completed) {
        *self.completed.entry(completed.role).or_default() += completed.handshakes;
    }

    /// Takes in handshakes of the role that completed without a line.
    pub fn counted(&mut self, role: Role, handshakes: u64) {
        let with_a_line: u64 = self
            .counts
            .iter()
            .filter(|((of, outcome, _), _)| *of == role && *outcome == Outcome::Established)
            .map(|(_, n)| n)
            .sum();
        self.completed.insert(role, with_a_line + handshakes);
    }

    /// All of them, those that were only counted included.
    pub fn all(&self) -> BTreeMap<(Role, Outcome, HandshakeCause), u64> {
        let mut all = self.counts.clone();
        for (role, completed) in &self.completed {
            let established = self.counts.iter();
            let with_a_line: u64 = established
                .filter(|((of, outcome, _), _)| of == role && *outcome == Outcome::Established)
                .map(|(_, n)| n)
                .sum();
            let key = (*role, Outcome::Established, HandshakeCause::Well);
            let counted = completed.saturating_sub(with_a_line);
            if counted > 0 {
                *all.entry(key).or_default() += counted;
            }
        }
        all
    }

    /// By cause.
    pub fn causes(&self) -> BTreeMap<HandshakeCause, u64> {
        let mut causes = BTreeMap::new();
        for ((.., cause), n) in self.all() {
            *causes.entry(cause).or_default() += n;
        }
        causes
    }

    /// Those in trouble.
    pub fn troubled(&self) -> u64 {
        let troubled = self.counts.iter();
        troubled
            .filter(|((.., cause), _)| *cause != HandshakeCause::Well)
            .map(|(_, n)| n)
            .sum()
    }

    /// How many of a cause and a role.
    pub fn of(&self, role: Role, cause: HandshakeCause) -> u64 {
        let such = self.counts.iter();
        such.filter(|((r, _, c), _)| (*r, *c) == (role, cause))
            .map(|(_, n)| n)
            .sum()
    }
}

/// How long they took, by the buckets of [`bucket`].
#[derive(Clone, Debug, Default)]
pub(super) struct Durations {
    established: BTreeMap<Role, Buckets>,
    /// The same as the kernel side counted them, where it did: with and without a line.
    completed: BTreeMap<Role, Buckets>,
    others: BTreeMap<Role, Buckets>,
    /// Those whose duration is not known.
    pub unknown: u64,
}

/// Handshakes by duration.
pub(super) type Buckets = Box<[u64; BUCKETS]>;

fn empty() -> Buckets {
    Box::new([0; BUCKETS])
}

fn bucket_of(us: u64) -> usize {
    bucket(u32::try_from(us).unwrap_or(u32::MAX))
}

impl Durations {
    pub fn add(&mut self, h: &Handshake) {
        if h.outcome == Outcome::Open {
            return;
        }
        let Some(us) = h.dwell_us else {
            self.unknown += 1;
            return;
        };
        let by_role = match h.outcome {
            Outcome::Established => &mut self.established,
            _ => &mut self.others,
        };
        by_role.entry(h.connection.role).or_insert_with(empty)[bucket_of(us)] += 1;
    }

    pub fn completed(&mut self, completed: &Completed) {
        let buckets = self.completed.entry(completed.role).or_insert_with(empty);
        for one in &completed.buckets {
            buckets[bucket_of(one.from_us)] += one.handshakes;
        }
        self.unknown += completed.untimed;
    }

    /// Takes in handshakes of the role that completed without a line: how many of each duration.
    pub fn counted(&mut self, role: Role, counts: &[u64; BUCKETS]) {
        let with_a_line = self.established.get(&role).cloned();
        let mut all = with_a_line.unwrap_or_else(empty);
        all.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        self.completed.insert(role, all);
    }

    /// Those that completed, and those that ended otherwise.
    pub fn of(&self, role: Role) -> (Buckets, Buckets) {
        let established = self.completed.get(&role);
        let established = established.or_else(|| self.established.get(&role));
        let others = self.others.get(&role);
        (
            established.cloned().unwrap_or_else(empty),
            others.cloned().unwrap_or_else(empty),
        )
    }
}

/// Handshakes in progress over time, by role and cause: by how many they change in each interval.
#[derive(Clone, Debug, Default)]
pub(super) struct InProgress {
    pub changes: BTreeMap<(Role, HandshakeCause), Intervals>,
    /// Those that were still open when their run ended.
    still_open: BTreeMap<(Role, HandshakeCause), i64>,
}

impl InProgress {
    /// `end`: `None` where it goes on after the run.
    pub fn add(&mut self, h: &Handshake, axis: &TimeAxis, begin: i128, end: Option<i128>) {
        let key = (h.connection.role, HandshakeCause::of(h));
        let (begin, end) = (axis.interval(begin), end.map(|end| axis.interval(end)));
        if Some(begin) == end {
            return;
        }
        let changes = self.changes.entry(key).or_default();
        changes.add(begin, 1);
        match end {
            Some(end) => changes.add(end, -1),
            None => *self.still_open.entry(key).or_default() += 1,
        }
    }

    /// Another run of the recording begins: nothing is known of what was open in the one before.
    pub fn next_run(&mut self, interval: usize) {
        for (key, open) in std::mem::take(&mut self.still_open) {
            self.changes.entry(key).or_default().add(interval, -open);
        }
    }

    pub fn halve(&mut self) {
        self.changes
            .values_mut()
            .for_each(|c| c.halve(|a, b| a + b));
    }
}

/// Counters of the kernel over time: how far each has risen since the beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Rises {
    pub overflows: Rise,
    pub drops: Rise,
    pub cookies: Rise,
}

/// One counter.
#[derive(Clone, Debug, Default)]
pub(super) struct Rise {
    /// The highest in each interval.
    pub highest: Intervals,
    /// What it had reached in the runs before this one.
    before: i64,
    last: i64,
    /// Whether it could be read.
    pub is_known: bool,
}

impl Rise {
    fn sample(&mut self, interval: usize, now: Option<u64>) {
        let Some(now) = now else { return };
        self.is_known = true;
        self.last = self.before + i64::try_from(now).unwrap_or(i64::MAX / 2);
        self.highest.raise(interval, self.last);
    }

    /// How far it rose in all.
    pub fn total(&self) -> u64 {
        self.last.unsigned_abs()
    }

    /// By how much it rose in each interval in which it was read.
    pub fn steps(&self) -> Vec<(usize, u64)> {
        let mut before = 0;
        let mut steps = Vec::new();
        for (interval, now) in self.highest.iter() {
            steps.push((interval, (now - before).max(0).unsigned_abs()));
            before = now;
        }
        steps
    }
}

impl Rises {
    pub fn sample(&mut self, interval: usize, sample: &QueueSample) {
        self.overflows.sample(interval, sample.listen_overflows);
        self.drops.sample(interval, sample.listen_drops);
        self.cookies.sample(interval, sample.syn_cookies);
    }

    pub fn halve(&mut self) {
        self.each(|rise| rise.highest.halve(i64::max));
    }

    /// Another run begins: its counters begin at 0 again.
    pub fn next_run(&mut self) {
        self.each(|rise| rise.before = rise.last);
    }

    fn each(&mut self, how: impl Fn(&mut Rise)) {
        [&mut self.overflows, &mut self.drops, &mut self.cookies]
            .into_iter()
            .for_each(how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_goes_on_over_the_runs_of_a_recording() {
        let mut rises = Rises::default();
        let sample = |overflows| QueueSample {
            at_ns: 0,
            listeners: Vec::new(),
            listen_overflows: Some(overflows),
            listen_drops: None,
            syn_cookies: None,
        };
        rises.sample(0, &sample(0));
        rises.sample(2, &sample(5));
        rises.next_run();
        rises.sample(7, &sample(3));
        assert_eq!(rises.overflows.steps(), [(0, 0), (2, 5), (7, 3)]);
        assert_eq!(rises.overflows.total(), 8);
        assert!(!rises.drops.is_known);
    }
}
