//! Listeners and the namespaces' counters, sampled repeatedly.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use super::{ListenerHistory, listening::worst_off, window::Marks};
use crate::{
    model::{LaterCounters, ListenCounters, Listener, Queue},
    util::addresses::{is_wildcard, mapped},
};

/// Namespace, port, address and inode: sockets of a SO_REUSEPORT group share all but the last. 0: not known.
type Key = (u32, u16, [u8; 16], u32);

fn key_of(l: &Listener) -> Key {
    (
        l.netns,
        l.local_port,
        mapped(l.local_addr),
        l.inode.unwrap_or(0),
    )
}

/// Counters of a namespace: the first reading, the one before the last, and the last.
type Readings = [ListenCounters; 3];

#[derive(Default)]
pub(super) struct ListenerHistories {
    /// In an order that no hash decides: the same run gives the same lines.
    listeners: BTreeMap<Key, ListenerHistory>,
    counters: BTreeMap<u32, Readings>,
    /// Further counters, as last told.
    pub(super) later: HashMap<u32, LaterCounters>,
    addresses: HashMap<u32, HashSet<IpAddr>>,
    /// `net.ipv4.tcp_syncookies` of each namespace, where it could be read.
    syncookies: HashMap<u32, u64>,
    sampled_ns: u64,
    /// When the counters of each namespace were read first.
    first_ns: HashMap<u32, u64>,
    /// Readings at the steps of the window, by namespace.
    marks: HashMap<u32, Marks<ListenCounters>>,
    /// When a sample last had each namespace.
    seen_ns: HashMap<u32, u64>,
}

/// With a window: a namespace that no sample has for this time is forgotten, nanoseconds. It is gone, or nothing
/// happened in it.
const GONE_NS: u64 = 900_000_000_000;
/// Closed listeners that are remembered. A host may open and close any number.
const CLOSED: usize = 1024;

impl ListenerHistories {
    pub(super) fn note(
        &mut self,
        (before_ns, at_ns): (u64, u64),
        listeners: &[Listener],
        counters: &[ListenCounters],
    ) {
        let earlier_ns = std::mem::replace(&mut self.sampled_ns, before_ns);
        let shown: HashSet<Key> = listeners.iter().map(key_of).collect();
        for l in listeners {
            // A listener that an earlier sample of its namespace did not show was opened since. `sk_drops`
            // of a new socket is 0, so all its drops belong to this run.
            let opened_in_run = self.counters.contains_key(&l.netns);
            let history = self.listeners.entry(key_of(l)).or_insert_with(|| {
                let mut new = ListenerHistory::new(l, opened_in_run);
                new.opened_by_ns = opened_in_run.then_some(at_ns);
                new
            });
            history.sample(at_ns, l);
            history.closed_ns = None;
        }
        // Only a namespace that was read shows that a listener is gone.
        let read: HashSet<u32> = counters.iter().map(|c| c.netns).collect();
        let mut closed = 0;
        for (key, history) in &mut self.listeners {
            let is_gone = read.contains(&key.0) && !shown.contains(key);
            if is_gone && history.closed_ns.is_none() {
                let before = self.counters.get(&key.0);
                history.rsts_before_close = before.and_then(|[.., last]| last.out_rsts);
                history.closed_ns = Some(earlier_ns.max(1));
            }
            closed += usize::from(history.closed_ns.is_some());
        }
        if closed > CLOSED {
            self.listeners.retain(|_, h| h.closed_ns.is_none());
        }
        for now in counters {
            let mut now = *now;
            if let Some(later) = self.later.get(&now.netns) {
                now.later = *later;
            }
            self.first_ns.entry(now.netns).or_insert(at_ns);
            self.seen_ns.insert(now.netns, at_ns);
            self.counters
                .entry(now.netns)
                .and_modify(|[_, before, last]| {
                    *before = *last;
                    *last = now;
                })
                .or_insert([now; 3]);
        }
    }

    /// A step of the window begins: counters are counted from where the window begins, and what is older is
    /// forgotten.
    pub(super) fn step(&mut self, at_ns: u64, cutoff_ns: u64) {
        self.listeners
            .retain(|_, h| h.closed_ns.is_none_or(|closed| closed >= cutoff_ns));
        for history in self.listeners.values_mut() {
            history.step(cutoff_ns);
        }
        for (netns, [first, _, last]) in &mut self.counters {
            let marks = self.marks.entry(*netns).or_default();
            marks.mark(at_ns, cutoff_ns, *last);
            if let Some((at, before)) = marks.first()
                && at <= cutoff_ns
            {
                *first = *before;
                self.first_ns.insert(*netns, at);
            }
        }
        let oldest_ns = at_ns.saturating_sub(GONE_NS);
        let gone: Vec<u32> = self
            .seen_ns
            .iter()
            .filter(|(_, at)| **at < oldest_ns)
            .map(|(netns, _)| *netns)
            .collect();
        for netns in gone {
            self.counters.remove(&netns);
            self.later.remove(&netns);
            self.addresses.remove(&netns);
            self.syncookies.remove(&netns);
            self.first_ns.remove(&netns);
            self.marks.remove(&netns);
            self.seen_ns.remove(&netns);
            self.listeners.retain(|key, _| key.0 != netns);
        }
    }

    pub(super) fn has_addresses(&mut self, netns: u32, addresses: Vec<IpAddr>) {
        self.addresses.entry(netns).or_default().extend(addresses);
    }

    pub(super) fn has_syncookies(&mut self, netns: u32, setting: Option<u64>) {
        match setting {
            Some(setting) => self.syncookies.insert(netns, setting),
            None => self.syncookies.remove(&netns),
        };
    }

    /// Whether each SYN is answered with a cookie (`tcp_syncookies` 2): then a cookie is no sign of a full queue.
    pub(super) fn always_sends_cookies(&self, netns: u32) -> bool {
        self.syncookies.get(&netns) == Some(&2)
    }

    /// Whether a namespace has an address; `None`: its addresses are not known.
    pub(super) fn has_address(&self, netns: u32, addr: IpAddr) -> Option<bool> {
        Some(self.addresses.get(&netns)?.contains(&addr))
    }

    /// A connection was accepted at this address, so it is the namespace's.
    pub(super) fn served(&mut self, netns: u32, local: IpAddr) {
        self.addresses.entry(netns).or_default().insert(local);
    }

    /// An event found the accept queue of a listener that serves this address full. The event does not name
    /// the socket of a SO_REUSEPORT group: there it counts only where one socket alone can be meant.
    pub(super) fn full_at_event(&mut self, netns: u32, addr: IpAddr, port: u16, queue: Queue) {
        let group = self.handed(netns, addr, port);
        let full = |l: &Listener| l.accept_queue > l.accept_queue_max;
        let mut meant = group.iter().filter(|h| group.len() == 1 || full(&h.last));
        let (Some(one), None) = (meant.next(), meant.next()) else {
            return;
        };
        let key = key_of(&one.last);
        if let Some(history) = self.listeners.get_mut(&key) {
            history.full_at_event(queue.accept_queue);
        }
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = &ListenerHistory> {
        self.listeners.values()
    }

    /// Those of a port in a namespace, at whichever address.
    pub(super) fn of_port(&self, netns: u32, port: u16) -> impl Iterator<Item = &ListenerHistory> {
        let range = (netns, port, [0; 16], 0)..=(netns, port, [u8::MAX; 16], u32::MAX);
        self.listeners.range(range).map(|(_, h)| h)
    }

    fn at(&self, netns: u32, port: u16, addr: [u8; 16]) -> Vec<&ListenerHistory> {
        let range = (netns, port, addr, 0)..=(netns, port, addr, u32::MAX);
        self.listeners.range(range).map(|(_, h)| h).collect()
    }

    /// The sockets that serve an address: one, or a SO_REUSEPORT group; those bound to the very address
    /// first, else a wildcard. Those that are closed are in it only where no other is left.
    pub(super) fn group(&self, netns: u32, addr: IpAddr, port: u16) -> Vec<&ListenerHistory> {
        let open =
            |all: Vec<&'_ ListenerHistory>| -> bool { all.iter().any(|h| h.closed_ns.is_none()) };
        let exact = mapped(addr);
        let range = (netns, port, [0; 16], 0)..=(netns, port, [u8::MAX; 16], u32::MAX);
        let wildcard = self
            .listeners
            .range(range)
            .map(|((_, _, bound, _), _)| *bound)
            .find(|bound| is_wildcard(*bound) && open(self.at(netns, port, *bound)));
        let at = if open(self.at(netns, port, exact)) {
            exact
        } else {
            wildcard.unwrap_or_else(|| self.last_bound(netns, port, exact))
        };
        let mut group = self.at(netns, port, at);
        if group.iter().any(|h| h.closed_ns.is_none()) {
            group.retain(|h| h.closed_ns.is_none());
        }
        group
    }

    /// Where all are closed: the address that served.
    fn last_bound(&self, netns: u32, port: u16, exact: [u8; 16]) -> [u8; 16] {
        if !self.at(netns, port, exact).is_empty() {
            return exact;
        }
        let range = (netns, port, [0; 16], 0)..=(netns, port, [u8::MAX; 16], u32::MAX);
        let mut bound = self
            .listeners
            .range(range)
            .map(|((_, _, bound, _), _)| *bound);
        bound.find(|bound| is_wildcard(*bound)).unwrap_or(exact)
    }

    /// The listener that serves an address; of a SO_REUSEPORT group the socket that is worst off.
    pub(super) fn listener(&self, netns: u32, addr: IpAddr, port: u16) -> Option<&ListenerHistory> {
        worst_off(self.group(netns, addr, port))
    }

    /// The sockets on a port to which connections to another one are handed: TPROXY may name any address for them.
    pub(super) fn handed(&self, netns: u32, addr: IpAddr, port: u16) -> Vec<&ListenerHistory> {
        let group = self.group(netns, addr, port);
        if !group.is_empty() {
            return group;
        }
        let range = (netns, port, [0; 16], 0)..=(netns, port, [u8::MAX; 16], u32::MAX);
        let all = self.listeners.range(range).map(|(_, h)| h);
        all.filter(|h| h.last.transparent && h.closed_ns.is_none())
            .collect()
    }

    /// The port of the transparent listeners of a namespace (IP_TRANSPARENT), where all have the same.
    pub(super) fn transparent(&self, netns: u32) -> Option<u16> {
        let range = (netns, 0, [0; 16], 0)..=(netns, u16::MAX, [u8::MAX; 16], u32::MAX);
        let all = self.listeners.range(range).map(|(_, h)| h);
        let mut ports = all
            .filter(|h| h.last.transparent && h.closed_ns.is_none())
            .map(|h| h.last.local_port);
        let port = ports.next()?;
        ports.all(|other| other == port).then_some(port)
    }

    /// The listener at an address of this host: in the caller's own namespace, in the one where its packets were
    /// seen, or in the only one that has the address. Namespaces may share addresses (overlapping tenants,
    /// slirp4netns): then none is named.
    pub(super) fn on_this_host(
        &self,
        own: u32,
        seen_in: Option<u32>,
        called: SocketAddr,
    ) -> Option<&ListenerHistory> {
        let (addr, port) = (called.ip(), called.port());
        let listens = |netns: &u32| self.listener(*netns, addr, port).is_some();
        let netns = self.which_has(own, addr, seen_in.filter(listens), listens)?;
        self.listener(netns, addr, port)
    }

    /// A listener on the called port that does not serve the called address, in the namespace of this host that has
    /// the address.
    pub(super) fn elsewhere(&self, own: u32, called: SocketAddr) -> Option<&ListenerHistory> {
        let (addr, port) = (called.ip(), called.port());
        let of_port = |netns: u32| {
            let range = (netns, port, [0; 16], 0)..=(netns, port, [u8::MAX; 16], u32::MAX);
            let mut all = self.listeners.range(range).map(|(_, h)| h);
            all.find(|h| h.closed_ns.is_none())
        };
        let netns = self.which_has(own, addr, None, |netns| of_port(*netns).is_some())?;
        let found = of_port(netns)?;
        self.listener(netns, addr, port).is_none().then_some(found)
    }

    /// The namespace that is meant by an address: the caller's own, where it has the address and `serves`; else
    /// `seen_in`; else the only one that has it.
    pub(super) fn which_has(
        &self,
        own: u32,
        addr: IpAddr,
        seen_in: Option<u32>,
        serves: impl Fn(&u32) -> bool,
    ) -> Option<u32> {
        let has = self.addresses.iter().filter(|(_, all)| all.contains(&addr));
        let mut having = has.map(|(netns, _)| *netns);
        let is_own = addr.is_loopback() || self.has_address(own, addr) == Some(true);
        if is_own && serves(&own) {
            return Some(own);
        }
        if addr.is_loopback() || seen_in.is_some() {
            return seen_in;
        }
        let only = having.next().filter(serves)?;
        having.next().is_none().then_some(only)
    }

    /// How many SYNs and final ACKs found an accept queue full, in the namespaces that have this address;
    /// `None`: no namespace that is known has it.
    pub(super) fn overflows_at(&self, own: u32, addr: IpAddr) -> Option<u64> {
        let theirs = self.addresses.iter().filter(|(_, all)| all.contains(&addr));
        let own = addr.is_loopback().then_some(own);
        let netns = theirs.map(|(netns, _)| *netns).chain(own);
        netns
            .map(|netns| self.moved(netns, |c| c.listen_overflows).unwrap_or(0))
            .max()
    }

    /// Closed sockets that served an address.
    pub(super) fn closed(
        &self,
        netns: u32,
        addr: IpAddr,
        port: u16,
    ) -> impl Iterator<Item = &ListenerHistory> {
        let range = (netns, port, [0; 16], 0)..=(netns, port, [u8::MAX; 16], u32::MAX);
        let exact = mapped(addr);
        self.listeners
            .range(range)
            .filter(move |((_, _, bound, _), h)| {
                h.closed_ns.is_some() && (*bound == exact || is_wildcard(*bound))
            })
            .map(|(_, h)| h)
    }

    /// The last reading of a namespace's counters.
    pub(super) fn last_counters(&self, netns: u32) -> Option<&ListenCounters> {
        self.counters.get(&netns).map(|[_, _, last]| last)
    }

    /// Namespaces whose counters were read.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.counters.keys().copied()
    }

    /// When the counters of a namespace were read first (after that) and last (before that),
    /// CLOCK_MONOTONIC nanoseconds.
    pub(super) fn counted_between(&self, netns: u32) -> (u64, u64) {
        let first = self.first_ns.get(&netns).copied();
        (first.unwrap_or(0), self.sampled_ns)
    }

    pub(super) fn moved(
        &self,
        netns: u32,
        pick: fn(&ListenCounters) -> Option<u64>,
    ) -> Option<u64> {
        let [first, _, last] = self.counters.get(&netns)?;
        Some(pick(last)?.saturating_sub(pick(first)?))
    }

    /// SYNs and final ACKs that listeners of a namespace refused for another reason than a full queue:
    /// `ListenDrops` less `ListenOverflows` less `TCPReqQFullDrop`. `None`: one of them is not known.
    ///
    /// A reading is not atomic: `ListenDrops` is read a moment after `ListenOverflows`. So it must have risen
    /// before the reading before the last, unless there was no overflow at all.
    pub(super) fn refused_without_trace(&self, netns: u32) -> Option<u64> {
        let [first, before, last] = self.counters.get(&netns)?;
        let rest = |c: &ListenCounters| {
            let rose = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
            let full = rose(c.listen_overflows, first.listen_overflows)?
                .saturating_add(rose(c.req_q_full_drop, first.req_q_full_drop).unwrap_or(0));
            Some((
                rose(c.listen_drops, first.listen_drops)?.saturating_sub(full),
                full,
            ))
        };
        let ((now, full), (earlier, _)) = (rest(last)?, rest(before)?);
        Some(if full == 0 { now } else { now.min(earlier) })
    }
}
