//! What ended a half-open, from the functions on the kernel stack. Evaluated only where a half-open ended
//! without becoming a connection, never for a healthy handshake.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_stack;
use synprobe_ebpf::{
    config::{ENDING_FUNCTIONS, EXACT_DROP_FUNCTION, EXACT_RANGES, EXACT_WORDS, RANGES_EACH},
    event::ENDED_BY_UNKNOWN,
};

use crate::{kread::Kptr, maps::EXACT};

/// Frames that are examined. From the timer's tracepoint to `tcp_check_req()` there are nine.
const DEPTH: usize = 16;

/// Length of a function's entry: an `endbr64` and the call by which a program is attached, bytes.
const ENTRY: u64 = 9;

/// A setting of the exact mode, by an `EXACT_*` index of `config`.
#[inline(always)]
pub fn setting(index: usize) -> u64 {
    if index >= EXACT_WORDS {
        return 0;
    }
    let words: *const u64 = (&raw const EXACT).cast();
    // SAFETY: the index was checked. Volatile, because the loader rewrites the settings.
    unsafe { words.add(index).read_volatile() }
}

/// An `ENDED_BY_*`: which of [`ENDING_FUNCTIONS`] is the innermost on the stack.
#[inline(always)]
pub fn of(ctx: *mut c_void) -> u8 {
    let mut stack = [0_u64; DEPTH];
    // SAFETY: the helper writes at most the given length of the buffer.
    let got = unsafe {
        bpf_get_stack(
            ctx,
            stack.as_mut_ptr().cast(),
            size_of_val(&stack) as u32,
            0,
        )
    };
    if got <= 0 {
        return ENDED_BY_UNKNOWN;
    }
    for address in stack {
        let ended_by = at(address);
        if ended_by != ENDED_BY_UNKNOWN {
            return ended_by;
        }
    }
    ENDED_BY_UNKNOWN
}

/// As [`of`], at the exit of `inet_csk_reqsk_queue_drop()`. Checks the function's caller first, which is
/// cheaper than a stack walk. A kernel that unwinds by frame pointers (CONFIG_UNWINDER_FRAME_POINTER, as
/// Ubuntu's) omits that caller, because the function has no frame yet.
#[inline(always)]
pub fn of_dropped(ctx: *mut c_void) -> u8 {
    match caller(ctx) {
        ENDED_BY_UNKNOWN => of(ctx),
        known => known,
    }
}

/// What the function returns to. On x86-64, from 5.10 to 7.2, these follow a function's two arguments on
/// the stack: its return value, its caller's frame pointer, and its return address. Where the kernel calls
/// the trampoline instead of jumping to it (as 7.2 does), the return address into the function comes
/// before that (`arch_prepare_bpf_trampoline()`).
#[inline(always)]
fn caller(ctx: *mut c_void) -> u8 {
    let above = Kptr::new(ctx as u64 + 4 * size_of::<u64>() as u64);
    let Ok([first, second]) = above.read::<[u64; 2]>(0) else {
        return ENDED_BY_UNKNOWN;
    };
    let into = first.wrapping_sub(setting(EXACT_DROP_FUNCTION));
    at(if into <= ENTRY { second } else { first })
}

/// Which of [`ENDING_FUNCTIONS`] contains the address.
#[inline(always)]
fn at(address: u64) -> u8 {
    let mut place = 0;
    while place < ENDING_FUNCTIONS.len() * RANGES_EACH {
        let range = EXACT_RANGES + place * 2;
        if address >= setting(range) && address < setting(range + 1) {
            return (place / RANGES_EACH) as u8 + 1;
        }
        place += 1;
    }
    ENDED_BY_UNKNOWN
}
