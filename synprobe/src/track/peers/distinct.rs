//! How many different peers there were, where their number outgrows every table: a HyperLogLog sketch
//! (Apache DataSketches) for each role.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
};

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

/// See the module. `S` hashes: by default with a key of its own in each run, for those who choose
/// source addresses could else choose them so that few look like many, or many like few.
pub struct Distinct<S = RandomState> {
    sketch: Option<HllSketch>,
    hasher: S,
}

impl<S: BuildHasher + Default> Default for Distinct<S> {
    fn default() -> Self {
        Self {
            // The one error is a number of registers that the library does not know.
            sketch: HllSketch::new(REGISTERS, HllType::Hll8).ok(),
            hasher: S::default(),
        }
    }
}

impl<S: BuildHasher> Distinct<S> {
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
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::*;

    #[test]
    fn the_error_is_as_stated() {
        // Several keys, several sizes: how often the estimate lies within one, two, three of the
        // standard errors that it states for itself.
        let (mut runs, mut within) = (0, [0; 3]);
        for key in 0_u64..20 {
            let mut distinct = Distinct::<BuildHasherDefault<DefaultHasher>>::default();
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
        let mut distinct = Distinct::<RandomState>::default();
        assert_eq!(distinct.estimate(), Estimate::default());
        for n in 0..100 {
            distinct.add(n);
        }
        let Estimate { count, error } = distinct.estimate();
        assert!(count == 100 && error < 0.001, "{count} ± {error}");
    }
}
