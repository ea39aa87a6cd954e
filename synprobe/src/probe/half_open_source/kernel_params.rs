//! What the programs of the exact mode need to know about the running kernel.

use synprobe_ebpf::config::{
    DROP_FUNCTION, ENDING_FUNCTIONS, EXACT_DROP_FUNCTION, EXACT_HANDLER, EXACT_RANGES, EXACT_WORDS,
    RANGES_EACH,
};

use crate::probe::kallsyms::Places;

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
        let places = match Places::of_kernel() {
            Ok(places) => places,
            Err(error) => {
                log::info!("/proc/kallsyms: {error}: what ended a half-open is not known");
                return params;
            }
        };
        let begin = |name| places.ranges(name).first().map_or(0, |(begin, _)| *begin);
        params.0[EXACT_DROP_FUNCTION] = begin(DROP_FUNCTION);
        let [.., handler] = ENDING_FUNCTIONS;
        params.0[EXACT_HANDLER] = begin(handler);
        for (at, name) in ENDING_FUNCTIONS.iter().enumerate() {
            for (n, (begin, end)) in places.ranges(name).iter().take(RANGES_EACH).enumerate() {
                let word = EXACT_RANGES + (at * RANGES_EACH + n) * 2;
                (params.0[word], params.0[word + 1]) = (*begin, *end);
            }
        }
        params
    }
}
