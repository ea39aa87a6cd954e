//! What the programs of the exact mode need to know about the running kernel.

use synprobe_ebpf::config::{
    DROP_FUNCTION, ENDING_FUNCTIONS, EXACT_DROP_FUNCTION, EXACT_HANDLER, EXACT_RANGES, EXACT_WORDS,
    RANGES_EACH,
};

use crate::probe::kallsyms;

/// The words of the `EXACT` global: see the `EXACT_*` indices of [`synprobe_ebpf::config`].
#[derive(Clone, Copy, Debug)]
pub struct KernelParams(pub [u64; EXACT_WORDS]);

impl Default for KernelParams {
    fn default() -> Self {
        Self([0; EXACT_WORDS])
    }
}

impl KernelParams {
    /// With the addresses of the kernel's functions; 0 where the kernel hides them.
    pub(super) fn of_kernel() -> Self {
        let mut params = Self::default();
        // One pass: the list is long.
        match kallsyms::places(&[&ENDING_FUNCTIONS[..], &[DROP_FUNCTION]].concat()) {
            Ok(mut all) => {
                let begin = |ranges: Option<&Vec<(u64, u64)>>| {
                    let first = ranges.and_then(|ranges| ranges.first());
                    first.map_or(0, |(begin, _)| *begin)
                };
                params.0[EXACT_DROP_FUNCTION] = begin(all.pop().as_ref());
                for (at, ranges) in all.iter().enumerate() {
                    for (n, (begin, end)) in ranges.iter().take(RANGES_EACH).enumerate() {
                        let word = EXACT_RANGES + (at * RANGES_EACH + n) * 2;
                        (params.0[word], params.0[word + 1]) = (*begin, *end);
                    }
                }
                params.0[EXACT_HANDLER] = begin(all.last());
            }
            Err(error) => {
                log::info!("/proc/kallsyms: {error}: what ended a half-open is not known")
            }
        }
        params
    }
}
