//! Where handshakes were in trouble: peers over time, and the queues of listeners.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::time_axis::Intervals;
use crate::model::{Listener, QueueSample};

/// Handshakes in trouble, by the interval in which they began.
#[derive(Clone, Debug, Default)]
pub(super) struct Begun {
    pub total: u64,
    pub intervals: Intervals,
}

impl Begun {
    fn add(&mut self, interval: usize) {
        self.total += 1;
        self.intervals.add(interval, 1);
    }

    /// Adds others to these.
    pub fn join(&mut self, other: &Self) {
        self.total += other.total;
        for (interval, n) in other.intervals.iter() {
            self.intervals.add(interval, n);
        }
    }
}

/// Peers with handshakes in trouble, and their networks.
#[derive(Clone, Debug)]
pub(super) struct PeerTimes {
    /// Peers, and networks, that are counted one by one.
    most: usize,
    peers: HashMap<IpAddr, Begun>,
    networks: HashMap<IpNet, Begun>,
    /// Peers beyond the bound.
    peers_beyond: Begun,
    /// Those whose network is beyond it too.
    networks_beyond: Begun,
}

/// A row of the map.
#[derive(Clone, Debug)]
pub(super) struct PeerRow {
    pub name: String,
    pub begun: Begun,
}

impl PeerTimes {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            peers: HashMap::new(),
            networks: HashMap::new(),
            peers_beyond: Begun::default(),
            networks_beyond: Begun::default(),
        }
    }

    pub fn add(&mut self, peer: IpAddr, interval: usize) {
        let most = self.most;
        slot(&mut self.peers, peer, &mut self.peers_beyond, most).add(interval);
        let network = network(peer);
        slot(&mut self.networks, network, &mut self.networks_beyond, most).add(interval);
    }

    pub fn halve(&mut self) {
        let peers = self.peers.values_mut();
        let networks = self.networks.values_mut();
        let beyond = [&mut self.peers_beyond, &mut self.networks_beyond];
        for begun in peers.chain(networks).chain(beyond) {
            begun.intervals.halve(|a, b| a + b);
        }
    }

    /// The peers with the most handshakes in trouble; their networks where there are more than `most`. Then what
    /// is left together, and of how many peers or networks.
    pub fn rows(&self, most: usize) -> (Vec<PeerRow>, Option<(Begun, usize)>, bool) {
        if self.peers.len() <= most && self.peers_beyond.total == 0 {
            let (rows, rest) = top(&self.peers, &self.peers_beyond, most);
            return (rows, rest, false);
        }
        let (rows, rest) = top(&self.networks, &self.networks_beyond, most);
        (rows, rest, true)
    }
}

fn slot<'m, K: std::hash::Hash + Eq>(
    map: &'m mut HashMap<K, Begun>,
    key: K,
    beyond: &'m mut Begun,
    most: usize,
) -> &'m mut Begun {
    match map.len() < most || map.contains_key(&key) {
        true => map.entry(key).or_default(),
        false => beyond,
    }
}

fn top<K: std::fmt::Display + Ord>(
    map: &HashMap<K, Begun>,
    beyond: &Begun,
    most: usize,
) -> (Vec<PeerRow>, Option<(Begun, usize)>) {
    let mut all: Vec<(&K, &Begun)> = map.iter().collect();
    all.sort_by_key(|(key, begun)| (Reverse(begun.total), *key));
    let (shown, others) = all.split_at(all.len().min(most));
    let rows = shown
        .iter()
        .map(|(key, begun)| PeerRow {
            name: key.to_string(),
            begun: (*begun).clone(),
        })
        .collect();
    let mut rest = beyond.clone();
    others.iter().for_each(|(_, begun)| rest.join(begun));
    (rows, (rest.total > 0).then_some((rest, others.len())))
}

/// The network that a peer is counted in: /24, or /64.
fn network(peer: IpAddr) -> IpNet {
    match peer {
        IpAddr::V4(v4) => Ipv4Net::new(v4, 24).map_or(IpNet::from(peer), |n| n.trunc().into()),
        IpAddr::V6(v6) => Ipv6Net::new(v6, 64).map_or(IpNet::from(peer), |n| n.trunc().into()),
    }
}

/// The queues of one listening socket.
#[derive(Clone, Debug)]
pub(super) struct QueueHistory {
    /// As last seen.
    pub last: Listener,
    pub accept_queue: Intervals,
    pub syn_queue: Intervals,
    pub most_accept_queue: u32,
    pub most_syn_queue: u32,
}

impl QueueHistory {
    /// How full the fuller queue was at most, of its limit.
    pub fn fill(&self) -> f64 {
        let share = |most: u32, limit: Option<u32>| match limit {
            Some(limit) => f64::from(most) / (f64::from(limit) + 1.0),
            None => 0.0,
        };
        share(self.most_accept_queue, self.last.accept_queue_max)
            .max(share(self.most_syn_queue, self.last.syn_queue_max))
    }
}

/// One listening socket: namespace, port, address, inode.
type SocketKey = (u32, u16, IpAddr, Option<u32>);

/// The queues of all listening sockets over time.
#[derive(Clone, Debug)]
pub(super) struct QueueTimes {
    /// Sockets that are followed, at most.
    most: usize,
    sockets: BTreeMap<SocketKey, QueueHistory>,
    /// Samples of sockets beyond the bound.
    pub beyond: u64,
    pub samples: u64,
}

impl QueueTimes {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            sockets: BTreeMap::new(),
            beyond: 0,
            samples: 0,
        }
    }

    pub fn sample(&mut self, interval: usize, sample: &QueueSample) {
        self.samples += 1;
        for l in &sample.listeners {
            let key = (l.netns, l.local_port, l.local_addr, l.inode);
            if self.sockets.len() >= self.most && !self.sockets.contains_key(&key) {
                self.beyond += 1;
                continue;
            }
            let history = self.sockets.entry(key).or_insert_with(|| QueueHistory {
                last: l.clone(),
                accept_queue: Intervals::default(),
                syn_queue: Intervals::default(),
                most_accept_queue: 0,
                most_syn_queue: 0,
            });
            if let Some(n) = l.accept_queue {
                history.accept_queue.raise(interval, n.into());
                history.most_accept_queue = history.most_accept_queue.max(n);
            }
            if let Some(n) = l.syn_queue {
                history.syn_queue.raise(interval, n.into());
                history.most_syn_queue = history.most_syn_queue.max(n);
            }
            history.last = l.clone();
        }
    }

    pub fn halve(&mut self) {
        for history in self.sockets.values_mut() {
            history.accept_queue.halve(i64::max);
            history.syn_queue.halve(i64::max);
        }
    }

    /// Those that ever had something in a queue, fullest first; how many never had.
    pub fn used(&self) -> (Vec<&QueueHistory>, usize) {
        let is_used = |h: &&QueueHistory| h.most_accept_queue + h.most_syn_queue > 0;
        let mut used: Vec<&QueueHistory> = self.sockets.values().filter(is_used).collect();
        let idle = self.sockets.len() - used.len();
        used.sort_by(|a, b| b.fill().total_cmp(&a.fill()));
        (used, idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_peers_become_networks_and_nothing_is_lost() {
        let mut peers = PeerTimes::new(4096);
        for n in 0..100_000_u32 {
            peers.add(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), 3);
        }
        let (rows, rest, by_network) = peers.rows(24);
        assert!(by_network && rows.len() == 24);
        assert!(rows[0].name.ends_with("/24"), "{}", rows[0].name);
        let shown: u64 = rows.iter().map(|row| row.begun.total).sum();
        let (rest, networks) = rest.unwrap();
        assert_eq!(shown + rest.total, 100_000);
        assert_eq!(networks, 391 - 24);
    }

    #[test]
    fn a_few_peers_keep_their_names() {
        let mut peers = PeerTimes::new(4096);
        peers.add("10.0.0.1".parse().unwrap(), 0);
        peers.add("fd00::1".parse().unwrap(), 0);
        let (rows, rest, by_network) = peers.rows(24);
        assert!(!by_network && rest.is_none() && rows.len() == 2);
    }
}
