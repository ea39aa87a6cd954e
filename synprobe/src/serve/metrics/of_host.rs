//! Metrics of the host and of the run as a whole.

use std::collections::BTreeMap;

use super::family::MetricFamily;
use crate::{
    engine::{EngineSnapshot, RetransmitCause},
    model::{Confidence, ProblemRole, RetransmitKind, Start, TcpState},
    serve::{otlp::losses::OtlpLosses, sockets::ByState},
    status::RunStatus,
};

/// Kinds of problems that have labels of their own.
const PROBLEMS: usize = 60;

/// What runs here.
pub(super) fn build_info(start: &Start) -> MetricFamily {
    let labels = [
        ("version", start.version.clone()),
        ("kernel", start.kernel.clone()),
        ("mode", start.mode.clone()),
    ];
    MetricFamily::gauge("synprobe_build_info", "What runs here").with(labels, 1)
}

/// Retransmissions, drops, losses, sockets, and the counters of all namespaces together.
pub(super) fn counts(
    status: &RunStatus,
    sockets: Option<&ByState>,
    otlp: Option<&OtlpLosses>,
) -> Vec<MetricFamily> {
    let snapshot = &status.snapshot;
    let mut families = vec![
        retransmits(&snapshot.stats.retransmits),
        drops(snapshot),
        lost(status, otlp),
    ];
    let host = &snapshot.host;
    let mut counted = |name, help, count: Option<u64>| {
        // Absent where it cannot be read.
        families.extend(count.map(|count| MetricFamily::counter(name, help).with([], count)));
    };
    counted(
        "synprobe_syn_cookies_sent",
        "SYN cookies sent since the run began (SyncookiesSent), all namespaces",
        host.syn_cookies_sent,
    );
    counted(
        "synprobe_listen_overflows",
        "Times an accept queue was found full since the run began (ListenOverflows), all namespaces",
        host.listen_overflows,
    );
    families.extend(sockets.map(tcp_sockets));
    families
}

fn retransmits(counts: &BTreeMap<RetransmitCause, u64>) -> MetricFamily {
    let mut family = MetricFamily::counter(
        "synprobe_retransmits",
        "Segments retransmitted, by kind: SYN-ACKs by their timer or because the peer repeated its SYN",
    );
    for kind in RetransmitKind::ALL {
        let callers: &[bool] = match kind {
            RetransmitKind::Synack => &[false, true],
            _ => &[false],
        };
        for by_peer in callers {
            let cause = RetransmitCause {
                kind,
                by_peer: *by_peer,
            };
            let name = match (kind, by_peer) {
                (RetransmitKind::Synack, true) => "synack_peer",
                (RetransmitKind::Synack, false) => "synack_timer",
                (kind, _) => kind.name(),
            };
            family.add(
                [("kind", name.to_owned())],
                counts.get(&cause).copied().unwrap_or(0),
            );
        }
    }
    family
}

fn drops(snapshot: &EngineSnapshot) -> MetricFamily {
    let mut family = MetricFamily::counter(
        "synprobe_handshake_drops",
        "Packets of handshakes that this host dropped, by the kernel's reason",
    );
    let mut others: BTreeMap<bool, u64> = BTreeMap::new();
    let direction = |incoming: bool| match incoming {
        true => "in".to_owned(),
        false => "out".to_owned(),
    };
    for ((reason, incoming), count) in &snapshot.host.drops {
        match reason {
            Some(reason) => family.add(
                [
                    ("reason", reason.to_string()),
                    ("direction", direction(*incoming)),
                ],
                *count,
            ),
            None => *others.entry(*incoming).or_default() += count,
        }
    }
    for (incoming, count) in others {
        family.add(
            [
                ("reason", "other".to_owned()),
                ("direction", direction(incoming)),
            ],
            count,
        );
    }
    family
}

fn lost(status: &RunStatus, otlp: Option<&OtlpLosses>) -> MetricFamily {
    let mut family = MetricFamily::counter(
        "synprobe_lost_records",
        "Records and lines that were lost, by kind (docs/serve.md)",
    );
    // One kind is always there: a rate needs a beginning.
    let mut kinds: BTreeMap<&str, u64> =
        BTreeMap::from([("any", 0), ("output", status.lines_lost)]);
    kinds.extend(status.not_recorded.map(|count| ("recording", count)));
    kinds.extend(otlp.into_iter().flat_map(OtlpLosses::kinds));
    for (kind, count) in &status.snapshot.stats.lost {
        *kinds.entry(kind).or_default() += count;
    }
    for (kind, count) in kinds {
        family.add([("kind", kind.to_owned())], count);
    }
    family
}

fn tcp_sockets(counts: &ByState) -> MetricFamily {
    let mut family = MetricFamily::gauge(
        "synprobe_tcp_sockets",
        "TCP sockets by state, as last read (at most every 5 s); half-opens are syn_recv",
    );
    for state in (1..=11).filter_map(TcpState::from_kernel) {
        let name = state.name();
        let count = counts.get(name).copied().unwrap_or(0);
        family.add([("state", name.to_ascii_lowercase())], count);
    }
    family
}

/// The problems that are open.
pub(super) fn problems(snapshot: &EngineSnapshot) -> MetricFamily {
    let mut family = MetricFamily::gauge(
        "synprobe_problems",
        "Problems that are open (http://…/problems, or synprobe diagnose)",
    );
    type Key = (&'static str, &'static str, &'static str);
    let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
    for p in &snapshot.problems {
        let role = match p.role {
            ProblemRole::Client => "client",
            ProblemRole::Server => "server",
            ProblemRole::Router => "router",
        };
        let key = (p.verdict_name(), p.confidence.name(), role);
        let key = match counts.len() < PROBLEMS || counts.contains_key(&key) {
            true => key,
            false => ("other", Confidence::Insufficient.name(), role),
        };
        *counts.entry(key).or_default() += 1;
    }
    for ((verdict, confidence, role), count) in counts {
        family.add(
            [
                ("verdict", verdict.to_owned()),
                ("confidence", confidence.to_owned()),
                ("role", role.to_owned()),
            ],
            count,
        );
    }
    family
}
