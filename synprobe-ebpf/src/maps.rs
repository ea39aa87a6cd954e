//! Every map and every read-only global, each with its reason.

use aya_ebpf::{
    btf_maps::{LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};
