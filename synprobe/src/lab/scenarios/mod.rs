//! One file a family of scenarios.

mod abandoned;
mod accept_queue_full;
mod ack_lost;
mod defer_accept;
mod flash_crowd;
mod half_open_reset;
mod healthy;
mod impatient;
mod lossy;
mod peer_silent;
mod ports_exhausted;
mod refused;
mod scan;
mod several;
mod slow_peer;
mod syn_flood;
mod syn_lost;
mod synack_lost;
mod unreachable;

use super::Scenario;

pub(super) static ALL: &[&dyn Scenario] = &[
    &healthy::Healthy,
    &syn_lost::SynLost,
    &synack_lost::SynAckLost,
    &ack_lost::AckLost,
    &refused::Refused,
    &unreachable::Unreachable,
    &accept_queue_full::AcceptQueueFull,
    &abandoned::Abandoned,
    &half_open_reset::HalfOpenReset,
    &syn_flood::SynFlood,
    &lossy::Lossy,
    &peer_silent::PeerSilent,
    &slow_peer::SlowPeer,
    &defer_accept::DeferAccept,
    &flash_crowd::FlashCrowd,
    &scan::ScanHorizontal,
    &scan::ScanVertical,
    &ports_exhausted::PortsExhausted,
    &impatient::Impatient,
    &several::Several,
];
