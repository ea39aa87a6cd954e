//! Listeners and the namespaces' counters, sampled repeatedly.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    model::{ListenCounters, Listener, Queue},
    util::addresses::{is_wildcard, mapped},
};

/// One listener in this run.
#[derive(Clone, Debug)]
pub struct ListenerHistory {
    /// The last sample.
    pub last: Listener,
    /// How many samples there are.
    pub samples: u64,
    /// Samples in which its accept queue was full.
    pub full: u64,
    /// The longest that its accept queue was.
    pub longest: u32,
    /// The longest that its SYN queue was.
    pub syn_longest: u32,
    /// Handshakes whose events found its accept queue full.
    pub full_at_events: u64,
    /// Its `drops` when the run began, or 0 where it was opened later.
    first_drops: Option<u64>,
}

impl ListenerHistory {
    /// Whether its accept queue was ever seen to be full.
    pub fn was_full(&self) -> bool {
        self.full > 0 || self.full_at_events > 0
    }

    /// In which samples and events, in words.
    pub fn how_full(&self) -> String {
        let max = self.last.accept_queue_max.unwrap_or(0);
        let events = match self.full_at_events {
            0 => String::new(),
            n => format!(", and at events of {n} handshakes"),
        };
        format!(
            "listener {}: accept queue full in {} of {} checks{events}, up to {} of {max}",
            self.name(),
            self.full,
            self.samples,
            self.longest
        )
    }

    /// Packets discarded at this very listener in this run.
    pub fn dropped(&self) -> u64 {
        match (self.first_drops, self.last.drops) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => 0,
        }
    }

    /// Its name: `0.0.0.0:8080 (java/1234)`.
    pub fn name(&self) -> String {
        let l = &self.last;
        let at = std::net::SocketAddr::new(l.local_addr, l.local_port);
        match (&l.comm, l.pid) {
            (Some(comm), Some(pid)) => format!("{at} ({}/{pid})", crate::util::format::safe(comm)),
            _ => at.to_string(),
        }
    }

    /// How full the SYN queue was at its fullest, of what fits.
    pub fn syn_fill(&self) -> Option<f64> {
        // It is full above its limit: one more fits.
        let room = self.last.syn_queue_max.filter(|max| *max > 0)? + 1;
        Some(f64::from(self.syn_longest) / f64::from(room))
    }
}

#[derive(Default)]
pub(super) struct ListenerHistories {
    /// In an order that no hash decides: the same run gives the same lines.
    listeners: BTreeMap<(u32, u16, [u8; 16]), ListenerHistory>,
    counters: HashMap<u32, (ListenCounters, ListenCounters)>,
    addresses: HashMap<u32, HashSet<IpAddr>>,
}

impl ListenerHistories {
    pub(super) fn note(&mut self, listeners: &[Listener], counters: &[ListenCounters]) {
        for l in listeners {
            let key = (l.netns, l.local_port, mapped(l.local_addr));
            // A listener that an earlier sample of its namespace did not show was opened since. `sk_drops`
            // of a new socket is 0, so all its drops belong to this run.
            let is_new = self.counters.contains_key(&l.netns);
            let history = self
                .listeners
                .entry(key)
                .or_insert_with(|| ListenerHistory {
                    last: l.clone(),
                    samples: 0,
                    full: 0,
                    longest: 0,
                    syn_longest: 0,
                    full_at_events: 0,
                    first_drops: if is_new { l.drops.map(|_| 0) } else { l.drops },
                });
            let queue = Queue {
                accept_queue: l.accept_queue.unwrap_or(0),
                max: l.accept_queue_max.unwrap_or(u32::MAX),
                ..Queue::default()
            };
            history.samples += 1;
            history.full += u64::from(queue.accept_queue_is_full());
            history.longest = history.longest.max(queue.accept_queue);
            history.syn_longest = history.syn_longest.max(l.syn_queue.unwrap_or(0));
            history.last = l.clone();
        }
        for now in counters {
            self.counters
                .entry(now.netns)
                .and_modify(|(_, last)| *last = *now)
                .or_insert((*now, *now));
        }
    }

    pub(super) fn has_addresses(&mut self, netns: u32, addresses: Vec<IpAddr>) {
        self.addresses.entry(netns).or_default().extend(addresses);
    }

    /// A connection was accepted at this address, so it is the namespace's.
    pub(super) fn served(&mut self, netns: u32, local: IpAddr) {
        self.addresses.entry(netns).or_default().insert(local);
    }

    /// An event found the accept queue of the listener that serves this address full.
    pub(super) fn full_at_event(&mut self, netns: u32, addr: IpAddr, port: u16, queue: Queue) {
        let exact = (netns, port, mapped(addr));
        let found = if self.listeners.contains_key(&exact) {
            self.listeners.get_mut(&exact)
        } else {
            let mut serves = self
                .listeners
                .iter_mut()
                .filter(|((n, p, bound), _)| (*n, *p) == (netns, port) && is_wildcard(*bound));
            serves.next().map(|(_, history)| history)
        };
        if let Some(history) = found {
            history.full_at_events += 1;
            history.longest = history.longest.max(queue.accept_queue);
        }
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = &ListenerHistory> {
        self.listeners.values()
    }

    pub(super) fn listener(&self, netns: u32, addr: IpAddr, port: u16) -> Option<&ListenerHistory> {
        let exact = self.listeners.get(&(netns, port, mapped(addr)));
        exact.or_else(|| {
            let mut serves = self
                .listeners
                .iter()
                .filter(|((n, p, bound), _)| (*n, *p) == (netns, port) && is_wildcard(*bound));
            serves.next().map(|(_, history)| history)
        })
    }

    /// The listener at an address of this host, in whichever namespace has it; its own first.
    pub(super) fn on_this_host(
        &self,
        own: u32,
        addr: IpAddr,
        port: u16,
    ) -> Option<&ListenerHistory> {
        let has = |netns: u32| {
            addr.is_loopback() && netns == own
                || self
                    .addresses
                    .get(&netns)
                    .is_some_and(|all| all.contains(&addr))
        };
        let mut namespaces: Vec<u32> = self
            .listeners
            .keys()
            .filter(|(netns, p, _)| *p == port && has(*netns))
            .map(|(netns, ..)| *netns)
            .collect();
        namespaces.sort_by_key(|netns| (*netns != own, *netns));
        namespaces
            .into_iter()
            .find_map(|netns| self.listener(netns, addr, port))
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

    pub(super) fn moved(
        &self,
        netns: u32,
        pick: fn(&ListenCounters) -> Option<u64>,
    ) -> Option<u64> {
        let (first, last) = self.counters.get(&netns)?;
        Some(pick(last)?.saturating_sub(pick(first)?))
    }
}
