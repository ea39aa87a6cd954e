//! A half-open as it is stored: in a quarter of the size of an [`OpenHandshake`].

use std::sync::Arc;

use synprobe_ebpf::event::{AF_INET, AF_INET6};

use super::{
    handshake::{HandshakeStart, OpenHandshake},
    state_now::under_way,
};
use crate::model::{
    Connection, DwellSource, Facts, Queue, Role, TcpState, Tuple, UnderWay, Workload,
};

/// What the half-opens of one listener have in common.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Owner {
    pub netns_name: Option<Arc<str>>,
    pub pid: Option<u32>,
    pub comm: Option<Arc<str>>,
    pub cgroup: Option<Arc<str>>,
    pub workload: Workload,
}

/// A stored half-open.
pub(super) enum StoredHalfOpen {
    Compact(CompactHalfOpen),
    /// It has a value that does not fit the compact form.
    Full(Box<OpenHandshake>),
}

/// SYN-ACK retransmissions by default (`tcp_synack_retries`).
pub(super) const GAPS: usize = 5;

/// A SYN-ACK follows after the time-out that runs. Time-outs are below 2^31 µs.
const FOLLOWS: u32 = 1 << 31;

/// The values that nearly all half-opens have. 0 stands for an unknown time or sequence number.
pub(super) struct CompactHalfOpen {
    owner: Arc<Owner>,
    id: u64,
    start_ns: u64,
    last_tx_ns: u64,
    alive_ns: u64,
    gives_up_ns: u64,
    start_error_us: u32,
    /// With [`FOLLOWS`].
    last_gap_us: u32,
    gaps_us: [u32; GAPS],
    syn_seq: u32,
    syn_ack_seq: u32,
    queue: Queue,
    packed: PackedBits,
}

/// Small numbers, packed one after the other. A number that is too large is truncated.
#[derive(Clone, Copy, Default)]
struct PackedBits(u32);

impl PackedBits {
    fn put(&mut self, bits: u32, value: u32) {
        self.0 = self.0 << bits | value & ((1 << bits) - 1);
    }

    /// Last in, first out.
    fn take(&mut self, bits: u32) -> u32 {
        let value = self.0 & ((1 << bits) - 1);
        self.0 >>= bits;
        value
    }

    fn flag(&mut self) -> bool {
        self.take(1) == 1
    }

    /// All of a half-open.
    fn unpacked(mut self) -> UnpackedBits {
        UnpackedBits {
            queue_was_full: self.flag(),
            has_queue: self.flag(),
            history_known: self.flag(),
            acked: self.flag(),
            reset_seen: self.flag(),
            announced: self.flag(),
            v4_mapped: self.flag(),
            defer_accept: MAYBE.get(self.take(2) as usize).copied().flatten(),
            source: SOURCES.get(self.take(3) as usize).copied().flatten(),
            absences: self.take(2) as u8,
            gaps: self.take(3) as usize,
            time_outs: self.take(5),
            by_peer: self.take(5),
            retransmits: self.take(5),
        }
    }
}

/// In the order in which they are unpacked: the last one that was packed comes first.
struct UnpackedBits {
    queue_was_full: bool,
    has_queue: bool,
    history_known: bool,
    acked: bool,
    reset_seen: bool,
    announced: bool,
    v4_mapped: bool,
    defer_accept: Option<bool>,
    source: Option<DwellSource>,
    absences: u8,
    gaps: usize,
    time_outs: u32,
    by_peer: u32,
    retransmits: u32,
}

const SOURCES: [Option<DwellSource>; 5] = [
    None,
    Some(DwellSource::Events),
    Some(DwellSource::RttSample),
    Some(DwellSource::RequestSock),
    Some(DwellSource::SockDiag),
];
const MAYBE: [Option<bool>; 3] = [None, Some(false), Some(true)];

/// The index of a value in the table of all values.
fn place<T: PartialEq>(all: &[T], value: &T) -> u32 {
    all.iter().position(|v| v == value).unwrap_or(0) as u32
}

impl CompactHalfOpen {
    /// The compact form. Values that do not fit are left out.
    pub fn of(open: &OpenHandshake, owner: Arc<Owner>) -> Self {
        let mut gaps_us = [0; GAPS];
        for (to, from) in gaps_us.iter_mut().zip(&open.gaps_us) {
            *to = *from as u32;
        }
        let (gives_up_ns, last_gap_us) = open.gives_up.unwrap_or_default();
        let facts = &open.facts;
        let mut packed = PackedBits::default();
        packed.put(5, open.retransmits);
        packed.put(5, open.by_peer);
        packed.put(5, facts.time_outs);
        packed.put(3, open.gaps_us.len() as u32);
        packed.put(2, open.absences.into());
        packed.put(3, place(&SOURCES, &open.start.map(|start| start.source)));
        packed.put(2, place(&MAYBE, &facts.defer_accept));
        for flag in [
            open.connection.v4_mapped,
            open.announced,
            open.reset_seen,
            facts.acked,
            facts.history_known,
            facts.queue.is_some(),
            facts.queue_was_full,
        ] {
            packed.put(1, flag.into());
        }
        Self {
            owner,
            id: open.connection.id,
            start_ns: open.start.map_or(0, |start| start.at_ns),
            last_tx_ns: open.last_tx_ns.unwrap_or(0),
            alive_ns: open.alive_ns,
            gives_up_ns,
            start_error_us: open.start.map_or(0, |start| start.error_us as u32),
            last_gap_us: last_gap_us as u32 & !FOLLOWS
                | if open.next_us == Some(last_gap_us) {
                    FOLLOWS
                } else {
                    0
                },
            gaps_us,
            syn_seq: facts.syn_seq.unwrap_or(0),
            syn_ack_seq: facts.syn_ack_seq.unwrap_or(0),
            queue: facts.queue.unwrap_or_default(),
            packed,
        }
    }

    fn connection(&self, tuple: &Tuple, v4_mapped: bool) -> Connection {
        let ipv4 = tuple.flow().family == AF_INET;
        let family = match ipv4 && !v4_mapped {
            true => AF_INET,
            false => AF_INET6,
        };
        Connection {
            netns_name: self.owner.netns_name.clone(),
            pid: self.owner.pid,
            comm: self.owner.comm.clone(),
            cgroup: self.owner.cgroup.clone(),
            workload: self.owner.workload.clone(),
            ..tuple.connection(self.id, Role::Server, family)
        }
    }

    fn start(&self, source: Option<DwellSource>) -> Option<HandshakeStart> {
        source.map(|source| HandshakeStart {
            at_ns: self.start_ns,
            source,
            error_us: self.start_error_us.into(),
        })
    }

    fn gaps_us(&self, gaps: usize) -> Vec<u64> {
        let gaps = self.gaps_us.iter().take(gaps);
        gaps.map(|gap| u64::from(*gap)).collect()
    }

    /// Until what follows, if something does.
    fn next_us(&self) -> Option<u64> {
        (self.last_gap_us & FOLLOWS != 0).then_some((self.last_gap_us & !FOLLOWS).into())
    }

    pub fn open(&self, tuple: &Tuple) -> OpenHandshake {
        let bits = self.packed.unpacked();
        let connection = self.connection(tuple, bits.v4_mapped);
        let start = self.start(bits.source);
        let last_gap_us = u64::from(self.last_gap_us & !FOLLOWS);
        OpenHandshake {
            last_tx_ns: known(self.last_tx_ns),
            gives_up: known(self.gives_up_ns).map(|ns| (ns, last_gap_us)),
            next_us: self.next_us(),
            gaps_us: self.gaps_us(bits.gaps),
            retransmits: bits.retransmits,
            by_peer: bits.by_peer,
            absences: bits.absences,
            announced: bits.announced,
            reset_seen: bits.reset_seen,
            facts: Facts {
                acked: bits.acked,
                defer_accept: bits.defer_accept,
                queue: bits.has_queue.then_some(self.queue),
                queue_was_full: bits.queue_was_full,
                history_known: bits.history_known,
                time_outs: bits.time_outs,
                syn_seq: (self.syn_seq != 0).then_some(self.syn_seq),
                syn_ack_seq: (self.syn_ack_seq != 0).then_some(self.syn_ack_seq),
                ..Facts::default()
            },
            ..OpenHandshake::new(connection, TcpState::SynRecv, start, self.alive_ns)
        }
    }

    /// As `under_way(self.open(tuple))`, at a fraction of the cost: there may be 100,000 of them, once a second.
    pub fn under_way(&self, tuple: &Tuple) -> UnderWay {
        let bits = self.packed.unpacked();
        let start = self.start(bits.source);
        let start = start.filter(|start| start.is_known(self.alive_ns));
        UnderWay {
            began_ns: start.map(|start| start.at_ns),
            began_error_us: start.map_or(0, |start| start.error_us),
            next_ns: known(self.last_tx_ns)
                .zip(self.next_us())
                .map(|(last_ns, next_us)| last_ns + next_us * 1000),
            gives_up_ns: known(self.gives_up_ns),
            state: TcpState::SynRecv,
            retransmits: bits.retransmits,
            retransmits_by_peer: bits.by_peer,
            gaps_us: self.gaps_us(bits.gaps),
            connection: self.connection(tuple, bits.v4_mapped),
        }
    }
}

/// 0 stands for an unknown time.
fn known(ns: u64) -> Option<u64> {
    (ns != 0).then_some(ns)
}

impl StoredHalfOpen {
    pub fn open(&self, tuple: &Tuple) -> OpenHandshake {
        match self {
            Self::Compact(compact) => compact.open(tuple),
            Self::Full(open) => OpenHandshake::clone(open),
        }
    }

    /// As a live view shows it.
    pub fn under_way(&self, tuple: &Tuple) -> UnderWay {
        match self {
            Self::Compact(compact) => compact.under_way(tuple),
            Self::Full(open) => under_way(open),
        }
    }

    pub fn into_open(self, tuple: &Tuple) -> OpenHandshake {
        match self {
            Self::Compact(compact) => compact.open(tuple),
            Self::Full(open) => *open,
        }
    }

    pub fn alive_ns(&self) -> u64 {
        match self {
            Self::Compact(compact) => compact.alive_ns,
            Self::Full(open) => open.alive_ns,
        }
    }

    /// When it began, CLOCK_MONOTONIC nanoseconds, where that is known well enough to be printed.
    pub fn began_ns(&self) -> Option<u64> {
        let start = match self {
            Self::Full(open) => open.start,
            Self::Compact(compact) if compact.start_ns == 0 => None,
            Self::Compact(compact) => Some(HandshakeStart {
                at_ns: compact.start_ns,
                source: DwellSource::Events,
                error_us: compact.start_error_us.into(),
            }),
        };
        let start = start.filter(|start| start.is_known(self.alive_ns()))?;
        Some(start.at_ns)
    }
}
