//! Who ended a half-open: the functions on the kernel's stack tell. Asked only where one has ended
//! without becoming a connection, never on a healthy handshake's way.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_stack;
use synprobe_ebpf::{
    config::{EXACT_DROPPED, EXACT_RANGES, EXACT_WORDS, HOW_FUNCTIONS, PLACES_EACH},
    event::HOW_UNKNOWN,
};

use crate::{kread::Kptr, maps::EXACT};

/// Frames that are looked at: from the tracepoint of the timer to `tcp_check_req()` there are nine.
const DEPTH: usize = 16;

/// Bytes of a function up to behind the call that a program is attached by: that, and an `endbr64`
/// before it.
const ENTRY: u64 = 9;

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
        let how = at(address);
        if how != HOW_UNKNOWN {
            return how;
        }
    }
    HOW_UNKNOWN
}

/// Likewise behind the end of `inet_csk_reqsk_queue_drop()`. Who has called it is asked first: a kernel
/// that goes by frame pointers (CONFIG_UNWINDER_FRAME_POINTER, as Ubuntu's) leaves out the caller of a
/// function that a program is attached to, for that one has set up no frame yet; and to walk the stack
/// costs more.
#[inline(always)]
pub fn of_dropped(ctx: *mut c_void) -> u8 {
    match caller(ctx) {
        HOW_UNKNOWN => of(ctx),
        how => how,
    }
}

/// What the function returns to. On x86-64, from 5.10 to 7.2, there lie above a function's two arguments:
/// what it has returned, its caller's frame pointer, the way back into the function where the kernel
/// calls the trampoline instead of jumping to it (as 7.2 does), and the way back into its caller
/// (`arch_prepare_bpf_trampoline()`).
#[inline(always)]
fn caller(ctx: *mut c_void) -> u8 {
    let above = Kptr::new(ctx as u64 + 4 * size_of::<u64>() as u64);
    let Ok([first, second]) = above.read::<[u64; 2]>(0) else {
        return HOW_UNKNOWN;
    };
    let into = first.wrapping_sub(setting(EXACT_DROPPED));
    at(if into <= ENTRY { second } else { first })
}

/// Which of [`HOW_FUNCTIONS`] is at the address.
#[inline(always)]
fn at(address: u64) -> u8 {
    let mut place = 0;
    while place < HOW_FUNCTIONS.len() * PLACES_EACH {
        let range = EXACT_RANGES + place * 2;
        if address >= setting(range) && address < setting(range + 1) {
            return (place / PLACES_EACH) as u8 + 1;
        }
        place += 1;
    }
    HOW_UNKNOWN
}
