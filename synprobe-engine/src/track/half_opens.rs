//! The half-opens in progress. In a flood there are a million of them, and each is read only once in seconds.
//! They are stored in a quarter of the size of an [`OpenHandshake`].

use std::sync::Arc;

use super::{
    handshake::OpenHandshake,
    local_ends::{HalfOpenKey, LocalEnds},
    stored_half_open::{CompactHalfOpen, Owner, StoredHalfOpen},
};
use crate::model::{Tuple, UnderWay};
use crate::util::bounded::Bounded;

/// The table of them.
pub struct HalfOpens {
    table: Bounded<HalfOpenKey, StoredHalfOpen>,
    locals: LocalEnds,
    /// Of the last one. The next one mostly has the same.
    owner: Arc<Owner>,
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

    /// As a live view shows them.
    pub fn under_way(&self) -> impl Iterator<Item = UnderWay> {
        self.table.iter().map(|(key, stored)| {
            let tuple = self.locals.tuple(key);
            stored.under_way(&tuple)
        })
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
    use synprobe_ebpf::event::AF_INET;

    use super::{
        super::{handshake::HandshakeStart, state_now::under_way, stored_half_open::GAPS},
        *,
    };
    use crate::model::{DwellSource, Queue, Role, TcpState};

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
                assert_eq!(table.under_way().next(), Some(under_way(&open)));
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
