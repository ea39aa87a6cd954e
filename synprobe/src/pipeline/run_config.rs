//! The engine's configuration, from this host and the options: the first thing in a recording.

use super::WatchOptions;
use crate::{
    engine::RunConfig,
    model::{HandshakeLines, Start},
    preflight::Ready,
    probe::{
        Probes,
        half_open_source::Decision,
        hooks::{DROPS, RESETS},
    },
    sys::{clock::monotonic_ns, host_identity, netns::NetNs, privileges},
    track::TrackConfig,
};

pub(super) fn run_config(
    options: &WatchOptions,
    host: &Ready,
    probes: &Probes,
    exact: &Decision,
) -> RunConfig {
    let attached: Vec<&str> = probes.attached().collect();
    let hooks = probes.attached().chain(probes.exact_hooks());
    let (source, why) = probes.source();
    let unknown = match source.is_exact() {
        true => exact.parts.lost.as_slice(),
        false => &[],
    };
    let start = Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host.kernel.release.clone(),
        features: hooks.chain(["sock_diag"]).map(str::to_owned).collect(),
        mode: source.name().to_owned(),
        mode_why: why.or(exact.why.as_deref()).map(str::to_owned),
        missing: host
            .missing
            .iter()
            .chain(unknown)
            .map(|&m| m.to_owned())
            .collect(),
        filters: options.selection.describe(),
        host: host_identity::read(),
        handshake_lines: HandshakeLines::default(),
        replayed_from: None,
    };
    let track = TrackConfig {
        hz: host.hz,
        synack_rto_max: host.kernel.listener_bounds_syn_ack_timeout(),
        sees_failures: host.kernel.at_least(6, 17),
        sees_resets: attached.contains(&RESETS),
        source,
        detail: options.detail,
        tables: options.tables,
        began_ns: monotonic_ns(),
        hash_seed: hash_seed(),
        selection: options.selection.clone(),
    };
    RunConfig {
        start,
        track,
        sees_drops: attached.contains(&DROPS),
        window: options.window,
    }
}

/// An attacker who chooses source addresses must not be able to choose their hashes.
fn hash_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(monotonic_ns())
}

/// Whether the run enters other namespaces than its own.
pub(super) fn enters_others(options: &WatchOptions) -> bool {
    let here = NetNs::current().ok();
    let only = options.selection.netns.is_some() && !options.enters_dropping;
    let all_here = options
        .namespaces
        .iter()
        .all(|netns| here.as_ref() == Some(netns));
    !(only && all_here)
}

/// Gives up what is not needed any more.
pub(super) fn give_up_privileges(options: &WatchOptions) {
    let needed = privileges::StillNeeded {
        elsewhere: enters_others(options),
        connects: options.connects,
    };
    if let Err(error) = privileges::give_up(needed) {
        log::warn!("privileges that are not needed any more cannot be given up: {error}");
    }
}
