//! The state of the table during the run.

use std::collections::BTreeMap;

use super::{Tracker, handshake::OpenHandshake, handshake_end::HandshakeEnd};
use crate::model::{Handshake, OpenReason, Peer, PortState, Role, UnderWay};

impl Tracker {
    /// Whether there are lines to take.
    pub fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// The peers, those with most trouble first.
    pub fn peers(&self) -> Vec<Peer> {
        self.peers.table()
    }

    /// Every handshake in progress; active opens first, each in the order in which it became known.
    pub fn under_way(&self) -> impl Iterator<Item = UnderWay> {
        let clients = self.clients.iter().map(|(_, open)| open);
        let earlier = self.preexisting.iter().map(|(_, open)| open);
        clients
            .chain(earlier)
            .filter(|open| !open.awaits_port)
            .map(under_way)
            .chain(self.half_opens.under_way())
    }

    /// Handshakes in progress as if the run ended now, the oldest of each kind first: at most `most`.
    pub fn as_if_ended(&self, at_ns: u64, most: usize) -> Vec<Handshake> {
        let clients = self.clients.iter().map(|(_, open)| open.clone());
        let earlier = self.preexisting.iter().map(|(_, open)| open.clone());
        let half_opens = self.half_opens.iter().map(|(_, open)| open);
        let end = HandshakeEnd::open(OpenReason::RunEnded, at_ns);
        clients
            .chain(earlier)
            .chain(half_opens)
            .filter(|open| !open.awaits_port)
            .take(most)
            .map(|open| self.handshake(open, &end))
            .collect()
    }

    /// The handshakes in progress, by namespace, role and port.
    pub fn ports(&self) -> Vec<PortState> {
        let mut ports = BTreeMap::new();
        let mut add = |netns, role, port, began_ns: Option<u64>| {
            let state = ports.entry((netns, role, port)).or_insert(PortState {
                netns,
                role,
                port,
                open: 0,
                oldest_ns: None,
            });
            state.open += 1;
            state.oldest_ns = match (state.oldest_ns, began_ns) {
                (Some(oldest), Some(began)) => Some(oldest.min(began)),
                (oldest, began) => oldest.or(began),
            };
        };
        let clients = self.clients.iter().map(|(_, open)| open);
        let earlier = self.preexisting.iter().map(|(_, open)| open);
        for open in clients.chain(earlier).filter(|open| !open.awaits_port) {
            let c = &open.connection;
            add(c.netns, c.role, c.peer_port, open.known_start_ns());
        }
        // There may be a million.
        for (tuple, began_ns) in self.half_opens.beginnings() {
            add(tuple.netns, Role::Server, Some(tuple.local_port), began_ns);
        }
        ports.into_values().collect()
    }
}

/// As a live view shows it.
pub(super) fn under_way(open: &OpenHandshake) -> UnderWay {
    let start = open.start.filter(|start| start.is_known(open.alive_ns));
    UnderWay {
        began_ns: open.known_start_ns(),
        began_error_us: start.map_or(0, |start| start.error_us),
        // The event of a later one may have been lost: then it is known of neither.
        next_ns: open
            .last_tx_ns
            .zip(open.next_us)
            .map(|(last_ns, next_us)| last_ns + next_us * 1000),
        gives_up_ns: open.gives_up.map(|(at_ns, _)| at_ns),
        state: open.state,
        retransmits: open.retransmits,
        retransmits_by_peer: open.by_peer,
        gaps_us: open.gaps_us.clone(),
        connection: open.connection.clone(),
    }
}
