//! One file a family of scenarios, and the list of them.

mod abandoned;
mod accept_queue_full;
mod ack_lost;
mod defer_accept;
mod dnat_without_snat;
mod flash_crowd;
mod half_open_reset;
mod healthy;
mod impatient;
mod incident_accept_queue;
mod incident_firewall;
mod incident_flood;
mod incident_unanswered;
mod lossy;
mod own_firewall;
mod peer_silent;
mod ports_exhausted;
mod refused;
mod rp_filter;
mod scan;
mod several;
mod slow_peer;
mod syn_flood;
mod syn_lost;
mod synack_lost;
mod unreachable;

use super::Scenario;

/// All scenarios, in the order in which they are listed.
pub fn all() -> &'static [&'static dyn Scenario] {
    ALL
}

/// The scenario of that name, or of a name that it had before.
pub fn find(name: &str) -> Option<&'static dyn Scenario> {
    let of = |name: &str| {
        all()
            .iter()
            .copied()
            .find(|scenario| scenario.name() == name)
    };
    of(name).or_else(|| {
        let now = FORMER_PREFIXES
            .iter()
            .find_map(|(former, now)| Some(format!("{now}{}", name.strip_prefix(former)?)));
        of(&now?)
    })
}

/// Former beginnings of names, which scripts and notes may still use.
const FORMER_PREFIXES: &[(&str, &str)] = &[("riddle-", "incident-")];

static ALL: &[&dyn Scenario] = &[
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
    &own_firewall::OwnFirewall,
    &rp_filter::RpFilter,
    &dnat_without_snat::DnatWithoutSnat,
    &incident_accept_queue::IncidentAcceptQueue,
    &incident_unanswered::IncidentSynAckLost,
    &incident_flood::IncidentFlood,
    &incident_firewall::IncidentFirewall,
    &incident_unanswered::IncidentAsymmetricNat,
];
