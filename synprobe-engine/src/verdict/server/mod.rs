//! Verdicts on half-opens.

mod accept_queue_full;
pub(super) mod accept_slow;
mod asymmetric_nat;
mod defer_accept;
pub(super) mod existing_connection;
mod flash_crowd;
pub(super) mod listener_closed;
mod peer_reset;
mod peer_silent;
pub(super) mod refused;
mod slow_peer;
mod syn_flood;
mod synack_lost;

pub(super) use accept_queue_full::AcceptQueueFull;
pub(super) use accept_slow::AcceptSlow;
pub(super) use asymmetric_nat::AsymmetricNat;
pub(super) use defer_accept::DeferAccept;
pub(super) use existing_connection::ExistingConnection;
pub(super) use flash_crowd::FlashCrowd;
pub(super) use listener_closed::ListenerClosed;
pub(super) use peer_reset::PeerReset;
pub(super) use peer_silent::PeerSilent;
pub(super) use slow_peer::SlowPeer;
pub(super) use syn_flood::SynFlood;
pub(super) use synack_lost::SynackLost;

use crate::{
    model::{Handshake, Outcome, Role},
    verdict::{
        context::{self, IcmpReport},
        enter_of, who_listens,
    },
};

/// What is not seen of a discarded ACK.
const ACK_UNTOLD: &str = "whether the ACK was the final one is not seen: before Linux 6.15 the kernel does not tell why \
     a half-open discards one";

/// Whether it is a half-open of this host that did not end in a connection.
fn unfinished(h: &Handshake) -> bool {
    h.connection.role == Role::Server && h.outcome != Outcome::Established
}

/// ICMP errors that are quoted.
const ERRORS: usize = 2;

/// What ICMP errors about the SYN-ACK of a half-open say.
fn icmp_facts(errors: &[&IcmpReport], h: &Handshake) -> Vec<String> {
    let fact = |e: &&IcmpReport| {
        let times = context::times(e.count);
        format!("ICMP from {}: {}, {}", e.from, e.what, times)
    };
    let mut facts: Vec<String> = errors.iter().take(ERRORS).map(fact).collect();
    if errors.iter().any(|e| e.fits(h) == Some(true)) {
        facts.push(
            "such an error quotes the SYN-ACK of this half-open, with its sequence number: it did not reach the peer"
                .to_owned(),
        );
    }
    facts
}

/// The beginning of a remedy, where a router sent such an error. Who is off the path does not know the number.
fn ask_router(errors: &[&IcmpReport], h: &Handshake) -> String {
    let peer = h.connection.peer_addr;
    let router = errors
        .iter()
        .find(|e| e.from != peer && e.fits(h) == Some(true));
    router.map_or(String::new(), |e| format!("ask the router {}; ", e.from))
}

/// Shows who listens on the port of a half-open.
fn ss_listener(h: &Handshake) -> String {
    let port = h.connection.local_port.unwrap_or(0);
    enter_of(&h.connection) + &who_listens(port)
}
