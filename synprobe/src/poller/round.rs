//! What a round takes in of a namespace.

use std::{mem, sync::Arc};

use super::{
    LeftOut, Round, listener_owners::OwnerSearch, seen::Seen, watched_netns::WatchedNetns,
};
use crate::{
    diag::{listen_queues::ListenQueues, listen_sockets::ListenSocket, owner_state},
    model::{ListenCounters, ListenerOwner},
};

/// Owners whose state is read in a round, at most: a few files of `/proc` each.
const OWNERS_READ: usize = 32;

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
        let later = seen.later_counters(watched);
        if watched.later_told.replace(later) != Some(later) {
            self.later_counters.push((netns, later));
        }
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
            later,
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
