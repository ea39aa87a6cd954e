//! The state of the table during the run.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{Tracker, handshake::OpenHandshake, handshake_end::HandshakeEnd};
use crate::model::{Handshake, OpenReason, Peer, PortState, Role, UnderWay};

/// What is known of all handshakes in progress at one moment.
pub struct OpenSurvey {
    /// By namespace, role and port.
    pub ports: Vec<PortState>,
    /// How many by peer and role, where that is asked for.
    pub by_peer: HashMap<(IpAddr, Role), u64>,
    /// The oldest, the oldest first.
    pub oldest: Vec<UnderWay>,
}

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
        self.survey(0, false).ports
    }

    /// What is counted of the handshakes in progress, and the `most` oldest of them.
    pub fn survey(&self, most: usize, counts_peers: bool) -> OpenSurvey {
        // There may be a million.
        let half_opens = self.half_opens.survey(most, counts_peers);
        let clients = self.clients.iter().map(|(_, open)| open);
        let earlier = self.preexisting.iter().map(|(_, open)| open);
        let mut others: Vec<&OpenHandshake> = clients
            .chain(earlier)
            .filter(|open| !open.awaits_port)
            .collect();
        let mut ports = BTreeMap::new();
        let of_others = others.iter().map(|open| PortState {
            netns: open.connection.netns,
            role: open.connection.role,
            port: open.connection.peer_port,
            open: 1,
            oldest_ns: open.known_start_ns(),
        });
        for port in of_others.chain(half_opens.ports) {
            let key = (port.netns, port.role, port.port);
            let state = ports.entry(key).or_insert(PortState { open: 0, ..port });
            state.open += port.open;
            state.oldest_ns = match (state.oldest_ns, port.oldest_ns) {
                (Some(oldest), Some(began)) => Some(oldest.min(began)),
                (oldest, began) => oldest.or(began),
            };
        }
        let mut by_peer = HashMap::new();
        if counts_peers {
            by_peer.reserve(half_opens.by_peer.len());
            for (peer, open) in half_opens.by_peer {
                *by_peer.entry((peer, Role::Server)).or_default() += open;
            }
            for open in &others {
                let c = &open.connection;
                *by_peer.entry((c.peer_addr, c.role)).or_default() += 1;
            }
        }
        let age = |open: &&OpenHandshake| open.known_start_ns().unwrap_or(0);
        if others.len() > most {
            others.select_nth_unstable_by_key(most, age);
            others.truncate(most);
        }
        let mut oldest = half_opens.oldest;
        oldest.extend(others.into_iter().map(under_way));
        oldest.sort_by_key(|h| h.began_ns.unwrap_or(0));
        oldest.truncate(most);
        OpenSurvey {
            ports: ports.into_values().collect(),
            by_peer,
            oldest,
        }
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
