//! Verdicts on active opens.

mod abandoned;
mod answer_rejected;
mod filtered;
pub(super) mod no_route_back;
mod not_sent;
mod option_dropped;
mod ports_exhausted;
mod refused;
mod scan_fanout;
mod self_connect;
mod server_queue_full;
mod spurious_retransmit;
mod syn_lost_then_ok;
mod syn_queue_full;
mod unreachable;

pub(super) use abandoned::Abandoned;
pub(super) use answer_rejected::AnswerRejected;
pub(super) use filtered::Filtered;
pub(super) use no_route_back::NoRouteBack;
pub(super) use not_sent::NotSent;
pub(super) use option_dropped::OptionDropped;
pub(super) use ports_exhausted::PortsExhausted;
pub(super) use refused::Refused;
pub(super) use scan_fanout::ScanFanout;
pub(super) use self_connect::SelfConnect;
pub(super) use server_queue_full::ServerQueueFull;
pub(super) use spurious_retransmit::SpuriousRetransmit;
pub(super) use syn_lost_then_ok::SynLostThenOk;
pub(super) use syn_queue_full::SynQueueFull;
pub(super) use unreachable::Unreachable;

use crate::{
    model::{Handshake, Outcome, Role},
    util::format,
    verdict::{Context, context::times},
};

/// Whether it is an active open that did not end in a connection.
fn failed(h: &Handshake) -> bool {
    h.connection.role == Role::Client && h.outcome != Outcome::Established
}

/// How long the slowest answer may take: the time after which the kernel itself retransmits the first SYN
/// (TCP_TIMEOUT_INIT, RFC 6298 section 2.1), microseconds.
const ANSWER_DUE_US: u64 = 1_000_000;

/// Whether it was open for so long that an answer was due.
fn answer_was_due(h: &Handshake) -> bool {
    h.retransmits > 0 || h.dwell_us.is_some_and(|us| us >= ANSWER_DUE_US)
}

/// Who closed it, and when, where it was not the kernel.
fn closed_by(h: &Handshake) -> String {
    if h.error.as_deref() == Some("ECONNABORTED") {
        return format!(
            "a tool closed it after {} (ECONNABORTED: ss -K, or the like)",
            took(h)
        );
    }
    let who = match &h.connection.comm {
        Some(comm) => format::name(comm).into_owned(),
        None => "the application".to_owned(),
    };
    format!("{who} closed it after {}, while it was open", took(h))
}

/// Whether it is an active open, a SYN of which got no answer and may have reached a listener of this host.
fn waited_for_an_answer(h: &Handshake, context: &Context) -> bool {
    let dropped = context.dropped_own_syns(h);
    if dropped * 2 > u64::from(h.retransmits) {
        return false;
    }
    let answered = matches!(h.outcome, Outcome::Refused | Outcome::Unreachable);
    let at_once = h.outcome == Outcome::Established && h.unanswered() == 0;
    h.connection.role == Role::Client && !answered && !at_once
}

/// How many SYNs were sent, and what came, as far as it was looked at.
fn no_answer(h: &Handshake, context: &Context) -> String {
    let (syns, took) = (syns(h), took(h));
    if h.facts.peer_called_too {
        return format!(
            "in {took} nothing acknowledged our SYN, though the peer's own SYN had come: both ends connected to each \
             other at the same time"
        );
    }
    let refused = context.refused_answers(h);
    let count: u64 = refused.iter().map(|answer| answer.count()).sum();
    let icmp = match context.ignored_icmp(h) {
        None => "no ICMP error",
        Some(_) => "no ICMP error about its SYNs",
    };
    match refused.first() {
        Some(first) => format!(
            "{syns} in {took}, and no answer that TCP accepted; a {} came and was refused {} ({})",
            first.packet.name(),
            times(count),
            first.reason
        ),
        None if context.sees_answers && !context.losses.of_drops(h) => format!(
            "{syns} in {took}, and no answer: no SYN-ACK, no RST, {icmp}, and nothing that TCP refused"
        ),
        None => {
            format!("{syns} in {took}, and no answer that TCP accepted: no SYN-ACK, no RST, {icmp}")
        }
    }
}

/// What was not looked at where no answer was seen.
fn not_looked_at(h: &Handshake, context: &Context) -> Option<String> {
    if !context.sees_answers {
        return Some(
            "an answer that TCP refuses would not be seen on this kernel (Linux 6.11 shows it)"
                .to_owned(),
        );
    }
    context.losses.of_drops(h).then(|| {
        "records of dropped packets were lost: an answer that TCP refused may be among them"
            .to_owned()
    })
}

/// Its dwell, in words.
fn took(h: &Handshake) -> String {
    h.dwell_us
        .map_or_else(|| "an unknown time".to_owned(), format::duration)
}

/// The peer's end, as one would type it.
fn peer(h: &Handshake) -> String {
    match h.connection.peer_port {
        Some(port) => std::net::SocketAddr::new(h.connection.peer_addr, port).to_string(),
        None => h.connection.peer_addr.to_string(),
    }
}

/// `1 SYN`, `3 SYNs`
fn syns(h: &Handshake) -> String {
    match h.retransmits {
        0 => "1 SYN".to_owned(),
        n => format!("{} SYNs", n.saturating_add(1)),
    }
}
