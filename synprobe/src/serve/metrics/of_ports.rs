//! Metrics by port.

use std::collections::BTreeMap;

use synprobe_ebpf::histogram::BUCKETS;

use super::{
    buckets,
    family::MetricFamily,
    ports::{OTHER, PortLabels},
};
use crate::{
    engine::{ConfidenceRank, EngineSnapshot, PortKey, PortTotals},
    model::{Listener, Outcome, Role, VerdictKind},
    status::RunStatus,
};

/// Handshakes that ended: how long they took, how they ended, and why.
pub(super) fn handshakes(
    ports: &BTreeMap<PortKey, PortTotals>,
    labels: &mut PortLabels,
) -> [MetricFamily; 3] {
    let mut summed: BTreeMap<(Role, String), PortTotals> = BTreeMap::new();
    for ((role, port), totals) in ports {
        let key = (*role, labels.label(*role, *port));
        summed.entry(key).or_default().add(totals);
    }
    let mut durations = MetricFamily::histogram(
        "synprobe_handshake_duration_seconds",
        "Time of completed handshakes: from the first SYN (client) or SYN-ACK (server)",
    );
    let mut outcomes = MetricFamily::counter(
        "synprobe_handshakes",
        "Handshakes that ended, by how they ended",
    );
    for ((role, port), totals) in &summed {
        let of_port = || [("role", role.name().to_owned()), ("port", port.clone())];
        durations.add(of_port(), buckets::histogram(totals));
        for outcome in Outcome::ALL {
            let count = totals.ended(outcome);
            // Those that complete are always there: a rate needs a beginning.
            if count > 0 || outcome == Outcome::Established {
                let [role, port] = of_port();
                outcomes.add([role, port, ("outcome", outcome.name().to_owned())], count);
            }
        }
    }
    [durations, outcomes, verdicts(ports, labels)]
}

fn verdicts(ports: &BTreeMap<PortKey, PortTotals>, labels: &mut PortLabels) -> MetricFamily {
    type Key = (Role, String, VerdictKind, ConfidenceRank);
    let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
    for ((role, port), totals) in ports {
        for ((verdict, confidence), count) in &totals.verdicts {
            let label = match port {
                Some(port) => labels.of_verdict((*role, *port, *verdict, *confidence)),
                None => OTHER.to_owned(),
            };
            *counts
                .entry((*role, label, *verdict, *confidence))
                .or_default() += count;
        }
    }
    let mut family = MetricFamily::counter(
        "synprobe_handshake_verdicts",
        "Handshakes that ended and have a verdict (synprobe explain VERDICT)",
    );
    for ((role, port, verdict, confidence), count) in counts {
        family.add(
            [
                ("role", role.name().to_owned()),
                ("port", port),
                ("verdict", verdict.name().to_owned()),
                ("confidence", confidence.confidence().name().to_owned()),
            ],
            count,
        );
    }
    family
}

/// Handshakes in progress.
pub(super) fn under_way(status: &RunStatus, labels: &PortLabels) -> [MetricFamily; 4] {
    let mut families = [
        MetricFamily::gauge(
            "synprobe_half_open",
            "Half-opens in progress that were retransmitted, or are older than --slow",
        ),
        MetricFamily::gauge(
            "synprobe_oldest_half_open_seconds",
            "Age of the oldest of them",
        ),
        MetricFamily::gauge(
            "synprobe_syn_sent",
            "Active opens in progress that were retransmitted, or are older than the run",
        ),
        MetricFamily::gauge(
            "synprobe_oldest_syn_sent_seconds",
            "Age of the oldest of them",
        ),
    ];
    for (role, at) in [(Role::Server, 0), (Role::Client, 2)] {
        let mut ports: BTreeMap<String, (u64, Option<u64>)> = labels
            .own(role)
            .map(|port| (port.to_string(), (0, None)))
            .collect();
        for state in status.snapshot.ports.iter().filter(|s| s.role == role) {
            let (open, oldest) = ports.entry(labels.label(role, state.port)).or_default();
            *open += state.open;
            *oldest = match (*oldest, state.oldest_ns) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        for (port, (open, oldest)) in ports {
            families[at].add([("port", port.clone())], open);
            if let Some(began_ns) = oldest {
                let age_ns = status.at_ns.saturating_sub(began_ns);
                families[at + 1].add([("port", port)], age_ns as f64 / 1e9);
            }
        }
    }
    families
}

/// The listeners: of each port the fullest socket, and what all discarded.
pub(super) fn listeners(snapshot: &EngineSnapshot, labels: &PortLabels) -> [MetricFamily; 5] {
    let mut accept = [
        MetricFamily::gauge(
            "synprobe_listener_accept_queue",
            "Connections that wait for accept(), at the fullest socket of the port",
        ),
        MetricFamily::gauge(
            "synprobe_listener_accept_queue_limit",
            "How many may wait there; one more fits",
        ),
    ];
    let mut syn = [
        MetricFamily::gauge(
            "synprobe_listener_syn_queue",
            "Half-opens in the SYN queue, at the fullest socket of the port",
        ),
        MetricFamily::gauge("synprobe_listener_syn_queue_limit", "How many fit there"),
    ];
    fullest(&snapshot.listeners, labels, &mut accept, |l| {
        Some((l.accept_queue?, l.accept_queue_max?))
    });
    fullest(&snapshot.listeners, labels, &mut syn, |l| {
        Some((l.syn_queue?, l.syn_queue_max?))
    });
    let mut drops = MetricFamily::counter(
        "synprobe_listener_drops",
        "Packets that listeners discarded since the run began (sk_drops)",
    );
    let mut by_label: BTreeMap<String, u64> = BTreeMap::new();
    for (port, count) in &snapshot.host.listener_drops {
        *by_label
            .entry(labels.label(Role::Server, *port))
            .or_default() += count;
    }
    for (port, count) in by_label {
        drops.add([("port", port)], count);
    }
    let ([accept, accept_limit], [syn, syn_limit]) = (accept, syn);
    [accept, accept_limit, syn, syn_limit, drops]
}

/// How long connections waited for accept(): only where accept() is watched.
pub(super) fn accept_waits(snapshot: &EngineSnapshot, labels: &PortLabels) -> MetricFamily {
    let mut by_label: BTreeMap<String, ([u64; BUCKETS], u64)> = BTreeMap::new();
    for of_port in &snapshot.accept_counts {
        let label = labels.label(Role::Server, Some(of_port.port));
        let (counts, sum_us) = by_label.entry(label).or_insert(([0; BUCKETS], 0));
        for (sum, count) in counts.iter_mut().zip(&of_port.counts) {
            *sum += count;
        }
        *sum_us += of_port.total_us;
    }
    let mut family = MetricFamily::histogram(
        "synprobe_accept_wait_seconds",
        "How long connections waited for accept(), from ESTABLISHED",
    );
    for (port, (counts, sum_us)) in by_label {
        family.add([("port", port)], buckets::waits(&counts, sum_us));
    }
    family
}

/// Adds the length and the limit of the queue that is fullest, by port.
fn fullest(
    listeners: &[Listener],
    labels: &PortLabels,
    [length, limit]: &mut [MetricFamily; 2],
    queue: impl Fn(&Listener) -> Option<(u32, u32)>,
) {
    let mut ports: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for l in listeners {
        let Some(now) = queue(l) else { continue };
        let fill = |(length, limit): (u32, u32)| f64::from(length) / (f64::from(limit) + 1.0);
        let label = labels.label(Role::Server, Some(l.local_port));
        let fullest = ports.entry(label).or_insert(now);
        if fill(now) > fill(*fullest) {
            *fullest = now;
        }
    }
    for (port, (now, most)) in ports {
        length.add([("port", port.clone())], u64::from(now));
        limit.add([("port", port)], u64::from(most));
    }
}
