//! The offset between the clocks of two hosts, from the handshakes themselves.
//!
//! Each handshake that both ends know is an exchange of times. The client's first SYN is sent before the
//! server's first SYN-ACK; that one before the client is connected; and the client is connected before the
//! server is. So each gives an interval that holds the offset. The offset at a time is what most intervals of
//! that time have in common (K. Marzullo, *Maintaining the Time in a Distributed System*, 1984; NTP selects its
//! servers in the same way, RFC 5905 section 11.2.1). The drift is taken off before, and followed over the run.

/// Samples of one node of the curve.
const GROUP: usize = 64;
/// A pause as long as this begins a new node, nanoseconds.
const PAUSE_NS: i64 = 30_000_000_000;
/// Blocks between which slopes are taken.
const BLOCKS: usize = 48;
/// A drift is not estimated over less than this, nanoseconds.
const SHORTEST_NS: i64 = 1_000_000_000;
/// How far a clock can drift beyond what was measured: parts per million.
const UNKNOWN_PPM: i64 = 50;
/// How far where no drift was measured: adjtimex(2) sets no clock faster or slower.
const UNMEASURED_PPM: i64 = 500;
/// Times are whole microseconds, and the kernel's own work between two readings takes some.
const SLACK_NS: i64 = 5_000;

/// What one handshake tells of the offset: server's clock − client's clock, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetInterval {
    /// When, on the client's clock.
    pub at_ns: i64,
    /// At least; `None`: not known.
    pub lowest_ns: Option<i64>,
    /// At most.
    pub highest_ns: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct ClockNode {
    at_ns: i64,
    /// Without the drift.
    offset_ns: i64,
    error_ns: i64,
}

/// How fast the server's clock gains on the client's.
#[derive(Clone, Copy, Debug)]
struct Drift {
    /// Nanoseconds in a nanosecond.
    gain: f64,
    /// The error of `gain` at most, parts per million.
    error_ppm: i64,
}

impl Default for Drift {
    /// Nothing is known of it.
    fn default() -> Self {
        Self {
            gain: 0.0,
            error_ppm: UNMEASURED_PPM,
        }
    }
}

impl Drift {
    fn is_measured(self) -> bool {
        self.error_ppm < UNMEASURED_PPM
    }
}

/// The offset of the server's clock, over the run.
#[derive(Clone, Debug, Default)]
pub struct ClockModel {
    nodes: Vec<ClockNode>,
    drift: Drift,
    began_ns: i64,
    /// Where no handshake has both bounds: the lowest upper one.
    at_most_ns: Option<i64>,
}

/// An offset with the bound of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Server's clock − client's clock, nanoseconds.
    pub offset_ns: i64,
    /// It is off by no more than this.
    pub error_ns: i64,
}

impl ClockModel {
    /// From what the handshakes tell.
    pub fn of(intervals: &[OffsetInterval]) -> Self {
        let mut bounded: Vec<(i64, i64, i64)> = intervals
            .iter()
            .filter_map(|i| Some((i.at_ns, i.lowest_ns?, i.highest_ns?)))
            .filter(|(_, lowest, highest)| lowest <= highest)
            .collect();
        let at_most_ns = intervals.iter().filter_map(|i| i.highest_ns).min();
        if bounded.is_empty() {
            return Self {
                at_most_ns,
                ..Self::default()
            };
        }
        bounded.sort_unstable();
        let began_ns = bounded[0].0;
        let drift = drift(&bounded);
        let detrend = |at_ns: i64| ((at_ns - began_ns) as f64 * drift.gain) as i64;
        let mut nodes = Vec::new();
        let mut from = 0;
        while from < bounded.len() {
            let mut to = from + 1;
            while to < bounded.len()
                && to - from < GROUP
                && bounded[to].0 - bounded[to - 1].0 < PAUSE_NS
            {
                to += 1;
            }
            let group = &bounded[from..to];
            let narrowest = group.iter().min_by_key(|(_, l, h)| h - l);
            let at_ns = match narrowest {
                // It bounds the offset at its own time.
                Some((at, ..)) if !drift.is_measured() => *at,
                _ => group[0].0 + (group[group.len() - 1].0 - group[0].0) / 2,
            };
            let level: Vec<(i64, i64)> = group
                .iter()
                .map(|(at, lowest, highest)| {
                    let error_ns = parts(at - at_ns, drift.error_ppm);
                    (
                        lowest - detrend(*at) - error_ns,
                        highest - detrend(*at) + error_ns,
                    )
                })
                .collect();
            let (lowest, highest) = most_in_common(&level);
            let offset_ns = lowest + (highest - lowest) / 2;
            nodes.push(ClockNode {
                at_ns,
                offset_ns,
                error_ns: (highest - lowest + 1) / 2 + apart(&level, offset_ns) + SLACK_NS,
            });
            from = to;
        }
        Self {
            nodes,
            drift,
            began_ns,
            at_most_ns,
        }
    }

    /// The offset at a time of the client's clock; `None` where no handshake bounds it from both sides.
    pub fn at(&self, at_ns: i64) -> Option<ClockOffset> {
        let (first, last) = (self.nodes.first()?, self.nodes.last()?);
        let next = self.nodes.partition_point(|node| node.at_ns < at_ns);
        let before = self.nodes[next.saturating_sub(1)];
        let after = self.nodes[next.min(self.nodes.len() - 1)];
        let span = after.at_ns - before.at_ns;
        let level = match span {
            0 => before.offset_ns,
            _ => {
                let share = (at_ns - before.at_ns) as f64 / span as f64;
                before.offset_ns
                    + ((after.offset_ns - before.offset_ns) as f64 * share.clamp(0.0, 1.0)) as i64
            }
        };
        let beyond = (first.at_ns - at_ns).max(at_ns - last.at_ns).max(0);
        let nearest = (at_ns - before.at_ns)
            .abs()
            .min((at_ns - after.at_ns).abs());
        let error_ns = before.error_ns.max(after.error_ns)
            + (after.offset_ns - before.offset_ns).abs() / 2
            + parts(beyond, UNKNOWN_PPM)
            + parts(nearest, self.drift.error_ppm);
        Some(ClockOffset {
            offset_ns: level + ((at_ns - self.began_ns) as f64 * self.drift.gain) as i64,
            error_ns,
        })
    }

    /// The best there is to bring the two files into one order: also from upper bounds alone.
    pub fn roughly_at(&self, at_ns: i64) -> Option<i64> {
        self.at(at_ns).map(|o| o.offset_ns).or(self.at_most_ns)
    }

    /// The same for a time of the server's clock.
    pub fn roughly_at_server(&self, server_ns: i64) -> Option<i64> {
        let first = self.roughly_at(server_ns)?;
        self.roughly_at(server_ns.saturating_sub(first))
    }

    /// How fast the server's clock gains on the client's, parts per million; `None` where it is not known.
    pub fn drift_ppm(&self) -> Option<f64> {
        let drift = self.drift;
        drift.is_measured().then_some(drift.gain * 1e6)
    }
}

/// The median slope between blocks of samples (Theil and Sen), from the middles of the narrower intervals.
fn drift(bounded: &[(i64, i64, i64)]) -> Drift {
    let mut widths: Vec<i64> = bounded.iter().map(|(_, l, h)| h - l).collect();
    widths.sort_unstable();
    let usual = widths[widths.len() / 2];
    let wide = usual.saturating_mul(2);
    let narrow: Vec<(i64, i64)> = bounded
        .iter()
        .filter(|(_, lowest, highest)| highest - lowest <= wide)
        .map(|(at, lowest, highest)| (*at, lowest + (highest - lowest) / 2))
        .collect();
    let size = narrow.len().div_ceil(BLOCKS).max(1);
    let blocks: Vec<(i64, i64)> = narrow
        .chunks(size)
        .map(|block| {
            let mut offsets: Vec<i64> = block.iter().map(|(_, offset)| *offset).collect();
            offsets.sort_unstable();
            let middle = block[0].0 + (block[block.len() - 1].0 - block[0].0) / 2;
            (middle, offsets[offsets.len() / 2])
        })
        .collect();
    let mut slopes = Vec::new();
    let mut longest_ns = 0;
    for (i, (at, offset)) in blocks.iter().enumerate() {
        for (later, then) in &blocks[i + 1..] {
            if later - at >= SHORTEST_NS {
                longest_ns = longest_ns.max(later - at);
                slopes.push((then - offset) as f64 / (later - at) as f64);
            }
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    // The middles of two intervals are off by half their width each.
    let error_ppm = match longest_ns {
        0 => UNMEASURED_PPM,
        _ => usual.saturating_mul(1_000_000) / longest_ns,
    };
    match slopes.get(slopes.len() / 2) {
        Some(gain) if error_ppm < UNMEASURED_PPM => Drift {
            gain: *gain,
            error_ppm,
        },
        _ => Drift::default(),
    }
}

/// `ppm` parts per million of a time; never negative.
fn parts(ns: i64, ppm: i64) -> i64 {
    ns.abs() / 1_000_000 * ppm
}

/// The interval that most of them have in common.
fn most_in_common(intervals: &[(i64, i64)]) -> (i64, i64) {
    let mut edges: Vec<(i64, bool)> = Vec::with_capacity(intervals.len() * 2);
    for (lowest, highest) in intervals {
        edges.push((*lowest, false));
        edges.push((*highest, true));
    }
    // At one value, intervals begin before others end: they touch.
    edges.sort_unstable();
    let (mut depth, mut best, mut found) = (0, 0, (0, 0));
    for (i, (at, ends)) in edges.iter().enumerate() {
        if *ends {
            depth -= 1;
            continue;
        }
        depth += 1;
        if depth > best {
            best = depth;
            let to = edges.get(i + 1).map_or(*at, |(to, _)| *to);
            found = (*at, to);
        }
    }
    found
}

/// How far off four of five intervals are at most: not at all, unless the drift changes within them.
fn apart(intervals: &[(i64, i64)], offset_ns: i64) -> i64 {
    let mut distances: Vec<i64> = intervals
        .iter()
        .map(|(lowest, highest)| (lowest - offset_ns).max(offset_ns - highest).max(0))
        .collect();
    distances.sort_unstable();
    distances[distances.len() * 4 / 5]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn run(samples: i64, offset: impl Fn(i64) -> i64) -> Vec<OffsetInterval> {
        (0..samples)
            .map(|i| {
                let at_ns = i * 100 * MS;
                // A round trip of 40 to 90 µs, unequal ways.
                let (there, back) = (15_000 + i * 7919 % 30_000, 25_000 + i * 104_729 % 20_000);
                OffsetInterval {
                    at_ns,
                    lowest_ns: Some(offset(at_ns) - back),
                    highest_ns: Some(offset(at_ns) + there),
                }
            })
            .collect()
    }

    fn error(model: &ClockModel, at_ns: i64, truth: i64) -> i64 {
        let at = model.at(at_ns).unwrap();
        assert!(
            (at.offset_ns - truth).abs() <= at.error_ns,
            "{at:?}, not {truth}"
        );
        at.error_ns
    }

    #[test]
    fn an_offset_of_hours_and_a_drift_are_found_within_the_bound() {
        let truth = |at: i64| 7_200_000 * MS + at / 10_000;
        let model = ClockModel::of(&run(600, truth));
        // Before the first node and after the last one the drift may have been another.
        for (at, most) in [(0, 400_000), (10_000 * MS, 60_000), (59_900 * MS, 400_000)] {
            let error = error(&model, at, truth(at));
            assert!(error < most, "{at}: {error}");
        }
        assert!((model.drift_ppm().unwrap() - 100.0).abs() < 5.0);
    }

    #[test]
    fn a_bent_drift_is_followed() {
        let truth = |at: i64| -3_000 * MS + (at - 300_000 * MS).abs() / 20_000;
        let model = ClockModel::of(&run(6000, truth));
        for at in [0, 100_000 * MS, 300_000 * MS, 599_000 * MS] {
            assert!(error(&model, at, truth(at)) < 1_000_000);
        }
    }

    /// Handshakes with a repeated SYN-ACK bound the offset to a second only: they tell of no drift.
    #[test]
    fn a_drift_that_was_not_measured_is_in_the_error() {
        let truth = |at: i64| 5_400_000 * MS + at * 12 / 100_000;
        let narrow = (0..10).map(|i| (i * 90 * MS, 20_000));
        let wide = (1..6).map(|i| (i * 2_500 * MS, 500 * MS));
        let samples = |all: Vec<(i64, i64)>| -> Vec<OffsetInterval> {
            all.into_iter()
                .map(|(at_ns, half)| OffsetInterval {
                    at_ns,
                    lowest_ns: Some(truth(at_ns) - half / 3),
                    highest_ns: Some(truth(at_ns) + half),
                })
                .collect()
        };
        for all in [
            narrow.clone().collect(),
            narrow.clone().chain(wide.clone()).collect(),
            narrow.take(2).chain(wide).collect(),
        ] {
            let model = ClockModel::of(&samples(all));
            assert_eq!(model.drift_ppm(), None);
            for at in [0, 800, 5_000, 12_500].map(|ms| ms * MS) {
                let error = error(&model, at, truth(at));
                assert!(error < 100_000 + at / 1000, "{at}: {error}");
            }
        }
    }

    #[test]
    fn a_few_false_samples_change_nothing() {
        let mut samples = run(100, |_| 5 * MS);
        for sample in samples.iter_mut().step_by(10) {
            sample.lowest_ns = Some(80 * MS);
            sample.highest_ns = Some(81 * MS);
        }
        let model = ClockModel::of(&samples);
        assert!(error(&model, 3_000 * MS, 5 * MS) < 60_000);
    }

    #[test]
    fn upper_bounds_alone_give_no_offset() {
        let samples = [OffsetInterval {
            at_ns: 0,
            lowest_ns: None,
            highest_ns: Some(9),
        }];
        let model = ClockModel::of(&samples);
        assert_eq!(model.at(0), None);
        assert_eq!(model.roughly_at(0), Some(9));
        assert_eq!(ClockModel::of(&[]).roughly_at(0), None);
    }
}
