//! The half-opens in progress. In a flood there are a million of them, and each is read only once in seconds.
//! They are stored in a quarter of the size of an [`OpenHandshake`].

use std::{
    collections::{BinaryHeap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{
    handshake::OpenHandshake,
    local_ends::{HalfOpenKey, LocalEnds},
    stored_half_open::{CompactHalfOpen, Owner, StoredHalfOpen},
};
use crate::{
    model::{PortState, Role, Tuple, UnderWay},
    util::{addresses::printable, bounded::Bounded},
};

/// What is known of all half-opens at one moment.
pub struct HalfOpenSurvey {
    /// By local end; those of several addresses may be of one port.
    pub ports: Vec<PortState>,
    /// How many by peer, where that is asked for.
    pub by_peer: Vec<(IpAddr, u64)>,
    /// The oldest, the oldest first.
    pub oldest: Vec<UnderWay>,
}

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

    /// As a live view shows them.
    pub fn under_way(&self) -> impl Iterator<Item = UnderWay> {
        self.table.iter().map(|(key, stored)| {
            let tuple = self.locals.tuple(key);
            stored.under_way(&tuple)
        })
    }

    /// What is counted of all, in one pass, and the `most` oldest.
    pub fn survey(&self, most: usize, counts_peers: bool) -> HalfOpenSurvey {
        let mut ends: Vec<(u64, Option<u64>)> = vec![(0, None); self.locals.numbers()];
        let mut by_peer: HashMap<[u8; 16], u64> = HashMap::new();
        let mut oldest: BinaryHeap<(u64, HalfOpenKey)> = BinaryHeap::with_capacity(most);
        for (key, stored) in self.table.iter() {
            let began_ns = stored.began_ns();
            let (open, first_ns) = &mut ends[key.local()];
            *open += 1;
            *first_ns = match (*first_ns, began_ns) {
                (Some(first), Some(began)) => Some(first.min(began)),
                (first, began) => first.or(began),
            };
            if counts_peers {
                *by_peer.entry(key.peer()).or_default() += 1;
            }
            // Where it is not known, it is older than the run.
            let began_ns = began_ns.unwrap_or(0);
            if oldest.len() < most {
                oldest.push((began_ns, *key));
            } else if let Some(mut youngest) = oldest.peek_mut()
                && began_ns < youngest.0
            {
                *youngest = (began_ns, *key);
            }
        }
        let under_way = |(_, key): (u64, HalfOpenKey)| {
            let tuple = self.locals.tuple(&key);
            Some(self.table.get(&key)?.under_way(&tuple))
        };
        HalfOpenSurvey {
            ports: ends
                .into_iter()
                .enumerate()
                .filter(|(_, (open, _))| *open > 0)
                .map(|(number, (open, oldest_ns))| {
                    let (netns, port) = self.locals.port(number);
                    PortState {
                        netns,
                        role: Role::Server,
                        port: Some(port),
                        open,
                        oldest_ns,
                    }
                })
                .collect(),
            by_peer: by_peer
                .into_iter()
                .map(|(peer, open)| (printable(peer), open))
                .collect(),
            oldest: oldest
                .into_sorted_vec()
                .into_iter()
                .filter_map(under_way)
                .collect(),
        }
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
    use crate::model::{DwellSource, Queue, TcpState};

    fn mapped(host: u8) -> [u8; 16] {
        crate::util::addresses::mapped(std::net::Ipv4Addr::new(10, 0, 0, host).into())
    }

    /// Of a million, with their keys and links, 205 MiB: docs/performance.md.
    #[test]
    fn at_rest_they_are_small() {
        let size = size_of::<(HalfOpenKey, StoredHalfOpen)>();
        assert!(
            size <= 128,
            "{size} bytes, and {} awake",
            size_of::<OpenHandshake>()
        );
    }

    /// As a list of all that is sorted by age.
    #[test]
    fn the_oldest_are_found_without_a_list_of_all() {
        let mut table = HalfOpens::new(1000);
        for n in 0..1000_u16 {
            let tuple = Tuple {
                netns: 1,
                local_addr: mapped(1),
                peer_addr: mapped((n % 7) as u8),
                local_port: 80,
                peer_port: n + 1,
            };
            let start = HandshakeStart {
                at_ns: 1 + u64::from(n) * 7919 % 1000,
                source: DwellSource::RequestSock,
                error_us: 0,
            };
            // Of one the beginning is not known: it is older than the run.
            let start = (n != 500).then_some(start);
            let connection = tuple.connection(n.into(), Role::Server, AF_INET);
            let open = OpenHandshake::new(connection, TcpState::SynRecv, start, 2_000_000_000);
            table.insert(tuple, open);
        }
        let mut all: Vec<UnderWay> = table.under_way().collect();
        all.sort_by_key(|h| h.began_ns.unwrap_or(0));
        for most in [0, 1, 17, 1000, 2000] {
            assert_eq!(table.survey(most, false).oldest, all[..most.min(1000)]);
        }
        assert_eq!(all[0].connection.id, 500);
        let survey = table.survey(0, true);
        let of_peers: u64 = survey.by_peer.iter().map(|(_, open)| open).sum();
        assert_eq!((survey.by_peer.len(), of_peers), (7, 1000));
        let [port] = &*survey.ports else {
            panic!("{:?}", survey.ports);
        };
        assert_eq!(
            (port.port, port.open, port.oldest_ns),
            (Some(80), 1000, Some(1))
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
        (again.facts.syn_seq, again.facts.syn_ack_seq) = (Some(u32::MAX), Some(1));
        let changed: [fn(&mut OpenHandshake); 15] = [
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
            |o| o.facts.syn_seq = Some(0),
            |o| o.facts.syn_ack_seq = None,
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
