//! Connects that only one file has: what the silence of the other end is worth.

use std::net::SocketAddr;

use super::{
    connects::CalledAddresses,
    context::{JoinContext, NOT_ENOUGH, QUOTED, TOWARD_SERVER, fact},
    crossed::is_crossed,
    fact::SideHandshake,
    judge::own_of_client,
    pair::{LostSegments, Pair, PairKey, SegmentFate, SegmentKind, Transmission},
};
use crate::{
    model::{Confidence, Outcome, Role},
    util::format::plural,
};

/// A half-open sends its SYN-ACK again after a second: by then even a run that polls knows it, nanoseconds.
const SHOWN_NS: i64 = 1_500_000_000;

/// A connect of the client that the server's file does not have.
pub(super) fn silent_server(
    client: Box<SideHandshake>,
    key: PairKey,
    context: &JoinContext<'_>,
    destinations: &CalledAddresses,
) -> Pair {
    let sent = 1 + client.retransmits;
    let mut pair = one_sided(key, &client, context);
    pair.evidence.push(fact(format!(
        "{} sent, and the server's file has no half-open of it",
        plural(sent, "SYN")
    )));
    let answered = matches!(client.outcome, Outcome::Refused);
    if let Some(verdict) = own_of_client(&client).or(client.verdict.as_ref().filter(|_| answered)) {
        pair.verdict = Some(verdict.clone());
        pair.confidence = client.confidence;
        pair.remedy = client.remedy.clone();
        pair.evidence.extend(
            client
                .evidence
                .iter()
                .take(QUOTED)
                .map(|f| fact(format!("the client: {f}"))),
        );
        pair.client = Some(client);
        return pair;
    }
    let reasons = server_cannot_testify(&client, context, destinations);
    if !reasons.is_empty() {
        pair.verdict = Some(NOT_ENOUGH.into());
        pair.evidence.extend(reasons.into_iter().map(fact));
        pair.client = Some(client);
        return pair;
    }
    let from_ns = context.on_server(client.earliest_ns()) - SHOWN_NS;
    let to_ns = context.on_server(client.at_ns) + SHOWN_NS;
    let refused = context
        .refusals
        .of_connect(&client, &[client.local_addr], from_ns, to_ns);
    let fate = match refused {
        Some(_) => SegmentFate::Refused,
        None => SegmentFate::Lost,
    };
    pair.transmissions = syns(&client, fate);
    if let Some(refused) = refused {
        pair.lost = LostSegments::of(0, 0, 0);
        pair.verdict = Some(verdict_of_refusal(&refused.what).into());
        // The line sums up what one address sent: another connect of it may have been refused, and this one lost.
        pair.confidence = Confidence::Likely;
        let count = refused.count;
        pair.evidence.push(fact(format!(
            "the server refused {count} of this address: {}",
            refused.what
        )));
    } else {
        pair.lost = LostSegments::of(sent, 0, 0);
        pair.verdict = Some(TOWARD_SERVER.into());
        pair.confidence = Confidence::Likely;
        pair.evidence.push(fact(
            "the server was watching all that time, and saw none of them",
        ));
    }
    pair.client = Some(client);
    pair
}

fn verdict_of_refusal(what: &str) -> &'static str {
    if what.contains("accept queue is full") {
        "accept-queue-full"
    } else if what.contains("SYN queue is full") {
        "syn-queue-full"
    } else if what.starts_with("a connection of ") && what.contains(" exists in ") {
        "existing-connection"
    } else if what.starts_with("no listening socket found") {
        "refused"
    } else {
        "dropped-here"
    }
}

/// Why the server's silence tells nothing.
fn server_cannot_testify(
    client: &SideHandshake,
    context: &JoinContext<'_>,
    destinations: &CalledAddresses,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let server = context.server;
    let known_clock = context.clock.at(client.at_ns).is_some();
    if !known_clock {
        let words = "no handshake that both files have shows the offset of the clocks";
        reasons.push(words.to_owned());
    }
    let from_ns = context.on_server(client.earliest_ns());
    let last_syn = client.repeats.iter().map(|r| r.at_ns).max();
    let last_ns = last_syn.or(client.began_ns()).unwrap_or(client.at_ns);
    let to_ns = context.on_server(last_ns) + SHOWN_NS;
    if let Some(why) = server.may_have_taken_a_syn() {
        reasons.push(format!("the server cannot tell: {why}"));
    }
    if known_clock && let Some(why) = server.cannot_tell_of(from_ns, to_ns) {
        reasons.push(format!("the server cannot tell: {why}"));
    }
    if let Some(why) = context
        .client
        .cannot_tell_of(client.earliest_ns(), client.at_ns)
    {
        reasons.push(format!("the client cannot tell: {why}"));
    }
    if let (Some(local), Some(peer)) = (client.local_port, client.peer_port)
        && let Some(why) = server.filters_out(
            Role::Server,
            SocketAddr::new(client.peer_addr, peer),
            SocketAddr::new(client.local_addr, local),
        )
    {
        reasons.push(format!("the server cannot tell: {why}"));
    }
    if let Some(why) = server.is_selective() {
        reasons.push(format!("the server cannot tell: {why}"));
    }
    let called = client
        .peer_port
        .map(|port| SocketAddr::new(client.peer_addr, port));
    if is_crossed(client) || called.is_some_and(|end| context.crossed.calls_from(end)) {
        let words = "the host that was called had called too (simultaneous open), and nothing shows its connect of it";
        reasons.push(words.to_owned());
    }
    let destination = client.peer_port.map(|port| (client.peer_addr, port));
    let is_there = server.addresses.contains(&client.peer_addr);
    let is_here = destinations.sources.contains(&client.peer_addr);
    if destination.is_some_and(|d| destinations.translated.contains(&d)) {
        reasons.push(format!(
            "{} is translated on its way: another server may have got it",
            client.peer_addr
        ));
    } else if !is_there || is_here {
        let view = if server.watches_one_namespace() {
            ", in the namespace that it watched"
        } else {
            ""
        };
        reasons.push(format!(
            "nothing shows that {} is the server's{view}",
            client.peer_addr
        ));
    }
    if client.is_established() {
        reasons.push("another host answered it, or the server's run has missed it".to_owned());
    } else if destination.is_some_and(|d| destinations.shared.contains(&d)) {
        reasons.push("other hosts answer at this address too".to_owned());
    }
    let waited_ns = client.at_ns - client.earliest_ns();
    if client.retransmits == 0 && waited_ns < SHOWN_NS {
        reasons.push("it was too short for the server's run to show it".to_owned());
    }
    reasons
}

/// A half-open of the server that the client's file does not have.
pub(super) fn silent_client(
    server: SideHandshake,
    context: &JoinContext<'_>,
    destinations: &CalledAddresses,
) -> Pair {
    let key = if server.syn_seq.is_some() {
        PairKey::SynSeq
    } else {
        PairKey::Ends
    };
    let mut pair = one_sided(key, &server, context);
    pair.evidence
        .push(fact("the client's file has no connect of it"));
    let mut reasons = Vec::new();
    let shift_ns = context.clock.roughly_at_server(server.at_ns).unwrap_or(0);
    let (from_ns, to_ns) = (server.earliest_ns() - shift_ns, server.at_ns - shift_ns);
    if let Some(why) = context.client.cannot_tell_of(from_ns, to_ns) {
        reasons.push(format!("the client cannot tell: {why}"));
    }
    if let (Some(local), Some(peer)) = (server.local_port, server.peer_port)
        && let Some(why) = context.client.filters_out(
            Role::Client,
            SocketAddr::new(server.peer_addr, peer),
            SocketAddr::new(server.local_addr, local),
        )
    {
        reasons.push(format!("the client cannot tell: {why}"));
    }
    if let Some(why) = context.client.is_selective() {
        reasons.push(format!("the client cannot tell: {why}"));
    }
    if !destinations.sources.contains(&server.peer_addr) {
        reasons.push(format!(
            "nothing shows that {} is the client's",
            server.peer_addr
        ));
    }
    if reasons.is_empty() {
        reasons.push(
            "another host behind the same address may have sent it, or nobody has".to_owned(),
        );
    }
    pair.verdict = Some(NOT_ENOUGH.into());
    pair.evidence.extend(reasons.into_iter().map(fact));
    pair.server = vec![server];
    pair
}

fn one_sided(key: PairKey, end: &SideHandshake, context: &JoinContext<'_>) -> Pair {
    let (clock_offset_us, clock_error_us) = context.offset_us(end.at_ns);
    Pair {
        key,
        simultaneous: false,
        client: None,
        server: Vec::new(),
        transmissions: match end.role {
            Role::Client => syns(end, SegmentFate::Unknown),
            Role::Server => Vec::new(),
        },
        lost: LostSegments::default(),
        clock_offset_us,
        clock_error_us,
        verdict: None,
        confidence: Confidence::Insufficient,
        evidence: Vec::new(),
        remedy: None,
    }
}

fn syns(client: &SideHandshake, fate: SegmentFate) -> Vec<Transmission> {
    let Some(began_ns) = client.began_ns() else {
        return Vec::new();
    };
    let repeats = client.repeats.iter().filter(|r| !r.failed).map(|r| r.at_ns);
    std::iter::once(began_ns)
        .chain(repeats)
        .map(|at| Transmission {
            segment: SegmentKind::Syn,
            sent_us: Some((at - began_ns) / 1000),
            seen_us: None,
            fate,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_refused_has_its_own_verdict() {
        for (what, verdict) in [
            ("the listener's accept queue is full", "accept-queue-full"),
            ("the listener's SYN queue is full", "syn-queue-full"),
            (
                "a connection of 10.0.0.2:40000 exists in ESTABLISHED",
                "existing-connection",
            ),
            (
                "no listening socket found: answered with RST; called port 80, which NAT sends here",
                "refused",
            ),
            ("the reverse-path filter (rp_filter)", "dropped-here"),
        ] {
            assert_eq!(verdict_of_refusal(what), verdict, "{what}");
        }
    }
}
