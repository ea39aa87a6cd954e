//! Active opens that ended without an event: sock_diag does not show them any more.
//!
//! An unanswered first SYN raises one event, and the local port is chosen after it. Most active opens can
//! therefore only be matched by their peer. Where a peer has some sockets in SYN_SENT but fewer than the
//! table, which of them ended is not known yet.

use std::collections::HashMap;

use super::{Tracker, handshake::OpenHandshake, unreported::Unreported};
use crate::{
    model::{Role, SocketDump, TcpState},
    util::addresses::mapped,
};

/// Dumps in a row that must not show it: one dump may skip a row (`tcp_diag_dump()`).
const ABSENCES: u8 = 2;

/// A peer's sockets in SYN_SENT, by local port.
type Shown = HashMap<([u8; 16], u16), Vec<u16>>;

impl Tracker {
    /// Whether the last dump did not show one, so that another dump must decide.
    pub fn in_doubt(&self) -> bool {
        self.clients.iter().any(|(_, open)| open.absences > 0)
    }

    /// Ends those that are gone, and counts their ends as lost.
    pub(super) fn end_gone_clients(&mut self, dump: &SocketDump) {
        let Some(rows) = &dump.syn_sent else {
            return;
        };
        let mut shown = Shown::new();
        for row in rows {
            let peer = (row.tuple.peer_addr, row.tuple.peer_port);
            shown.entry(peer).or_default().push(row.tuple.local_port);
        }
        let due = |open: &OpenHandshake| {
            open.connection.role == Role::Client
                && open.connection.netns == dump.netns
                && open.state == TcpState::SynSent
                && open.alive_ns < dump.before_ns
        };
        let mut changed = Vec::new();
        for (sock, open) in self.clients.iter().filter(|(_, open)| due(open)) {
            let c = &open.connection;
            let peer = (mapped(c.peer_addr), c.peer_port.unwrap_or(0));
            let there = shown.get(&peer).is_some_and(|ports| match c.local_port {
                Some(port) => ports.contains(&port),
                None => !ports.is_empty(),
            });
            if !there || open.absences > 0 {
                changed.push((*sock, there));
            }
        }
        let mut gone = 0;
        for (sock, there) in changed {
            let Some(open) = self.clients.get_mut(&sock) else {
                continue;
            };
            open.absences = if there { 0 } else { open.absences + 1 };
            if open.absences == ABSENCES
                && let Some(open) = self.clients.remove(&sock)
            {
                gone += u64::from(!open.awaits_port);
                self.end_not_seen(open, dump.before_ns, "sock_diag does not show it any more");
            }
        }
        self.count_unreported(dump.netns, dump.after_ns, gone, Unreported::ClientEnds);
    }
}
