//! What is known of listeners and of their namespaces' counters.

use std::net::{IpAddr, SocketAddr};

use super::{Context, DroppedPacket, Ends, ListenerHistory};
use crate::model::{Connection, LaterCounters, LimitedBy, ListenCounters, Listener, Role};

impl Context {
    /// Takes in a sample of the listeners and of the namespaces' counters.
    pub fn sample(&mut self, listeners: &[Listener], counters: &[ListenCounters]) {
        self.sample_at((0, 0), listeners, counters);
    }

    /// The same, with the times before and after the sample, CLOCK_MONOTONIC nanoseconds.
    pub fn sample_at(
        &mut self,
        when_ns: (u64, u64),
        listeners: &[Listener],
        counters: &[ListenCounters],
    ) {
        self.histories.note(when_ns, listeners, counters);
        self.accept_waits.sample(listeners);
    }

    /// Takes in further counters of the next sample.
    pub fn later_counters(&mut self, counters: Vec<(u32, LaterCounters)>) {
        self.histories.later.extend(counters);
    }

    /// A round of the poller is over, and every record of its time is taken in.
    pub fn round_ends(&mut self) {
        let s = &self.selection;
        let whole_ports = s.peers.is_empty() && s.peer_ports.is_empty() && s.wants(Role::Server);
        self.accept_waits
            .round_ends(whole_ports && !self.losses.any_of_handshakes());
    }

    /// A listener as its line has it: with the waits of its port.
    pub fn with_wait(&self, l: &Listener) -> Listener {
        Listener {
            accept_wait: self.accept_waits.wait(l.netns, l.local_port),
            ..l.clone()
        }
    }

    /// Takes in the addresses of a namespace.
    pub fn has_addresses(&mut self, netns: u32, addresses: Vec<IpAddr>) {
        self.histories.has_addresses(netns, addresses);
    }

    /// Takes in `net.ipv4.tcp_syncookies` of a namespace; `None`: it could not be read.
    pub fn has_syncookies(&mut self, netns: u32, setting: Option<u64>) {
        self.histories.has_syncookies(netns, setting);
    }

    /// Whether each SYN is answered with a cookie (`tcp_syncookies` 2).
    pub fn always_sends_cookies(&self, netns: u32) -> bool {
        self.histories.always_sends_cookies(netns)
    }

    /// Whether a listener belongs to the selection. A listener has no peer: where the selection names peers,
    /// one of their handshakes or dropped SYNs must have come to it.
    pub fn selects_listener(&self, l: &Listener) -> bool {
        let at = (l.netns, l.local_port);
        let came = || {
            let dropped = |d: &DroppedPacket| (d.netns, d.to.port()) == at;
            self.ports.of(at.0, at.1).is_some() || self.dropped_syns().any(dropped)
        };
        self.selection
            .selects_listener(l.local_port, l.netns)
            .unwrap_or_else(came)
    }

    /// The listener that serves a connection.
    pub fn listener(&self, c: &Connection) -> Option<&ListenerHistory> {
        worst_off(self.group(c))
    }

    /// The listener that serves an address and port.
    pub fn listener_at(&self, netns: u32, at: SocketAddr) -> Option<&ListenerHistory> {
        self.histories.listener(netns, at.ip(), at.port())
    }

    /// A listener on the port that a client calls, bound to another address than the one called, in the namespace
    /// of this host that has it. `None` also where the connection goes elsewhere.
    pub fn listener_elsewhere(&self, c: &Connection) -> Option<&ListenerHistory> {
        let called = SocketAddr::new(c.peer_addr, c.peer_port?);
        if self.redirected_to(c).is_some() || self.handed_over_to(called).is_some() {
            return None;
        }
        self.histories.elsewhere(c.netns, called)
    }

    /// The listener that a client calls, where that is on this host and its namespace is known.
    pub fn called_listener(&self, c: &Connection) -> Option<&ListenerHistory> {
        let called = match self.redirected_to(c) {
            Some(to) => to,
            None => SocketAddr::new(c.peer_addr, c.peer_port?),
        };
        let there = self
            .histories
            .on_this_host(c.netns, self.seen_arriving(c, called), called);
        let handed = self.handed_over_to(called);
        // A router on this host may answer in the place of the host that has the address.
        let answered_there = there.is_some_and(|l| {
            let netns = l.last.netns;
            handed.is_some_and(|(other, _)| other != netns)
                && self.has_accepted(netns, c.local_addr, called.ip())
        });
        match handed {
            Some((netns, port)) if !answered_there => {
                worst_off(self.histories.handed(netns, called.ip(), port)).or(there)
            }
            _ => there,
        }
    }

    /// The namespace with this address in which a packet of the connection was seen to arrive.
    fn seen_arriving(&self, c: &Connection, called: SocketAddr) -> Option<u32> {
        let ends = Ends::between(SocketAddr::new(c.local_addr, c.local_port?), called);
        let has = |netns: u32| self.histories.has_address(netns, called.ip()) == Some(true);
        let dropped = self.drops.of(&ends, 0).into_iter();
        dropped
            .filter(|d| d.incoming && d.to.port() == called.port())
            .map(|d| d.netns)
            .find(|netns| has(*netns))
    }

    /// The sockets that serve a connection of this host's server: several where they share the address by
    /// SO_REUSEPORT.
    pub fn group(&self, c: &Connection) -> Vec<&ListenerHistory> {
        match self.serving_port(c) {
            port if port == c.local_port => {
                self.histories
                    .group(c.netns, c.local_addr, port.unwrap_or(0))
            }
            port => self
                .histories
                .handed(c.netns, c.local_addr, port.unwrap_or(0)),
        }
    }

    /// All sockets that share the address of a listener by SO_REUSEPORT, itself included.
    pub fn group_of(&self, l: &Listener) -> Vec<&ListenerHistory> {
        self.histories.group(l.netns, l.local_addr, l.local_port)
    }

    /// How many SYNs that clients of this host sent to an address, since the counters of the listener's
    /// namespace were read first and until they were read last, got no answer. Those that this host was seen
    /// to drop are left out: no listener saw them.
    pub fn unanswered_syns(&self, c: &Connection, listener: &ListenerHistory) -> u64 {
        let between = self.histories.counted_between(listener.last.netns);
        let port = c.peer_port.unwrap_or(0);
        let ended = self.unanswered.between(c.peer_addr, port, between);
        ended + self.unanswered_open.between(c.peer_addr, port, between)
    }

    /// SYNs and final ACKs that listeners of a namespace refused in this run for another reason than a full
    /// queue; `None`: not known.
    pub fn refused_without_trace(&self, netns: u32) -> Option<u64> {
        self.histories.refused_without_trace(netns)
    }

    /// SYNs that a full SYN queue refused because SYN cookies are off; `None`: no sign of that.
    pub fn refused_by_syn_queue(&self, listener: &ListenerHistory) -> Option<u64> {
        let netns = listener.last.netns;
        let counted = self.moved(netns, |c| c.req_q_full_drop).unwrap_or(0);
        // The rule of 3/4 of tcp_max_syn_backlog has no counter of its own.
        let uncounted = match listener.last.limited_by {
            Some(LimitedBy::TcpMaxSynBacklog) if listener.syn_queue_was_full() => {
                let no_routes = self.moved(netns, |c| c.out_no_routes).unwrap_or(0);
                let refused = self.refused_without_trace(netns).unwrap_or(0);
                refused.saturating_sub(no_routes)
            }
            _ => 0,
        };
        Some(counted.saturating_add(uncounted)).filter(|n| *n > 0)
    }

    /// Whether the kernel counted that a SYN queue of the listener's namespace was full.
    pub fn counts_full_syn_queue(&self, listener: &ListenerHistory) -> bool {
        self.moved(listener.last.netns, |c| c.req_q_full_drop) > Some(0)
    }

    /// Whether the sockets of a SO_REUSEPORT group take over half-opens of one that is closed
    /// (`tcp_migrate_req`); `None`: not known, or this kernel cannot.
    pub fn migrates(&self, netns: u32) -> Option<bool> {
        Some(self.histories.last_counters(netns)?.migrate_req? != 0)
    }

    /// RSTs that the namespace of a closed listener sent since the check before it was closed.
    pub fn rsts_since_closed(&self, l: &ListenerHistory) -> Option<u64> {
        let now = self.histories.last_counters(l.last.netns)?.out_rsts?;
        Some(now.saturating_sub(l.rsts_before_close?))
    }

    /// Namespaces of the selection whose counters were read.
    pub fn counted_namespaces(&self) -> impl Iterator<Item = u32> {
        self.histories
            .namespaces()
            .filter(|netns| self.selection.netns.is_none_or(|only| only.contains(netns)))
    }

    /// `ListenOverflows` of the peer in this run, where the peer is this host.
    pub fn peer_overflows(&self, c: &Connection) -> Option<u64> {
        let called = self.redirected_to(c).map_or(c.peer_addr, |to| to.ip());
        self.histories.overflows_at(c.netns, called)
    }

    /// What `ListenOverflows` of a namespace counted, in words. A final ACK with a valid cookie that finds a full queue
    /// counts as a SYN does.
    pub fn what_overflowed(&self, netns: u32) -> &'static str {
        match self.returned_cookies(netns) {
            false => "SYNs are dropped silently",
            true => "SYNs, and final ACKs of SYN cookies, are dropped silently",
        }
    }

    /// Whether final ACKs with a valid cookie came to a namespace in this run.
    pub fn returned_cookies(&self, netns: u32) -> bool {
        self.moved(netns, |c| c.syncookies_recv) > Some(0)
    }

    /// By how much a namespace's counter rose in this run.
    pub fn moved(&self, netns: u32, pick: fn(&ListenCounters) -> Option<u64>) -> Option<u64> {
        self.histories.moved(netns, pick)
    }

    /// All listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &ListenerHistory> {
        self.histories.listeners()
    }
}

/// Of the sockets that share an address the one that is worst off.
pub(super) fn worst_off(group: Vec<&ListenerHistory>) -> Option<&ListenerHistory> {
    group.into_iter().max_by_key(|h| h.trouble())
}
