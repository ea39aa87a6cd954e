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
    verdict::{enter_of, who_listens},
};

/// What is not seen of a discarded ACK.
const ACK_UNTOLD: &str = "whether the ACK was the final one is not seen: before Linux 6.15 the kernel does not tell why \
     a half-open discards one";

/// Whether it is a half-open of this host that did not end in a connection.
fn unfinished(h: &Handshake) -> bool {
    h.connection.role == Role::Server && h.outcome != Outcome::Established
}

/// Shows who listens on the port of a half-open.
fn ss_listener(h: &Handshake) -> String {
    let port = h.connection.local_port.unwrap_or(0);
    enter_of(&h.connection) + &who_listens(port)
}
