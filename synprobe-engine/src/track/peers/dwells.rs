//! The dwells of one peer, small enough for many thousand peers. A few are kept as they are. More are counted
//! in buckets, of which only the non-empty ones exist.

/// Dwells kept as they are, at most.
const FEW: usize = 8;
/// Buckets of one power of two, as a power of two: the middle of a bucket is off by 1/128 at the most
/// (0.8 %), and below 2⁷ each value has its own.
const SUB_BITS: u32 = 6;

/// See the module.
#[derive(Debug)]
pub enum Dwells {
    /// As they came, microseconds.
    Few(Vec<u64>),
    /// Bucket and count, by bucket.
    Many(Vec<(u16, u32)>),
}

impl Default for Dwells {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Dwells {
    /// One more, microseconds.
    pub fn add(&mut self, us: u64) {
        match self {
            Self::Few(values) if values.len() < FEW => values.push(us),
            Self::Few(values) => {
                let mut buckets = Vec::new();
                values.iter().for_each(|v| count(&mut buckets, *v));
                count(&mut buckets, us);
                *self = Self::Many(buckets);
            }
            Self::Many(buckets) => count(buckets, us),
        }
    }

    /// The smallest dwell that at least the share `q` (0 to 1) of all does not exceed, microseconds:
    /// exact for few, off by 0.8 % at the most for many. `None` where there is none.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = |total: u64| ((q * total as f64).ceil() as u64).clamp(1, total);
        match self {
            Self::Few(values) if values.is_empty() => None,
            Self::Few(values) => {
                let mut sorted = values.clone();
                sorted.sort_unstable();
                let at = rank(sorted.len() as u64) - 1;
                sorted.get(at as usize).copied()
            }
            Self::Many(buckets) => {
                let total = buckets.iter().map(|(_, n)| u64::from(*n)).sum();
                let rank = rank(total);
                let mut passed = 0;
                let found = buckets.iter().find(|(_, n)| {
                    passed += u64::from(*n);
                    passed >= rank
                });
                found.map(|(bucket, _)| middle(*bucket))
            }
        }
    }
}

fn count(buckets: &mut Vec<(u16, u32)>, us: u64) {
    let bucket = bucket(us);
    let at = match buckets.binary_search_by_key(&bucket, |(b, _)| *b) {
        Ok(at) => at,
        Err(at) => {
            buckets.insert(at, (bucket, 0));
            at
        }
    };
    if buckets[at].1 == u32::MAX {
        // Quantiles are shares: they stay, and a bucket that holds something goes on holding it.
        buckets.iter_mut().for_each(|(_, n)| *n = n.div_ceil(2));
    }
    buckets[at].1 += 1;
}

/// The power of two and the bits below its first.
fn bucket(us: u64) -> u16 {
    let shift = us.max(1).ilog2().saturating_sub(SUB_BITS);
    ((u64::from(shift) << SUB_BITS) + (us >> shift)) as u16
}

fn middle(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let low = (bucket - (shift << SUB_BITS)) << shift;
    low + ((1 << shift) - 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By definition: sort and count.
    fn exact(values: &[u64], q: f64) -> u64 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let within = |v: &&u64| {
            let share = sorted.iter().filter(|w| w <= v).count() as f64 / sorted.len() as f64;
            share >= q
        };
        *sorted.iter().find(within).unwrap()
    }

    #[test]
    fn a_bucket_s_middle_is_within_one_percent_of_all_it_holds() {
        for shift in 0..64 {
            for offset in [0_u64, 1, 2, 3, 63, 64, 65, 1 << 20, u64::MAX / 3, u64::MAX] {
                let us = (1_u64 << shift) | (offset & ((1 << shift) - 1));
                let off = middle(bucket(us)).abs_diff(us) as f64 / us as f64;
                assert!(off <= 1.0 / 128.0, "{us} µs is off by {off}");
            }
        }
        assert_eq!(middle(bucket(0)), 0);
        for us in 0..128 {
            assert_eq!(middle(bucket(us)), us);
        }
    }

    #[test]
    fn buckets_rise_with_what_they_hold() {
        let mut last = bucket(0);
        for us in 1..200_000 {
            let b = bucket(us);
            assert!(b == last || b == last + 1, "{us}: {last} and then {b}");
            last = b;
        }
    }

    #[test]
    fn quantiles_are_exact_for_few_and_within_one_percent_for_many() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // From a microsecond to two minutes, evenly over the magnitudes.
            (1 << (seed % 27)) + (seed >> 32) % (1 << (seed % 27))
        };
        let (mut dwells, mut values) = (Dwells::default(), Vec::new());
        assert_eq!(dwells.quantile(0.5), None);
        for n in 1..=2000 {
            let us = random();
            dwells.add(us);
            values.push(us);
            if n > 20 && n % 97 != 0 {
                continue;
            }
            for q in [0.5, 0.99] {
                let (said, is) = (dwells.quantile(q).unwrap(), exact(&values, q));
                let off = said.abs_diff(is) as f64 / is as f64;
                let allowed = if n <= FEW { 0.0 } else { 0.01 };
                assert!(off <= allowed, "{n} values, {q}: {said}, not {is}");
            }
        }
    }

    #[test]
    fn a_full_bucket_leaves_the_quantiles_alone() {
        let mut buckets = vec![(bucket(100), u32::MAX), (bucket(5000), u32::MAX), (3000, 1)];
        count(&mut buckets, 100);
        let dwells = Dwells::Many(buckets);
        assert_eq!(dwells.quantile(0.5), Some(100));
        assert_eq!(dwells.quantile(0.99), Some(middle(bucket(5000))));
        assert_eq!(dwells.quantile(1.0), Some(middle(3000)), "still there");
    }
}
