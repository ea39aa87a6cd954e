//! One namespace that is watched: what stays open of it, and what one round reads.

use std::{collections::HashSet, io, mem, net::IpAddr, sync::Arc, time::Instant};

use synprobe_ebpf::event::state;

use super::{LeftOut, Round, followed::FollowedListeners, listener_owners::OwnerSearch};
use crate::{
    diag::{
        addresses::addresses,
        conntrack::ConntrackReader,
        counters::{self, CounterReader},
        handshake_settings,
        icmp::IcmpErrors,
        inet_diag_msg::{Row, mask},
        listen_queues::{ListenQueues, read_settings},
        listen_sockets::{ListenSocket, ListenSockets},
        owner_state,
        route::Routes,
        sock_diag::{self, Query, SockDiag},
    },
    model::{
        AcceptReading, ConntrackReading, HalfOpenRow, HandshakeSettings, ListenCounters,
        ListenerOwner, QueueSettings, RetransCounts, RetransReading, SocketDump, Tuple,
    },
    sys::{clock::monotonic_ns, fd_limit, netns::NetNs, sysctl::sysctl_numbers},
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
        let reader = self.counters.as_mut().filter(|_| self.still_at.is_some());
        let now = reader.and_then(|reader| reader.read().ok());
        self.still_at.is_some() && now.as_ref().and_then(segments) == self.still_at
    }

    /// Packets without a route, of both families. Those of IPv6 are read again only after a listener has
    /// dropped something: until then nobody asks for them.
    fn out_no_routes(&mut self, now: &counters::MibCounters) -> Option<u64> {
        let drops = now.get("ListenDrops");
        let v6 = match self.no_routes6 {
            Some((at, value)) if at == drops => value,
            _ => self.counters.as_ref()?.ipv6("Ip6OutNoRoutes"),
        };
        self.no_routes6 = Some((drops, v6));
        Some(now.get_in("Ip", "OutNoRoutes")? + v6?)
    }
}

/// The connection of a row.
pub(super) fn tuple(row: &Row, netns: u32) -> Tuple {
    Tuple {
        netns,
        local_addr: row.local_addr,
        peer_addr: row.peer_addr,
        local_port: row.local_port,
        peer_port: row.peer_port,
    }
}

/// What one namespace showed.
pub(super) struct Seen {
    half_opens: sock_diag::SockDump,
    pub syn_sent: Vec<Row>,
    pub is_first: bool,
    /// No segment came or went since a look that showed no handshake.
    pub rests: bool,
    pub listeners: ListenSockets,
    /// Those that are not followed.
    left_out: LeftOut,
    /// When their queues were read.
    accept_reading: AcceptReading,
    /// Listeners in whose accept queue a connection waited at the check before.
    waited: HashSet<u32>,
    counters: Option<counters::MibCounters>,
    counted_ns: u64,
    /// See [`ListenCounters::out_no_routes`].
    out_no_routes: Option<u64>,
}

/// Owners whose state is read in a round, at most: a few files of `/proc` each.
const OWNERS_READ: usize = 32;

/// Segments of a namespace: received and sent. The kernel counts a SYN before it makes a half-open of it
/// (`tcp_v4_rcv()`), and its own before they leave (`__tcp_transmit_skb()`).
fn segments(counters: &counters::MibCounters) -> Option<(u64, u64)> {
    Some((
        counters.get_in("Tcp", "InSegs")?,
        counters.get_in("Tcp", "OutSegs")?,
    ))
}

impl Seen {
    /// Looks. With `may_rest` the kernel's connection table is not walked where no segment came or went since a look that
    /// showed no handshake: none can have begun. The table may have a quarter of a million buckets.
    pub fn of(
        watched: &mut WatchedNetns,
        may_rest: bool,
        followed: &mut FollowedListeners,
    ) -> io::Result<Self> {
        let before_ns = monotonic_ns();
        let reader = watched.counters.as_mut().filter(|_| may_rest);
        let before = reader.and_then(|reader| reader.read().ok());
        let segments = before.as_ref().and_then(segments);
        let rests = segments.is_some() && segments == watched.still_at;
        let mut half_opens = if rests {
            sock_diag::SockDump {
                before_ns,
                after_ns: monotonic_ns(),
                ..Default::default()
            }
        } else {
            // One walk for both: most of its price is the walk.
            let query = Query::states(mask::SYN_RECV | mask::SYN_SENT);
            watched.sock_diag.dump(&query)?
        };
        let is_still = half_opens.rows.is_empty() && !half_opens.interrupted;
        watched.still_at = segments.filter(|_| is_still);
        // In place: of half-opens there may be a million.
        let syn_sent = half_opens
            .rows
            .extract_if(.., |row| row.state == state::SYN_SENT)
            .collect();
        // A half-open has no inode. One that has is the socket of an active open that the peer's SYN met (a
        // simultaneous open), or a Fast Open child that was accepted: events tell of both.
        half_opens.rows.retain(|row| row.inode == 0);
        let counters = if rests {
            before
        } else {
            let reader = watched.counters.as_mut();
            reader.and_then(|reader| reader.read().ok())
        };
        let counted_ns = monotonic_ns();
        let drops = counters.as_ref().and_then(|c| c.get("ListenDrops"));
        if watched.begun && drops != watched.listen_drops {
            // A setting may be why: what limits a queue must be of the time of the drops.
            watched.read_settings();
        }
        watched.listen_drops = drops;
        let out_no_routes = counters
            .as_ref()
            .and_then(|counters| watched.out_no_routes(counters));
        let before_ns = monotonic_ns();
        let half_open: HashSet<u16> = half_opens.rows.iter().map(|row| row.local_port).collect();
        let mut choice = followed.choose(watched.netns.inode());
        let listeners = ListenSockets::read_some(&mut watched.sock_diag, |l| {
            choice.follows(l, half_open.contains(&l.local_port))
        });
        let left_out = choice.end();
        let listeners = listeners?;
        watched.transparent = listeners.iter().any(|l| l.transparent);
        let after_ns = monotonic_ns();
        let opens = |counters: &counters::MibCounters| counters.get("PassiveOpens");
        let waits = listeners.iter().any(|l| l.accept_queue > 0);
        let reader = watched.counters.as_mut().filter(|_| waits);
        let later = reader.and_then(|reader| reader.read().ok());
        let accept_reading = AcceptReading {
            netns: watched.netns.inode(),
            before_ns,
            after_ns,
            opens_before: counters.as_ref().and_then(opens),
            opens_after: later.as_ref().and_then(opens),
        };
        let now = listeners.iter().filter(|l| l.accept_queue > 0);
        let now = now.map(|l| l.inode).collect();
        let waited = mem::replace(&mut watched.waiting, now);
        Ok(Self {
            accept_reading,
            waited,
            half_opens,
            syn_sent,
            is_first: !mem::replace(&mut watched.begun, true),
            rests,
            listeners,
            left_out,
            counters,
            counted_ns,
            out_no_routes,
        })
    }

    /// Whether it showed a handshake in progress, or a connection that waits for accept().
    pub fn has_activity(&self) -> bool {
        !self.half_opens.rows.is_empty()
            || !self.syn_sent.is_empty()
            || self.listeners.iter().any(|l| l.accept_queue > 0)
    }

    /// The counters that move with handshakes, and the listeners' own drops.
    pub fn activity_counters(&self) -> Vec<Option<u64>> {
        let names = [
            "ActiveOpens",
            "PassiveOpens",
            "AttemptFails",
            "ListenOverflows",
            "ListenDrops",
            "SyncookiesSent",
            "TCPReqQFullDrop",
            "TCPSynRetrans",
            "EmbryonicRsts",
        ];
        let drops = self.listeners.iter().map(|l| l.drops.map(u64::from));
        names
            .iter()
            .map(|name| self.counter(name))
            .chain(drops)
            .collect()
    }

    fn counter(&self, name: &str) -> Option<u64> {
        self.counters.as_ref()?.get(name)
    }

    fn retransmitted(&self) -> Option<RetransCounts> {
        Some(RetransCounts {
            handshake: self.counter("TCPSynRetrans")?,
            segments: self.counter("RetransSegs")?,
        })
    }

    fn dump(&self, watched: &WatchedNetns) -> SocketDump {
        let netns = watched.netns.inode();
        let dump = &self.half_opens;
        let as_row = |row: &Row| HalfOpenRow {
            tuple: tuple(row, netns),
            family: row.family,
            retrans: row.retrans,
            expires_ms: row.expires_ms,
        };
        let small = |value: Option<u64>| value.and_then(|v| u32::try_from(v).ok());
        SocketDump {
            netns,
            before_ns: dump.before_ns,
            after_ns: dump.after_ns,
            rows: dump.rows.iter().map(as_row).collect(),
            syn_sent: Some(self.syn_sent.iter().map(as_row).collect()),
            is_first: self.is_first,
            synack_retries: small(watched.synack_retries),
            syn_linear: small(watched.settings.syn_linear_timeouts).unwrap_or(0),
            retransmitted: self.retransmitted().map(|counts| RetransReading {
                before_ns: dump.after_ns,
                after_ns: self.counted_ns,
                counts,
            }),
            retrans_fail: self.counter("TCPRetransFail").unwrap_or(0),
            embryonic_rsts: self.counter("EmbryonicRsts"),
        }
    }
}

impl Round {
    /// Takes in what a namespace showed; `is_new`: nothing of it was reported before.
    pub(super) fn take_in(
        &mut self,
        watched: &mut WatchedNetns,
        seen: &Seen,
        owners: &OwnerSearch,
        is_new: bool,
    ) {
        let netns = watched.netns.inode();
        let news = |l: &&ListenSocket| is_new || owners.is_fresh(l.inode);
        if seen.listeners.iter().any(|l| news(&l)) {
            self.owners
                .extend(seen.listeners.iter().filter(news).map(|l| {
                    let who = owners.who(l.inode).unwrap_or_default();
                    ListenerOwner {
                        netns,
                        local_addr: l.local_addr,
                        local_port: l.local_port,
                        process: who.process,
                        cgroup: who.cgroup,
                    }
                }));
        }
        let queues = ListenQueues {
            listeners: &seen.listeners,
            half_opens: &seen.half_opens.rows,
            counters: seen.counters.as_ref(),
            settings: &watched.limits,
        };
        let name: Arc<str> = watched.netns.name().into();
        let mut lines = queues.lines(&name, |inode| owners.who(inode));
        for line in &mut lines {
            let half_full = line
                .accept_queue
                .zip(line.accept_queue_max)
                .is_some_and(|(now, max)| now > 0 && now >= max / 2);
            let waits = line.accept_queue > Some(0)
                && line.inode.is_some_and(|inode| seen.waited.contains(&inode));
            if (half_full || waits) && self.owners_read < OWNERS_READ {
                self.owners_read += 1;
                line.owner_state = line.pid.and_then(owner_state::read);
            }
        }
        self.queues.extend(lines);
        self.accept_readings.push(seen.accept_reading);
        self.counters.push(ListenCounters {
            netns,
            listen_overflows: seen.counter("ListenOverflows"),
            listen_drops: seen.counter("ListenDrops"),
            syncookies_sent: seen.counter("SyncookiesSent"),
            syncookies_recv: seen.counter("SyncookiesRecv"),
            req_q_full_drop: seen.counter("TCPReqQFullDrop"),
            out_no_routes: seen.out_no_routes,
            out_rsts: seen.counter("OutRsts"),
            migrate_req: watched.migrate_req,
        });
        if mem::take(&mut watched.is_stale) {
            self.settings.push((netns, watched.settings));
            self.conntrack.extend(watched.conntrack);
            let addresses = watched.addresses.take();
            self.addresses
                .extend(addresses.map(|addresses| (netns, addresses)));
        }
        if seen.left_out != LeftOut::default() {
            self.left_out.push((netns, seen.left_out));
        }
        self.dumps.push(seen.dump(watched));
    }
}
