//! Who ended a half-open: the functions on the kernel's stack tell. Asked only where one has ended
//! without becoming a connection, never on a healthy handshake's way.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_stack;
use synprobe_ebpf::{
    config::{EXACT_RANGES, EXACT_WORDS, HOW_FUNCTIONS, PLACES_EACH},
    event::HOW_UNKNOWN,
};

use crate::maps::EXACT;

/// Frames that are looked at: from the tracepoint of the timer to `tcp_check_req()` there are nine.
const DEPTH: usize = 16;

/// One of the exact mode's settings: an `EXACT_*` index of `config`.
#[inline(always)]
pub fn setting(index: usize) -> u64 {
    if index >= EXACT_WORDS {
        return 0;
    }
    let words: *const u64 = (&raw const EXACT).cast();
    // SAFETY: the index was checked. Volatile, because the loader rewrites the settings.
    unsafe { words.add(index).read_volatile() }
}

/// A `HOW_*`: which of [`HOW_FUNCTIONS`] is the innermost on the stack.
#[inline(always)]
pub fn of(ctx: *mut c_void) -> u8 {
    let mut stack = [0_u64; DEPTH];
    // SAFETY: the buffer is as long as is said; the helper writes no further.
    let got = unsafe {
        bpf_get_stack(
            ctx,
            stack.as_mut_ptr().cast(),
            size_of_val(&stack) as u32,
            0,
        )
    };
    if got <= 0 {
        return HOW_UNKNOWN;
    }
    for address in stack {
        let mut place = 0;
        while place < HOW_FUNCTIONS.len() * PLACES_EACH {
            let range = EXACT_RANGES + place * 2;
            if address >= setting(range) && address < setting(range + 1) {
                return (place / PLACES_EACH) as u8 + 1;
            }
            place += 1;
        }
    }
    HOW_UNKNOWN
}
