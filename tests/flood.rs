//! The peer table with a million spoofed sources and two hundred real ones with problems: what it keeps, its
//! memory, and its estimate of the number of sources. Needs no kernel: the handshakes are generated.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicUsize, Ordering},
};

use synprobe::{
    model::{
        Confidence, Connection, DwellSource, Facts, Family, Handshake, Outcome, RetransmitKind,
        Role,
    },
    track::peers::Peers,
    util::table_bounds::TableBounds,
};

/// The system's allocator, counting.
struct Counting;

/// Bytes in use, as asked for.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// The most of them that there were.
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SPOOFED: u32 = 1_000_000;
const REAL: u32 = 200;
/// Largest that the tables may be: docs/performance.md.
const BOUND_BYTES: usize = 16 << 20;

fn handshake() -> Handshake {
    Handshake {
        connection: Connection {
            id: 1,
            role: Role::Server,
            family: Family::Ipv4,
            v4_mapped: false,
            local_addr: Ipv4Addr::LOCALHOST.into(),
            local_port: Some(80),
            peer_addr: Ipv4Addr::LOCALHOST.into(),
            peer_port: Some(1024),
            netns: 1,
            netns_name: None,
            pid: None,
            comm: None,
            cgroup: None,
            workload: Default::default(),
        },
        outcome: Outcome::Expired,
        open_reason: None,
        dwell_us: Some(63_000_000),
        dwell_source: Some(DwellSource::SockDiag),
        dwell_error_us: None,
        dwell_at_least_us: None,
        retransmits: 5,
        retransmits_by_peer: 0,
        error: None,
        verdict: None,
        confidence: Confidence::Insufficient,
        evidence: Vec::new(),
        remedy: None,
        gaps_us: Vec::new(),
        facts: Facts::default(),
    }
}

fn spoofed(n: u32) -> IpAddr {
    // An odd factor visits each number of 30 bits once.
    Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1) & 0x3fff_ffff | 0x8000_0000).into()
}

fn real(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

/// Of one real peer.
#[derive(Debug, Default, PartialEq, Eq)]
struct FloodTally {
    attempts: u64,
    established: u64,
    failed: u64,
    synacks: u64,
    largest_us: u64,
}

// One test in this file: another beside it would allocate too.
#[test]
fn a_million_spoofed_sources_do_not_hide_the_real_ones() {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut tallies: HashMap<IpAddr, FloodTally> = HashMap::new();
    let mut peers = Peers::new(&TableBounds::default(), 7);
    let mut h = handshake();
    let (mut handed, mut again) = (0_u64, 0_u64);
    for n in 0..SPOOFED {
        h.connection.peer_addr = spoofed(n);
        (h.outcome, h.dwell_us) = (Outcome::Expired, Some(63_000_000));
        peers.ended(&h);
        handed += 1;
        if n % 16 == 0 {
            peers.retransmitted(spoofed(n), Role::Server, RetransmitKind::Synack, 2);
            again += 2;
        }
        if n % 100 != 0 {
            continue;
        }
        // Ten thousand handshakes of real peers among them, every other one in vain.
        let turn = n / 100;
        let addr = real(turn % REAL);
        let tally = tallies.entry(addr).or_default();
        h.connection.peer_addr = addr;
        let us = u64::from(turn) * 997 % 900_000 + 1;
        h.dwell_us = Some(us);
        if (turn / REAL).is_multiple_of(2) {
            h.outcome = Outcome::Established;
            tally.established += 1;
        } else {
            h.outcome = Outcome::Reset;
            tally.failed += 1;
        }
        tally.attempts += 1;
        tally.largest_us = tally.largest_us.max(us);
        peers.ended(&h);
        peers.retransmitted(addr, Role::Server, RetransmitKind::Synack, 1);
        tally.synacks += 1;
        handed += 1;
        again += 1;
    }
    let used = PEAK.load(Ordering::Relaxed) - before;
    println!("at most {used} bytes for {} peers", peers.len());
    assert!(used < BOUND_BYTES, "{used} bytes");
    assert!(peers.len() <= 8_192 + 32_768, "{}", peers.len());

    let table = peers.table();
    for (addr, tally) in &tallies {
        let row = table.iter().find(|p| p.peer_addr == *addr);
        let row = row.unwrap_or_else(|| panic!("{addr} is not listed"));
        let listed = FloodTally {
            attempts: row.attempts,
            established: row.established,
            failed: row.failed,
            synacks: row.synack_retransmits,
            largest_us: row.dwell_max_us.unwrap(),
        };
        assert_eq!(&listed, tally, "{addr}");
    }
    assert_eq!(tallies.len(), REAL as usize);

    let others = peers.others();
    let attempts: u64 = table.iter().map(|p| p.attempts).sum();
    let synacks: u64 = table.iter().map(|p| p.synack_retransmits).sum();
    assert_eq!(attempts + others.attempts, handed);
    assert_eq!(synacks + others.retransmits, again);
    assert_eq!(peers.unlisted(), others.attempts + others.retransmits);
    assert_eq!(
        others.attempts,
        others.established + others.failed + others.open
    );

    let (said, there) = (peers.distinct(Role::Server), f64::from(SPOOFED + REAL));
    println!("{said:?} where there are {there}");
    let off = (said.count as f64 - there).abs() / there;
    assert!(said.error > 0.0 && said.error < 0.01, "{said:?}");
    assert!(off <= 3.0 * said.error, "{said:?} where there are {there}");
    assert_eq!(peers.distinct(Role::Client).count, 0);
}
