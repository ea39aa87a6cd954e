//! How many different peers there were, where their number outgrows every table: a HyperLogLog sketch
//! (Apache DataSketches) for each role.

use std::hash::{BuildHasher, Hash};

use datasketches::{
    common::NumStdDev,
    hll::{HllSketch, HllType},
};

/// 2¹⁴ registers of a byte: 16 KiB, and a relative standard error of √(ln 2 / 2¹⁴) = 0.65 %.
const REGISTERS: u8 = 14;

/// A number of different things, and how well it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// How many.
    pub count: u64,
    /// Relative standard error; 0: the number is exact.
    pub error: f64,
}

/// Hashes with a key (SipHash): an attacker who chooses source addresses must not be able to choose the
/// estimate.
#[derive(Clone, Copy, Debug)]
struct Keyed(u64);

impl BuildHasher for Keyed {
    // Its replacement takes no key, and the same key must give the same estimate in a replay.
    #[allow(deprecated)]
    type Hasher = std::hash::SipHasher;

    #[allow(deprecated)]
    fn build_hasher(&self) -> Self::Hasher {
        std::hash::SipHasher::new_with_keys(self.0, !self.0)
    }
}

/// See the module.
pub struct Distinct {
    sketch: Option<HllSketch>,
    hasher: Keyed,
}

impl Distinct {
    /// Counts nothing yet.
    pub fn new(hash_seed: u64) -> Self {
        Self {
            // The one error is a number of registers that the library does not know.
            sketch: HllSketch::new(REGISTERS, HllType::Hll8).ok(),
            hasher: Keyed(hash_seed),
        }
    }

    /// Takes one in; again makes no difference.
    pub fn add(&mut self, value: impl Hash) {
        if let Some(sketch) = &mut self.sketch {
            sketch.update(self.hasher.hash_one(value));
        }
    }

    /// How many there were.
    pub fn estimate(&self) -> Estimate {
        let Some(sketch) = self.sketch.as_ref().filter(|s| !s.is_empty()) else {
            return Estimate::default();
        };
        let count = sketch.estimate();
        Estimate {
            count: count.round() as u64,
            // The library's own word on its error: one standard deviation.
            error: count / sketch.lower_bound(NumStdDev::One) - 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_as_stated() {
        // Several keys, several sizes: how often the estimate lies within one, two, three of the
        // standard errors that it states for itself.
        let (mut runs, mut within) = (0, [0; 3]);
        for key in 0_u64..20 {
            let mut distinct = Distinct::new(7);
            let mut n = 0_u64;
            for size in [20_000, 50_000] {
                while n < size {
                    distinct.add((key, n));
                    distinct.add((key, n / 2));
                    n += 1;
                }
                let Estimate { count, error } = distinct.estimate();
                assert!((0.006..0.007).contains(&error), "{error}");
                let off = count.abs_diff(size) as f64 / size as f64;
                runs += 1;
                for (sigmas, within) in within.iter_mut().enumerate() {
                    *within += u32::from(off <= (sigmas as f64 + 1.0) * error);
                }
            }
        }
        assert_eq!(within[2], runs, "{within:?} of {runs}");
        assert!(within[1] >= runs * 85 / 100, "{within:?} of {runs}");
        assert!(
            (runs / 2..runs).contains(&within[0]),
            "{within:?} of {runs}"
        );
    }

    #[test]
    fn few_are_counted() {
        let mut distinct = Distinct::new(1);
        assert_eq!(distinct.estimate(), Estimate::default());
        for n in 0..100 {
            distinct.add(n);
        }
        let Estimate { count, error } = distinct.estimate();
        assert!(count == 100 && error < 0.001, "{count} ± {error}");
    }
}
