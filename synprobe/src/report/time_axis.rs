//! A time axis of a bounded number of intervals: each becomes twice as long when the run outgrows them.

/// Intervals, at most.
pub(super) const INTERVALS: usize = 240;
/// The length of an interval at first, nanoseconds.
const SHORTEST_NS: u64 = 10_000_000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeAxis {
    /// Where it begins, nanoseconds.
    begin_ns: i128,
    interval_ns: u64,
    /// The latest moment, from the beginning, nanoseconds.
    latest_ns: u64,
}

impl TimeAxis {
    pub fn new(begin_ns: i128) -> Self {
        Self {
            begin_ns,
            interval_ns: SHORTEST_NS,
            latest_ns: 0,
        }
    }

    /// Takes in a moment. Returns how often all series must be halved before anything is added to them.
    pub fn reach(&mut self, at_ns: i128) -> u32 {
        let since = u64::try_from(at_ns - self.begin_ns).unwrap_or(0);
        self.latest_ns = self.latest_ns.max(since);
        let mut halvings = 0;
        while self.latest_ns / self.interval_ns >= INTERVALS as u64 {
            self.interval_ns *= 2;
            halvings += 1;
        }
        halvings
    }

    /// The interval of a moment. What lies before the beginning is in the first.
    pub fn interval(&self, at_ns: i128) -> usize {
        let since = u64::try_from(at_ns - self.begin_ns).unwrap_or(0);
        ((since / self.interval_ns) as usize).min(INTERVALS - 1)
    }

    /// How many intervals there are.
    pub fn len(&self) -> usize {
        (self.latest_ns / self.interval_ns) as usize + 1
    }

    /// The length of an interval, microseconds.
    pub fn interval_us(&self) -> u64 {
        self.interval_ns / 1000
    }

    /// The length of the whole axis, microseconds.
    pub fn length_us(&self) -> u64 {
        self.len() as u64 * self.interval_us()
    }
}

/// A number for each interval that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals {
    /// In order of the intervals.
    values: Vec<(u8, i64)>,
}

const _: () = assert!(INTERVALS <= u8::MAX as usize + 1);

impl Intervals {
    /// Adds to the number of an interval.
    pub fn add(&mut self, interval: usize, more: i64) {
        self.change(interval, |value| *value += more);
    }

    /// Raises the number of an interval.
    pub fn raise(&mut self, interval: usize, to: i64) {
        self.change(interval, |value| *value = to.max(*value));
    }

    fn change(&mut self, interval: usize, how: impl FnOnce(&mut i64)) {
        let key = interval as u8;
        let at = match self.values.binary_search_by_key(&key, |(of, _)| *of) {
            Ok(at) => at,
            Err(at) => {
                self.values.insert(at, (key, 0));
                at
            }
        };
        how(&mut self.values[at].1);
    }

    /// Makes one interval of two: their numbers are put together by `join`.
    pub fn halve(&mut self, join: fn(i64, i64) -> i64) {
        let mut halved: Vec<(u8, i64)> = Vec::with_capacity(self.values.len().div_ceil(2));
        for (interval, value) in self.values.drain(..) {
            match halved.last_mut() {
                Some((of, sum)) if *of == interval / 2 => *sum = join(*sum, value),
                _ => halved.push((interval / 2, value)),
            }
        }
        self.values = halved;
    }

    /// The intervals that have a number.
    pub fn iter(&self) -> impl Iterator<Item = (usize, i64)> {
        self.values
            .iter()
            .map(|(interval, value)| (usize::from(*interval), *value))
    }

    /// The sum of all numbers up to each interval.
    pub fn levels(&self, intervals: usize) -> Vec<i64> {
        let mut levels = vec![0; intervals];
        for (interval, value) in self.iter() {
            if let Some(level) = levels.get_mut(interval) {
                *level += value;
            }
        }
        for at in 1..intervals {
            levels[at] += levels[at - 1];
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i128 = 1_000_000_000;

    #[test]
    fn an_axis_grows_by_doubling_and_keeps_the_sums() {
        let mut axis = TimeAxis::new(100 * S);
        let mut begun = Intervals::default();
        for second in 0..10_000 {
            let at = (100 + second) * S;
            for _ in 0..axis.reach(at) {
                begun.halve(|a, b| a + b);
            }
            begun.add(axis.interval(at), 1);
        }
        assert!(
            (INTERVALS / 2..=INTERVALS).contains(&axis.len()),
            "{axis:?}"
        );
        assert!(axis.length_us() >= 9_999_000_000, "{axis:?}");
        assert_eq!(begun.iter().map(|(_, n)| n).sum::<i64>(), 10_000);
        assert_eq!(begun.levels(axis.len()).last(), Some(&10_000));
        // Before the beginning.
        assert_eq!(axis.interval(0), 0);
    }

    #[test]
    fn the_highest_of_two_intervals_stays() {
        let mut highest = Intervals::default();
        for (interval, value) in [(5, 7), (2, 1), (3, 9), (5, 6)] {
            highest.raise(interval, value);
        }
        highest.halve(i64::max);
        assert_eq!(highest.iter().collect::<Vec<_>>(), [(1, 9), (2, 7)]);
    }
}
