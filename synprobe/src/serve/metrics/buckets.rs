//! The buckets of the handshakes' durations. Each bound is one of the kernel side's buckets
//! (`synprobe_ebpf::histogram`), so that no handshake is counted in a wrong one.

use synprobe_ebpf::histogram::{BUCKETS, bucket};

use super::family::Value;
use crate::engine::{LONG_US, PortTotals};

/// Upper bounds, microseconds: by powers of two up to 262 ms. Above, each lies between two retransmissions of a
/// SYN or SYN-ACK (at 1, 3, 7, 15, 31 s). After them comes [`LONG_US`], before 63 s.
const BOUNDS_US: [u32; 19] = [
    32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144,
    917_504, 2_621_440, 6_291_456, 14_680_064, LAST_US,
];

/// The kernel side's last bucket begins here, and includes all longer times.
const LAST_US: u32 = 7 << 22;

/// Series of one histogram: [`LONG_US`], infinity, sum and count beside the bounds.
pub(super) const SERIES: usize = BOUNDS_US.len() + 4;

/// Series of a histogram of waits for accept(): the same without [`LONG_US`].
pub(super) const OF_WAITS: usize = SERIES - 1;

/// The histogram of waits that were counted by the kernel side's buckets; `sum_us`: the waits together.
pub(super) fn waits(counts: &[u64; BUCKETS], sum_us: u64) -> Value {
    let (mut buckets, rest) = up_to_last(counts);
    buckets.push((f64::INFINITY, rest));
    Value::Histogram {
        sum: sum_us as f64 / 1e6,
        count: counts.iter().sum(),
        buckets,
    }
}

/// How many are in each bucket of [`BOUNDS_US`], and how many are beyond.
fn up_to_last(counts: &[u64; BUCKETS]) -> (Vec<(f64, u64)>, u64) {
    let mut buckets = Vec::with_capacity(SERIES - 2);
    let mut from = 0;
    for us in BOUNDS_US {
        let to = bucket(us);
        buckets.push((f64::from(us) / 1e6, counts[from..to].iter().sum()));
        from = to;
    }
    (buckets, counts[from..].iter().sum())
}

/// The histogram of these handshakes.
pub(super) fn histogram(totals: &PortTotals) -> Value {
    let counts: &[u64; BUCKETS] = &totals.durations;
    let (mut buckets, rest) = up_to_last(counts);
    buckets.push((LONG_US as f64 / 1e6, rest.saturating_sub(totals.long)));
    buckets.push((f64::INFINITY, totals.long.min(rest)));
    Value::Histogram {
        sum: totals.duration_sum_us as f64 / 1e6,
        count: counts.iter().sum(),
        buckets,
    }
}

#[cfg(test)]
mod tests {
    use synprobe_ebpf::histogram::from_us;

    use super::*;

    #[test]
    fn every_bound_is_one_of_the_kernel_sides() {
        for us in BOUNDS_US {
            assert_eq!(from_us(bucket(us)), us);
        }
        assert!(BOUNDS_US.is_sorted());
    }

    #[test]
    fn each_wait_is_in_the_bucket_of_its_bound() {
        let mut counts = [0; BUCKETS];
        counts[bucket(50)] = 2;
        counts[bucket(40_000_000)] = 1;
        let Value::Histogram {
            sum,
            count,
            buckets,
        } = waits(&counts, 40_000_100)
        else {
            panic!("no histogram");
        };
        assert_eq!((sum, count, buckets.len() + 2), (40.000_1, 3, OF_WAITS));
        assert_eq!(buckets[1], (0.000_064, 2));
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 1)));
    }

    #[test]
    fn each_time_is_in_the_bucket_of_its_bound() {
        let infinity = f64::INFINITY;
        let times = [
            (31, 0.000_032),
            (50, 0.000_064),
            (1_020_000, 2.621_44),
            (31_100_000, 58.720_256),
            (63_000_000, infinity),
        ];
        for (us, bound) in times {
            let mut totals = PortTotals::default();
            totals.durations[bucket(us)] = 1;
            totals.long = u64::from(u64::from(us) >= LONG_US);
            let Value::Histogram { buckets, count, .. } = histogram(&totals) else {
                panic!("no histogram");
            };
            assert_eq!(count, 1);
            assert_eq!(buckets.len() + 2, SERIES);
            let (at, _) = buckets.iter().find(|(_, n)| *n == 1).unwrap();
            assert_eq!(*at, bound, "{us}");
        }
    }
}
