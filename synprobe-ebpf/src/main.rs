//! The eBPF object: entry points in [`probes`], shared code in the other modules.
#![no_std]
#![no_main]
// The target has no atomic types, but it has the instruction.
#![feature(core_intrinsics)]
#![allow(internal_features)]

mod connect_callers;
mod count_healthy;
mod emit;
mod ended_by;
mod filter;
mod kread;
mod maps;
mod probes;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The kernel offers helpers such as bpf_probe_read_kernel only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
