//! What the kernel side has only counted (the quiet mode).

use std::collections::BTreeMap;

use super::Run;
use crate::{engine::Input, pipeline::WatchError};

impl Run {
    /// The counts so far, all CPUs together: one input for each role and port.
    pub(super) fn completed(&self) -> Result<Vec<Input>, WatchError> {
        let mut sums = BTreeMap::new();
        for (role, port, counts, sum_us) in self.probes.counted()? {
            let sum: &mut Vec<u64> = sums.entry((role, port)).or_default();
            sum.resize(counts.len() + 1, 0);
            for (sum, count) in sum.iter_mut().zip(counts.into_iter().chain([sum_us])) {
                *sum += count;
            }
        }
        Ok(sums
            .into_iter()
            .map(|((role, port), counts)| Input::Completed(role, port, counts))
            .collect())
    }
}
