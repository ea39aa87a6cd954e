//! Every map and every read-only global, each with its reason.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, LpmTrie, PerCpuArray, RingBuf},
};
use synprobe_ebpf::{
    config::{ALL_REASON_WORDS, EXACT_WORDS, Filter, MEMBERS, MISSING, Offsets, PORT_WORDS},
    event::RequestRecord,
    histogram::{Histogram, OTHERS, SLOTS},
    stats::{STATS_SLOTS, Stats},
};

/// The one way out: every record, in the order in which the kernel made them. The loader sets its
/// size (`--ring-size`).
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// What was produced, what did not fit, what could not be read: per CPU, and for a program and its
/// stand-in each a slot of its own, so that counting needs no atomics.
#[map]
pub static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(STATS_SLOTS, 0);

/// 1 while the program on `inet_sock_set_state` is at work on this CPU, else 0.
#[map]
pub static AT_WORK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Peer networks that are let through (`--peer`), IPv4 as `::ffff:a.b.c.d/96+n`: one look-up serves
/// both families. The loader sets its size; unused without `--peer`.
#[map]
pub static PEERS: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(1024, 0);

/// How many `drop` records this CPU has written in its present second: what keeps a storm of drops
/// from becoming a storm of records.
#[map]
pub static DROP_SECOND: PerCpuArray<DropSecond> = PerCpuArray::with_max_entries(1, 0);

/// See [`DROP_SECOND`].
#[repr(C)]
pub struct DropSecond {
    /// When it began, CLOCK_MONOTONIC nanoseconds.
    pub began_ns: u64,
    /// Records since.
    pub records: u64,
}

/// Healthy handshakes of the quiet mode, by role and port, per CPU: an array and no hash map, whose
/// buckets CPUs would contend for.
#[map]
pub static HISTOGRAMS: PerCpuArray<Histogram> = PerCpuArray::with_max_entries(SLOTS + OTHERS, 0);

/// Who called connect() last, by a hash of the socket's address: the quiet mode's memory, an array, so
/// that nothing has to be taken out again and nothing grows.
#[map]
pub static CALLERS: Array<Caller> = Array::with_max_entries(CALLER_SLOTS, 0);

/// The last caller whose socket's address leads to this slot.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Caller {
    /// Binds it to its socket (`callers::sealed`).
    pub seal: u64,
    /// Its cgroup v2 id.
    pub cgroup: u64,
    /// Its `comm`, NUL-padded.
    pub comm: [u64; 2],
    /// Its process (thread group) id.
    pub tgid: u64,
    /// When connect() was called, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
}

/// Slots of [`CALLERS`], a power of two: connects under way at a time, about.
pub const CALLER_SLOTS: u32 = 8192;

/// What the exact mode's programs tell each other on one CPU, within one packet or one time-out.
#[map]
pub static EXACT_NOTES: PerCpuArray<ExactNotes> = PerCpuArray::with_max_entries(1, 0);

/// See [`EXACT_NOTES`].
#[repr(C)]
pub struct ExactNotes {
    /// The child that was made last: what ends its request is no failure.
    pub child: u64,
    /// The request's timer whose function runs.
    pub timer: u64,
    /// Its request as it was when the function began: afterwards it may be freed.
    pub request: RequestRecord,
    /// The SYN that is dealt with.
    pub syn: u64,
    /// `sk_drops` of its listener before.
    pub drops: u32,
    /// A `QUEUE_*`, before.
    pub queue: u32,
}

/// The exact mode's settings: the `EXACT_*` indices of `config`.
#[unsafe(no_mangle)]
pub static EXACT: Global<[u64; EXACT_WORDS]> = Global::new([0; EXACT_WORDS]);

/// Where the running kernel keeps its members.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets::from_array([MISSING; MEMBERS.len()]));

/// What to let through.
#[unsafe(no_mangle)]
pub static FILTER: Global<Filter> = Global::new(Filter {
    netns: 0,
    netns_too: 0,
    role: 0,
    ports: 0,
    peers: 0,
    all_states: 0,
    unbound: 0,
    slow_us: 0,
    stand_in: 0,
});

/// Three port bitmaps (`PORTS_EITHER`, `PORTS_LOCAL`, `PORTS_PEER`): one load for one port or for
/// thousands.
#[unsafe(no_mangle)]
pub static PORTS: Global<[u64; 3 * PORT_WORDS]> = Global::new([0; 3 * PORT_WORDS]);

/// Three bitmaps of drop reasons (`REASONS_WANTED`, `REASONS_INCOMING`, `REASONS_HALF_OPEN`), by the
/// running kernel's numbers.
#[unsafe(no_mangle)]
pub static REASONS: Global<[u64; ALL_REASON_WORDS]> = Global::new([0; ALL_REASON_WORDS]);
