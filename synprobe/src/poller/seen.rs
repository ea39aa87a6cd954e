//! What one look at a namespace shows.

use std::{collections::HashSet, io, mem};

use synprobe_ebpf::event::state;

use super::{LeftOut, followed::FollowedListeners, watched_netns::WatchedNetns};
use crate::{
    diag::{
        counters::{self, Snmp},
        inet_diag_msg::{Row, mask},
        listen_sockets::ListenSockets,
        sock_diag::{self, Query},
    },
    model::{
        AcceptReading, HalfOpenRow, LaterCounters, RetransCounts, RetransReading, SocketDump, Tuple,
    },
    sys::clock::monotonic_ns,
};

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
    pub half_opens: sock_diag::SockDump,
    pub syn_sent: Vec<Row>,
    pub is_first: bool,
    /// No segment came or went since a look that showed no handshake.
    pub rests: bool,
    pub listeners: ListenSockets,
    /// Those that are not followed.
    pub left_out: LeftOut,
    /// When their queues were read.
    pub accept_reading: AcceptReading,
    /// Listeners in whose accept queue a connection waited at the check before.
    pub waited: HashSet<u32>,
    pub counters: Option<counters::MibCounters>,
    counted_ns: u64,
    /// See [`ListenCounters::out_no_routes`].
    pub out_no_routes: Option<u64>,
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
        let before = reader.and_then(|reader| reader.snmp().ok());
        let segments = before.as_ref().and_then(Snmp::segments);
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
        let reader = watched.counters.as_mut();
        let counters = reader.and_then(|reader| match before.filter(|_| rests) {
            Some(before) => reader.at_rest(before).ok(),
            None => reader.read().ok(),
        });
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

    /// A counter of the kernel by its name.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.counters.as_ref()?.get(name)
    }

    /// Counters that recordings of earlier versions do not have.
    pub fn later_counters(&self, watched: &mut WatchedNetns) -> LaterCounters {
        let mut silent = || {
            let now = (self.counter("TCPTimeouts")?, self.counter("RetransSegs")?);
            let first = *watched.timeouts_at_first.get_or_insert(now);
            Some(silent_timeouts(first, now))
        };
        LaterCounters {
            syncookies_failed: self.counter("SyncookiesFailed"),
            silent_timeouts: match watched.synack_retries {
                Some(0) => silent(),
                _ => None,
            },
        }
    }

    fn retransmitted(&self) -> Option<RetransCounts> {
        Some(RetransCounts {
            handshake: self.counter("TCPSynRetrans")?,
            segments: self.counter("RetransSegs")?,
        })
    }

    /// The half-opens and active opens.
    pub fn dump(&self, watched: &WatchedNetns) -> SocketDump {
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

/// Time-outs since the first reading after which nothing was retransmitted: a lower bound, for other segments are
/// retransmitted without a time-out too. Each pair: `TCPTimeouts`, `RetransSegs`.
fn silent_timeouts(first: (u64, u64), now: (u64, u64)) -> u64 {
    let timeouts = now.0.saturating_sub(first.0);
    timeouts.saturating_sub(now.1.saturating_sub(first.1))
}

#[cfg(test)]
mod tests {
    use super::silent_timeouts;

    /// What was retransmitted before the run without a time-out hides nothing of it.
    #[test]
    fn silent_time_outs_are_counted_from_the_first_reading() {
        assert_eq!(silent_timeouts((5, 900), (5, 900)), 0);
        assert_eq!(silent_timeouts((5, 900), (9, 901)), 3);
        assert_eq!(silent_timeouts((5, 2), (9, 2)), 4);
        assert_eq!(silent_timeouts((5, 2), (6, 40)), 0);
    }
}
