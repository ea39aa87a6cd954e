//! The scenarios: one file each, or one for closely related ones.

mod abandoned;
mod accept_queue_full;
mod accept_slow;
mod ack_lost;
mod asymmetric_return;
mod data_unacknowledged;
mod defer_accept;
mod dnat_without_snat;
mod flash_crowd;
mod forwarded;
mod half_open_reset;
mod healthy;
mod impatient;
mod incident_accept_queue;
mod incident_firewall;
mod incident_flood;
mod incident_unanswered;
mod listener_reload;
mod long_round_trip;
mod lossy;
mod no_route_back;
mod option_dropped;
mod own_firewall;
mod own_reject;
mod peer_silent;
mod ports_exhausted;
mod refused;
mod reset_after_handshake;
mod reuseport_worker;
mod rp_filter;
mod scan;
mod self_connect;
mod several;
mod slow_peer;
mod snat_exhausted;
mod stale_established;
mod syn_flood;
mod syn_lost;
mod syn_queue_full;
mod synack_lost;
mod tcp_md5;
mod transparent_proxy;
mod tuple_in_use;
mod unreachable;

pub use tcp_md5::set_md5_key;

use super::Scenario;

/// All scenarios, in the order of `synprobe lab --list`.
pub fn all() -> &'static [&'static dyn Scenario] {
    ALL
}

/// Finds a scenario by its name or by a former name.
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

/// Former prefixes of scenario names, with the present prefix.
const FORMER_PREFIXES: &[(&str, &str)] = &[("riddle-", "incident-")];

static ALL: &[&dyn Scenario] = &[
    &healthy::HealthyScenario,
    &syn_lost::SynLostScenario,
    &synack_lost::SynAckLostScenario,
    &ack_lost::AckLostScenario,
    &refused::RefusedScenario,
    &unreachable::UnreachableScenario,
    &accept_queue_full::AcceptQueueFullScenario,
    &accept_slow::AcceptSlowScenario,
    &accept_slow::AcceptBurstScenario,
    &abandoned::AbandonedScenario,
    &half_open_reset::HalfOpenResetScenario,
    &syn_flood::SynFloodScenario,
    &lossy::LossyScenario,
    &data_unacknowledged::DataUnacknowledgedScenario,
    &reset_after_handshake::ResetAfterHandshakeScenario,
    &peer_silent::PeerSilentScenario,
    &slow_peer::SlowPeerScenario,
    &defer_accept::DeferAcceptScenario,
    &flash_crowd::FlashCrowdScenario,
    &scan::ScanHorizontalScenario,
    &scan::ScanVerticalScenario,
    &ports_exhausted::PortsExhaustedScenario,
    &tuple_in_use::TupleInUseScenario,
    &self_connect::SelfConnectScenario,
    &stale_established::StaleEstablishedScenario,
    &option_dropped::OptionDroppedScenario,
    &long_round_trip::LongRoundTripScenario,
    &impatient::ImpatientScenario,
    &several::SeveralScenario,
    &own_firewall::OwnFirewallScenario,
    &own_reject::OwnRejectScenario,
    &tcp_md5::TcpMd5Scenario,
    &snat_exhausted::SnatExhaustedScenario,
    &rp_filter::RpFilterScenario,
    &dnat_without_snat::DnatWithoutSnatScenario,
    &forwarded::ForwardedDropScenario,
    &asymmetric_return::AsymmetricReturnScenario,
    &no_route_back::NoRouteBackScenario,
    &syn_queue_full::SynQueueFullScenario,
    &transparent_proxy::TransparentProxyScenario,
    &listener_reload::ListenerReloadScenario,
    &reuseport_worker::ReuseportWorkerScenario,
    &incident_accept_queue::IncidentAcceptQueueScenario,
    &incident_unanswered::IncidentSynAckLostScenario,
    &incident_flood::IncidentFloodScenario,
    &incident_firewall::IncidentFirewallScenario,
    &incident_unanswered::IncidentAsymmetricNatScenario,
];
