//! One namespace that is watched: what stays open of it.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Instant};

use crate::{
    diag::{
        addresses::addresses,
        conntrack::ConntrackReader,
        counters::{self, CounterReader},
        handshake_settings,
        icmp::IcmpErrors,
        listen_queues::read_settings,
        route::Routes,
        sock_diag::SockDiag,
    },
    model::{ConntrackReading, HandshakeSettings, LaterCounters, QueueSettings},
    sys::{fd_limit, netns::NetNs, sysctl::sysctl_numbers},
};

/// See the module.
pub(super) struct WatchedNetns {
    pub netns: NetNs,
    pub sock_diag: SockDiag,
    pub counters: Option<CounterReader>,
    pub routes: Option<Routes>,
    pub icmp: Option<Arc<IcmpErrors>>,
    /// `tcp_synack_retries`, as last read.
    pub synack_retries: Option<u64>,
    /// What decides how its handshakes go, as last read.
    pub settings: HandshakeSettings,
    /// What limits its queues, as last read.
    pub limits: QueueSettings,
    /// Its connection tracking, as last read.
    pub conntrack: Option<ConntrackReading>,
    /// Its settings and addresses are to be reported.
    pub is_stale: bool,
    /// `ListenDrops` when `Ip6OutNoRoutes` was read, and that.
    pub no_routes6: Option<(Option<u64>, Option<u64>)>,
    /// `ListenDrops`, as last read.
    pub listen_drops: Option<u64>,
    /// One of its listeners had IP_TRANSPARENT set when they were last read.
    pub transparent: bool,
    /// `tcp_migrate_req`, as last read.
    pub migrate_req: Option<u64>,
    /// Further counters, as last reported.
    pub later_told: Option<LaterCounters>,
    /// `TCPTimeouts` and `RetransSegs` when they were read first.
    pub timeouts_at_first: Option<(u64, u64)>,
    /// Listeners in whose accept queue a connection waited, as last read.
    pub waiting: HashSet<u32>,
    /// Segments that were counted before a look that showed no handshake in progress: received, sent.
    pub still_at: Option<(u64, u64)>,
    /// Whether its SYN_SENT were asked for.
    pub begun: bool,
    /// Whether the caller holds the namespace anyway.
    pub given: bool,
    /// Whether it outlasts this process: the host's.
    pub stays: bool,
    /// The name or the process that showed it is gone.
    pub alone: bool,
    /// When its settings were read.
    pub settings_read: Instant,
    /// Its addresses, once they were read, until they are reported.
    pub addresses: Option<Vec<IpAddr>>,
}

impl WatchedNetns {
    /// Whether our sockets may be what keeps it alive.
    pub fn may_end(&self) -> bool {
        !self.given && !self.stays
    }

    /// A request failed: the next one gets a socket of its own. Where there is none, the old one is tried again.
    pub fn reopen(&mut self) {
        if let Ok(sock_diag) = SockDiag::open(&self.netns) {
            self.sock_diag = sock_diag;
        }
    }

    /// Reads what changes seldom.
    pub fn read_settings(&mut self) {
        let netns = self.netns.clone();
        // On one thread, which enters the namespace once.
        let here = || {
            (
                handshake_settings(&netns),
                read_settings(&netns).unwrap_or_default(),
                addresses(&netns),
                ConntrackReader::open(&netns).and_then(|reader| reader.read(false)),
                sysctl_numbers(&netns, ["net/ipv4/tcp_migrate_req"]),
            )
        };
        self.is_stale = true;
        self.settings_read = Instant::now();
        let Ok(read) = netns.run(here) else {
            (self.settings, self.synack_retries) = Default::default();
            (self.limits, self.addresses) = (QueueSettings::default(), None);
            (self.conntrack, self.migrate_req) = (None, None);
            return;
        };
        ((self.settings, self.synack_retries), self.limits) = (read.0, read.1);
        self.addresses = match read.2 {
            Ok(addresses) => Some(addresses),
            // That has a line of its own.
            Err(error) if fd_limit::used_up(&error) => None,
            Err(error) => {
                log::warn!("addresses of namespace {}: {error}", netns.name());
                None
            }
        };
        self.conntrack = read.3.ok();
        [self.migrate_req] = read.4.unwrap_or_default();
    }

    /// Whether no segment came or went since a look that showed no handshake: none has begun.
    pub fn is_untouched(&mut self) -> bool {
        let Some(reader) = self.counters.as_mut().filter(|_| self.still_at.is_some()) else {
            return false;
        };
        // It may be one of a thousand.
        reader.forget();
        reader.snmp().ok().and_then(|snmp| snmp.segments()) == self.still_at
    }

    /// Packets without a route, of both families. Those of IPv6 are read again only after a listener has
    /// dropped something: until then nobody asks for them.
    pub fn out_no_routes(&mut self, now: &counters::MibCounters) -> Option<u64> {
        let drops = now.get("ListenDrops");
        let v6 = match self.no_routes6 {
            Some((at, value)) if at == drops => value,
            _ => self.counters.as_ref()?.ipv6("Ip6OutNoRoutes"),
        };
        self.no_routes6 = Some((drops, v6));
        Some(now.get_in("Ip", "OutNoRoutes")? + v6?)
    }
}
