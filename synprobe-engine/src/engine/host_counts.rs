//! Counts of this host that no line has: dropped packets, and the counters of listeners and namespaces. They
//! only rise during a run, whatever is closed or deleted meanwhile.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use crate::model::{ListenCounters, Listener};

/// Reasons of drops that are counted each, in and out. Of the kernel's, a few dozen concern handshakes.
const REASONS: usize = 64;
/// Ports whose listeners are counted each; all others are counted under `None`.
const PORTS: usize = 1024;

/// One listening socket: namespace, port, address and inode.
type Socket = (u32, u16, IpAddr, Option<u32>);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// Packets of handshakes that this host dropped, by the kernel's name of the reason, and whether they came
    /// in. `None`: there were too many reasons.
    pub drops: BTreeMap<(Option<Cow<'static, str>>, bool), u64>,
    /// By how much `sk_drops` of the listeners rose, by port.
    pub listener_drops: BTreeMap<Option<u16>, u64>,
    /// By how much `ListenOverflows` rose, all namespaces together; `None`: it could not be read.
    pub listen_overflows: Option<u64>,
    /// By how much `SyncookiesSent` rose, all namespaces together; `None`: it could not be read.
    pub syn_cookies_sent: Option<u64>,
    sockets: HashMap<Socket, u64>,
    namespaces: HashMap<u32, ListenCounters>,
    /// Namespaces that the next sample leaves out although they exist.
    idle: HashSet<u32>,
}

impl HostCounts {
    /// Counts a dropped packet.
    pub fn drop(&mut self, reason: Cow<'static, str>, incoming: bool) {
        let key = (Some(reason), incoming);
        let key = match self.drops.len() < REASONS || self.drops.contains_key(&key) {
            true => key,
            false => (None, incoming),
        };
        *self.drops.entry(key).or_default() += 1;
    }

    /// Takes in a sample of the listeners that are `selected`, and of the counters of their namespaces.
    pub(super) fn sample(
        &mut self,
        listeners: &[Listener],
        selected: impl Fn(&Listener) -> bool,
        counters: &[ListenCounters],
    ) {
        let polled: HashSet<u32> = counters.iter().map(|c| c.netns).collect();
        for l in listeners.iter().filter(|l| selected(l)) {
            self.listener(l, &polled);
        }
        // Sockets that a namespace does not show any more are closed.
        let shown: HashSet<Socket> = listeners.iter().map(socket).collect();
        self.sockets
            .retain(|socket, _| shown.contains(socket) || !polled.contains(&socket.0));
        for now in counters {
            self.namespace(now);
        }
        // Namespaces that are gone. Their sums stay.
        let idle = std::mem::take(&mut self.idle);
        let exists = |netns: u32| idle.contains(&netns) || polled.contains(&netns);
        self.namespaces.retain(|netns, _| exists(*netns));
        self.sockets.retain(|socket, _| exists(socket.0));
    }

    /// The next sample leaves these namespaces out, although they exist.
    pub(super) fn not_polled(&mut self, namespaces: &[u32]) {
        self.idle.extend(namespaces);
    }

    fn listener(&mut self, l: &Listener, polled: &HashSet<u32>) {
        let Some(drops) = l.drops else { return };
        let opened_in_run = polled.contains(&l.netns) && self.namespaces.contains_key(&l.netns);
        let before = self.sockets.insert(socket(l), drops);
        let rose = match before {
            // `sk_drops` of one socket never falls: another has its place.
            Some(before) => drops.checked_sub(before).unwrap_or(drops),
            None if opened_in_run => drops,
            None => 0,
        };
        let port = Some(l.local_port);
        let known = self.listener_drops.len() < PORTS || self.listener_drops.contains_key(&port);
        *self
            .listener_drops
            .entry(port.filter(|_| known))
            .or_default() += rose;
    }

    fn namespace(&mut self, now: &ListenCounters) {
        let before = self.namespaces.insert(now.netns, *now);
        let rose = |pick: fn(&ListenCounters) -> Option<u64>| {
            let now = pick(now)?;
            let before = before.as_ref().and_then(pick);
            // The first reading shows what was before the run.
            Some(before.map_or(0, |before| now.saturating_sub(before)))
        };
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0) + more);
            }
        };
        add(&mut self.listen_overflows, rose(|c| c.listen_overflows));
        add(&mut self.syn_cookies_sent, rose(|c| c.syncookies_sent));
    }
}

fn socket(l: &Listener) -> Socket {
    (l.netns, l.local_port, l.local_addr, l.inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::fixtures::listener;

    fn counters(overflows: u64) -> ListenCounters {
        ListenCounters {
            netns: 1,
            listen_overflows: Some(overflows),
            ..ListenCounters::default()
        }
    }

    fn socket_with(inode: u32, drops: u64) -> Listener {
        Listener {
            netns: 1,
            local_port: 80,
            inode: Some(inode),
            drops: Some(drops),
            ..listener(0, 0)
        }
    }

    #[test]
    fn a_listener_that_is_replaced_takes_nothing_back() {
        let mut counts = HostCounts::default();
        let mut drops = |inode, drops, overflows| {
            counts.sample(
                &[socket_with(inode, drops)],
                |_| true,
                &[counters(overflows)],
            );
            (counts.listener_drops[&Some(80)], counts.listen_overflows)
        };
        // What was before the run does not count.
        assert_eq!(drops(7, 100, 50), (0, Some(0)));
        assert_eq!(drops(7, 103, 52), (3, Some(2)));
        // Opened in the run, all of its own count.
        assert_eq!(drops(8, 4, 52), (7, Some(2)));
        assert_eq!(drops(8, 5, 53), (8, Some(3)));
        counts.not_polled(&[1]);
        counts.sample(&[], |_| true, &[]);
        assert!(!counts.sockets.is_empty() && !counts.namespaces.is_empty());
        counts.sample(&[], |_| true, &[]);
        assert_eq!(counts.listener_drops[&Some(80)], 8);
        assert_eq!(counts.listen_overflows, Some(3));
        assert!(counts.sockets.is_empty() && counts.namespaces.is_empty());
    }

    #[test]
    fn reasons_are_bounded() {
        let mut counts = HostCounts::default();
        for n in 0..1000 {
            counts.drop(format!("REASON_{n}").into(), true);
        }
        assert_eq!(counts.drops.len(), REASONS + 1);
        assert_eq!(counts.drops.values().sum::<u64>(), 1000);
    }
}
