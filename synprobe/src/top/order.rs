//! The order of the rows of a pane: by the names of `Pane::orders`.

use std::cmp::Reverse;

use super::{item::PaneItem, networks::PeerNetwork, pane::Pane};
use crate::model::{Listener, Peer, UnderWay};

/// Sorts them; with each goes its place in the state. Rows that are alike keep their order. `open_of`: the handshakes in progress of a peer.
pub(super) fn sort(
    pane: Pane,
    order: usize,
    items: &mut [(u32, PaneItem<'_>)],
    open_of: impl Fn(&Peer) -> u64,
) {
    match pane {
        Pane::Problems => problems(order, items),
        Pane::Listeners => items.sort_by_key(|(_, item)| match item {
            PaneItem::Listener(l) => Reverse(listener(order, l)),
            _ => Reverse((0, 0)),
        }),
        Pane::Events if order == 1 => items.reverse(),
        // They are in this order.
        Pane::Events => (),
        Pane::Handshakes => items.sort_by_key(|(_, item)| match item {
            PaneItem::Handshake(h) => handshake(order, h),
            _ => (0, None),
        }),
        Pane::Peers => items.sort_by_key(|(_, item)| match item {
            PaneItem::Peer(p) if order == 1 => (Reverse(open_of(p)), None),
            PaneItem::Peer(p) => peer(order, p),
            PaneItem::Network(n) => network(order, n),
            _ => (Reverse(0), None),
        }),
    }
}

fn problems(order: usize, items: &mut [(u32, PaneItem<'_>)]) {
    items.sort_by_key(|(_, item)| match (item, order) {
        (PaneItem::Problem(p), 1) => Reverse(p.open),
        (PaneItem::Problem(p), 2) => Reverse(p.handshakes),
        (PaneItem::Problem(p), 3) => Reverse(u64::MAX - p.life.since_ns),
        // The engine's: cause before symptom.
        _ => Reverse(0),
    });
}

/// How full a queue is, thousandths.
fn fullness(now: Option<u32>, max: Option<u32>) -> u64 {
    match (now, max) {
        (Some(now), Some(max)) => u64::from(now) * 1000 / u64::from(max.max(1)),
        _ => 0,
    }
}

fn listener(order: usize, l: &Listener) -> (u64, u64) {
    let accept = fullness(l.accept_queue, l.accept_queue_max);
    let syn = fullness(l.syn_queue, l.syn_queue_max);
    match order {
        1 => (l.syn_queue.unwrap_or(0).into(), syn),
        2 => (l.drops.unwrap_or(0), accept),
        3 => (u64::from(u16::MAX - l.local_port), 0),
        _ => (accept, syn),
    }
}

type HandshakeOrder = (u64, Option<std::net::IpAddr>);

fn handshake(order: usize, h: &UnderWay) -> HandshakeOrder {
    match order {
        1 => (u64::MAX - u64::from(h.retransmits), None),
        2 => (h.gives_up_ns.unwrap_or(u64::MAX), None),
        3 => (0, Some(h.connection.peer_addr)),
        // Where it is not known, it is older than the run.
        _ => (h.began_ns.unwrap_or(0), None),
    }
}

fn peer(order: usize, p: &Peer) -> (Reverse<u64>, Option<std::net::IpAddr>) {
    match order {
        2 => (Reverse(p.syn_retransmits + p.synack_retransmits), None),
        3 => (Reverse(0), Some(p.peer_addr)),
        _ => (Reverse(0), None),
    }
}

/// Without an order of its own, a network stands where its first peer does.
fn network(order: usize, n: &PeerNetwork) -> (Reverse<u64>, Option<std::net::IpAddr>) {
    match order {
        2 => (Reverse(n.again), None),
        3 => (Reverse(0), Some(n.net.network())),
        _ => (Reverse(0), None),
    }
}
