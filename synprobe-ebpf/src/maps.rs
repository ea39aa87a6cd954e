//! All maps and read-only globals.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, LpmTrie, PerCpuArray, RingBuf},
};
use synprobe_ebpf::{
    config::{
        ALL_REASON_WORDS, EXACT_WORDS, Filter, MEMBERS, MISSING, Offsets, PORT_WORDS,
        REFUSING_WORDS,
    },
    event::RequestRecord,
    histogram::{AcceptHistogram, Histogram, OTHERS, SLOTS},
    stats::{STATS_SLOTS, Stats},
};

/// The ring buffer of all records, in the order of their reservation. The loader sets its size
/// (`--ring-size`).
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Counters per CPU. A program and its stand-in have separate slots, so that counting needs no atomics.
#[map]
pub static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(STATS_SLOTS, 0);

/// 1 while the program on `inet_sock_set_state` runs on this CPU, otherwise 0.
#[map]
pub static SET_STATE_RUNNING: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Peer networks of the filter (`--peer`). IPv4 networks are `::ffff:a.b.c.d/96+n`, so one lookup serves
/// both families. The loader sets the size. Unused without `--peer`.
#[map]
pub static PEERS: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(1024, 0);

/// The `drop` records that this CPU wrote in the current second, by [`OF_SELECTION`] and so on. Limits the records
/// of a drop storm.
#[map]
pub static DROP_SECOND: PerCpuArray<RecordSecond> = PerCpuArray::with_max_entries(6, 0);
/// Of packets of the selection.
pub const OF_SELECTION: u32 = 0;
/// Of packets with a port of the selection, in another namespace or another role: this host may forward them.
pub const OF_ITS_PORTS: u32 = 1;
/// Of all others.
pub const OF_OTHERS: u32 = 2;
/// Of SYNs of the selection that found no socket: a port scan must not hide what this host drops.
pub const OF_NO_SOCKET: u32 = 3;
/// Of all others that found none.
pub const OF_OTHERS_NO_SOCKET: u32 = 4;
/// Of frames for another station.
pub const OF_OTHER_STATIONS: u32 = 5;

/// The same of early resets. Limits the records of a flood of RSTs.
#[map]
pub static RESET_SECOND: PerCpuArray<RecordSecond> = PerCpuArray::with_max_entries(1, 0);

/// Records of the current second.
#[repr(C)]
pub struct RecordSecond {
    /// Start of the second, CLOCK_MONOTONIC nanoseconds.
    pub began_ns: u64,
    /// Records since then.
    pub records: u64,
}

/// Healthy handshakes in quiet mode, by role and port, per CPU. An array, because CPUs would contend for
/// the buckets of a hash map.
#[map]
pub static HISTOGRAMS: PerCpuArray<Histogram> = PerCpuArray::with_max_entries(SLOTS + OTHERS, 0);

/// How long connections waited for accept(), by namespace and port, per CPU; the last slot has the ports without
/// one of their own. Where accept() is not watched the loader makes it small.
#[map]
pub static ACCEPT_WAITS: PerCpuArray<AcceptHistogram> = PerCpuArray::with_max_entries(SLOTS + 1, 0);

/// The last caller of connect() in quiet mode, by a hash of the socket's address. An array, so that no
/// entry has to be removed and the size is fixed.
#[map]
pub static CALLERS: Array<ConnectCaller> = Array::with_max_entries(CALLER_SLOTS, 0);

/// The last caller whose socket hashes to this slot.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ConnectCaller {
    /// Checksum that binds it to its socket (`connect_callers::sealed`).
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

/// Slots of [`CALLERS`], a power of two: about the number of connects in progress.
pub const CALLER_SLOTS: u32 = 8192;

/// State that the exact mode's programs share on one CPU during one packet or one timeout.
#[map]
pub static REQUEST_SCRATCH: PerCpuArray<RequestScratch> = PerCpuArray::with_max_entries(1, 0);

/// See [`REQUEST_SCRATCH`].
#[repr(C)]
pub struct RequestScratch {
    /// The child created last. The end of its request is no failure.
    pub child: u64,
    /// The request timer whose function is running.
    pub timer: u64,
    /// Its request at the start of the function; afterwards it may be freed.
    pub request: RequestRecord,
    /// The SYN being processed.
    pub syn: u64,
    /// `sk_drops` of its listener before processing.
    pub drops: u32,
    /// A `QUEUE_*`, before processing.
    pub queue: u32,
}

/// The exact mode's settings: the `EXACT_*` indices of `config`.
#[unsafe(no_mangle)]
pub static EXACT: Global<[u64; EXACT_WORDS]> = Global::new([0; EXACT_WORDS]);

/// Offsets of members in the running kernel.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets::from_array([MISSING; MEMBERS.len()]));

/// The filter.
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

/// Three port bitmaps (`PORTS_EITHER`, `PORTS_LOCAL`, `PORTS_PEER`). A test is one load, however many
/// ports are listed.
#[unsafe(no_mangle)]
pub static PORTS: Global<[u64; 3 * PORT_WORDS]> = Global::new([0; 3 * PORT_WORDS]);

/// Where packets are freed without a reason that this host does not deliver: start and end of each range.
#[unsafe(no_mangle)]
pub static REFUSING: Global<[u64; REFUSING_WORDS]> = Global::new([0; REFUSING_WORDS]);

/// Bitmaps of drop reasons (`REASONS_WANTED` and so on), in the running kernel's numbers.
#[unsafe(no_mangle)]
pub static REASONS: Global<[u64; ALL_REASON_WORDS]> = Global::new([0; ALL_REASON_WORDS]);
