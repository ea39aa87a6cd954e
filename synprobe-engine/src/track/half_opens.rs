//! The half-opens in progress. In a flood there are a million of them, and each is read only once in seconds.
//! They are stored in a quarter of the size of an [`OpenHandshake`].

use std::sync::Arc;

use synprobe_ebpf::event::{AF_INET, AF_INET6};

use super::{
    handshake::{HandshakeStart, OpenHandshake},
    local_ends::{HalfOpenKey, LocalEnds},
};
use crate::model::{Connection, DwellSource, Facts, Queue, Role, TcpState, Tuple, Workload};
use crate::util::bounded::Bounded;

/// The table of them.
pub struct HalfOpens {
    table: Bounded<HalfOpenKey, StoredHalfOpen>,
    locals: LocalEnds,
    /// Of the last one. The next one mostly has the same.
    owner: Arc<Owner>,
}

/// What the half-opens of one listener have in common.
#[derive(Debug, Default, PartialEq)]
struct Owner {
    netns_name: Option<Arc<str>>,
    pid: Option<u32>,
    comm: Option<Arc<str>>,
    cgroup: Option<Arc<str>>,
    workload: Workload,
}

/// A stored half-open.
enum StoredHalfOpen {
    Compact(CompactHalfOpen),
    /// It has a value that does not fit the compact form.
    Full(Box<OpenHandshake>),
}

/// SYN-ACK retransmissions by default (`tcp_synack_retries`).
const GAPS: usize = 5;

/// A SYN-ACK follows after the time-out that runs. Time-outs are below 2^31 µs.
const FOLLOWS: u32 = 1 << 31;

/// The values that nearly all half-opens have. 0 stands for an unknown time.
struct CompactHalfOpen {
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
    fn of(open: &OpenHandshake, owner: Arc<Owner>) -> Self {
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
            queue: facts.queue.unwrap_or_default(),
            packed,
        }
    }

    fn open(&self, tuple: &Tuple) -> OpenHandshake {
        let mut packed = self.packed;
        let queue_was_full = packed.flag();
        let queue = packed.flag().then_some(self.queue);
        let history_known = packed.flag();
        let acked = packed.flag();
        let reset_seen = packed.flag();
        let announced = packed.flag();
        let v4_mapped = packed.flag();
        let defer_accept = MAYBE.get(packed.take(2) as usize).copied().flatten();
        let source = SOURCES.get(packed.take(3) as usize).copied().flatten();
        let absences = packed.take(2) as u8;
        let gaps = packed.take(3) as usize;
        let time_outs = packed.take(5);
        let by_peer = packed.take(5);
        let retransmits = packed.take(5);

        let ipv4 = tuple.flow().family == AF_INET;
        let family = match ipv4 && !v4_mapped {
            true => AF_INET,
            false => AF_INET6,
        };
        let connection = Connection {
            netns_name: self.owner.netns_name.clone(),
            pid: self.owner.pid,
            comm: self.owner.comm.clone(),
            cgroup: self.owner.cgroup.clone(),
            workload: self.owner.workload.clone(),
            ..tuple.connection(self.id, Role::Server, family)
        };
        let start = source.map(|source| HandshakeStart {
            at_ns: self.start_ns,
            source,
            error_us: self.start_error_us.into(),
        });
        let known = |ns: u64| (ns != 0).then_some(ns);
        let gaps = self.gaps_us.iter().take(gaps);
        let last_gap_us = u64::from(self.last_gap_us & !FOLLOWS);
        OpenHandshake {
            last_tx_ns: known(self.last_tx_ns),
            gives_up: known(self.gives_up_ns).map(|ns| (ns, last_gap_us)),
            next_us: (self.last_gap_us & FOLLOWS != 0).then_some(last_gap_us),
            gaps_us: gaps.map(|gap| u64::from(*gap)).collect(),
            retransmits,
            by_peer,
            absences,
            announced,
            reset_seen,
            facts: Facts {
                acked,
                defer_accept,
                queue,
                queue_was_full,
                history_known,
                time_outs,
                ..Facts::default()
            },
            ..OpenHandshake::new(connection, TcpState::SynRecv, start, self.alive_ns)
        }
    }
}

impl StoredHalfOpen {
    fn open(&self, tuple: &Tuple) -> OpenHandshake {
        match self {
            Self::Compact(compact) => compact.open(tuple),
            Self::Full(open) => OpenHandshake::clone(open),
        }
    }

    fn into_open(self, tuple: &Tuple) -> OpenHandshake {
        match self {
            Self::Compact(compact) => compact.open(tuple),
            Self::Full(open) => *open,
        }
    }

    fn alive_ns(&self) -> u64 {
        match self {
            Self::Compact(compact) => compact.alive_ns,
            Self::Full(open) => open.alive_ns,
        }
    }

    /// When it began, CLOCK_MONOTONIC nanoseconds, where that is known well enough to be printed.
    fn began_ns(&self) -> Option<u64> {
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

impl HalfOpens {
    /// At most `limit` of them.
    pub fn new(limit: usize) -> Self {
        Self {
            table: Bounded::new(limit),
            locals: LocalEnds::default(),
            owner: Arc::default(),
        }
    }

    /// Inserts one as the youngest; returns the one that was evicted for it.
    pub fn insert(&mut self, tuple: Tuple, open: OpenHandshake) -> Option<OpenHandshake> {
        let stored = self.store(&tuple, open);
        let key = self.locals.acquire(&tuple);
        let (replaced, evicted) = self.table.insert(key, stored);
        if replaced.is_some() {
            self.locals.release(&key);
        }
        evicted.map(|evicted| self.removed(evicted))
    }

    /// Takes it out.
    pub fn remove(&mut self, tuple: &Tuple) -> Option<OpenHandshake> {
        let key = self.locals.find(tuple)?;
        let stored = self.table.remove(&key)?;
        Some(self.removed((key, stored)))
    }

    /// Takes the oldest out.
    pub fn pop(&mut self) -> Option<OpenHandshake> {
        let oldest = self.table.pop()?;
        Some(self.removed(oldest))
    }

    /// Releases the key of one that was removed.
    fn removed(&mut self, (key, stored): (HalfOpenKey, StoredHalfOpen)) -> OpenHandshake {
        let tuple = self.locals.tuple(&key);
        self.locals.release(&key);
        stored.into_open(&tuple)
    }

    /// A copy of the half-open of that tuple.
    pub fn get(&self, tuple: &Tuple) -> Option<OpenHandshake> {
        let key = self.locals.find(tuple)?;
        Some(self.table.get(&key)?.open(tuple))
    }

    /// Changes the half-open of that tuple, if there is one.
    pub fn update<R>(
        &mut self,
        tuple: &Tuple,
        work: impl FnOnce(&mut OpenHandshake) -> R,
    ) -> Option<R> {
        let key = self.locals.find(tuple)?;
        let mut open = self.table.get(&key)?.open(tuple);
        let result = work(&mut open);
        let stored = self.store(tuple, open);
        if let Some(place) = self.table.get_mut(&key) {
            *place = stored;
        }
        Some(result)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Namespaces that have half-opens; one may be returned several times.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.locals.namespaces()
    }

    /// Each tuple, and when its half-open was last known to be alive.
    pub fn alive(&self) -> impl Iterator<Item = (Tuple, u64)> {
        let all = self.table.iter();
        all.map(|(key, stored)| (self.locals.tuple(key), stored.alive_ns()))
    }

    /// Each tuple, and when its half-open began, where that is known.
    pub fn beginnings(&self) -> impl Iterator<Item = (Tuple, Option<u64>)> {
        let all = self.table.iter();
        all.map(|(key, stored)| (self.locals.tuple(key), stored.began_ns()))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Tuple, OpenHandshake)> {
        self.table.iter().map(|(key, stored)| {
            let tuple = self.locals.tuple(key);
            (tuple, stored.open(&tuple))
        })
    }

    fn store(&mut self, tuple: &Tuple, open: OpenHandshake) -> StoredHalfOpen {
        let c = &open.connection;
        let same = self.owner.netns_name == c.netns_name
            && self.owner.pid == c.pid
            && self.owner.comm == c.comm
            && self.owner.cgroup == c.cgroup
            && self.owner.workload == c.workload;
        if !same {
            self.owner = Arc::new(Owner {
                netns_name: c.netns_name.clone(),
                pid: c.pid,
                comm: c.comm.clone(),
                cgroup: c.cgroup.clone(),
                workload: c.workload.clone(),
            });
        }
        let compact = CompactHalfOpen::of(&open, Arc::clone(&self.owner));
        match compact.open(tuple) == open {
            true => StoredHalfOpen::Compact(compact),
            false => StoredHalfOpen::Full(Box::new(open)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(host: u8) -> [u8; 16] {
        crate::util::addresses::mapped(std::net::Ipv4Addr::new(10, 0, 0, host).into())
    }

    /// Of a million, with their keys and links, 200 MiB: docs/performance.md.
    #[test]
    fn at_rest_they_are_small() {
        let size = size_of::<(HalfOpenKey, StoredHalfOpen)>();
        assert!(
            size <= 120,
            "{size} bytes, and {} awake",
            size_of::<OpenHandshake>()
        );
    }

    #[test]
    fn they_come_out_as_they_went_in() {
        let tuple = Tuple {
            netns: 1,
            local_addr: mapped(1),
            peer_addr: mapped(2),
            local_port: 80,
            peer_port: 1024,
        };
        let start = HandshakeStart {
            at_ns: 1_000_000_007,
            source: DwellSource::RequestSock,
            error_us: 0,
        };
        let plain = OpenHandshake::new(
            tuple.connection(7, Role::Server, AF_INET),
            TcpState::SynRecv,
            Some(start),
            2_000_000_000,
        );
        let mut again = plain.clone();
        again.transmitted(2_000_000_000);
        again.retransmits = 1;
        again.gives_up = Some((63_000_000_000, 32_000_000));
        again.next_us = Some(32_000_000);
        again.facts.queue = Some(Queue::default());
        again.facts.defer_accept = Some(false);
        (again.facts.history_known, again.facts.time_outs) = (true, 1);
        let changed: [fn(&mut OpenHandshake); 13] = [
            |o| o.next_us = Some(7),
            |o| o.connection.v4_mapped = true,
            |o| o.connection.comm = Some("server".into()),
            |o| o.connection.pid = Some(1),
            |o| o.start = None,
            |o| o.gaps_us = vec![1; GAPS + 1],
            |o| o.gaps_us = vec![u64::MAX],
            |o| o.retransmits = u32::MAX,
            |o| o.rst_ns = Some(9),
            |o| o.soft_error = 113,
            |o| o.facts.soft_error = Some("EHOSTUNREACH".to_owned()),
            |o| o.last_tx_ns = Some(0),
            |o| {
                o.start = o.start.map(|s| HandshakeStart {
                    error_us: 1 << 33,
                    ..s
                })
            },
        ];
        let mut table = HalfOpens::new(4);
        for base in [&plain, &again] {
            for change in changed {
                let mut open = base.clone();
                change(&mut open);
                table.insert(tuple, open.clone());
                assert_eq!(table.get(&tuple).as_ref(), Some(&open));
                table.update(&tuple, |o| o.alive_ns += 1);
                open.alive_ns += 1;
                assert_eq!(table.remove(&tuple), Some(open));
            }
        }
        table.insert(tuple, again);
        let stored = table.locals.find(&tuple).map(|key| table.table.get(&key));
        let compact = matches!(stored, Some(Some(StoredHalfOpen::Compact(_))));
        assert!(compact, "a retransmission does not need the full form");
    }
}
