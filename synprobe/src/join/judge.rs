//! What both ends of a connect tell together.

use std::sync::Arc;

use super::{
    context::{
        BOTH_WAYS, JoinContext, NOT_ENOUGH, QUOTED, TOWARD_CLIENT, TOWARD_SERVER, fact, own,
    },
    fact::SideHandshake,
    pair::{LostSegments, Pair, PairKey},
    segments::Segments,
};
use crate::model::{Confidence, Evidence, OpenReason, Outcome};

/// Verdicts of the server that explain what the client sees, because they are its own doing.
const OWN_OF_SERVER: &[&str] = &[
    "dropped-here",
    "defer-accept",
    "accept-queue-full",
    "syn-queue-full",
    "listener-closed",
    "no-route-back",
    "asymmetric-nat",
];
/// Verdicts of the client that explain what the server sees.
const OWN_OF_CLIENT: &[&str] = &[
    "dropped-here",
    "answer-rejected",
    "not-sent",
    "ports-exhausted",
    "self-connect",
    "no-route-back",
    "option-dropped",
];
/// Verdicts that guess at the other end: with both ends there is nothing to guess.
const GUESSES: &[&str] = &[
    "syn-lost-then-ok",
    "filtered",
    "synack-lost",
    "peer-silent",
    "syn-flood",
    "scan-fanout",
    "server-queue-full",
];

/// Whether a pair may quote the facts and the remedy of an end with this verdict.
pub fn is_quoted(verdict: &str, outcome: Outcome) -> bool {
    !GUESSES.contains(&verdict) || outcome == Outcome::Refused
}

fn against(words: impl Into<String>) -> Evidence {
    Evidence {
        fact: words.into(),
        supports: false,
    }
}

/// The client's own doing, if it is.
pub(super) fn own_of_client(client: &SideHandshake) -> Option<&Arc<str>> {
    own(client, OWN_OF_CLIENT)
}

/// Judges a connect that both files have.
pub fn judge(
    client: Box<SideHandshake>,
    servers: Vec<SideHandshake>,
    key: PairKey,
    context: &JoinContext<'_>,
) -> Pair {
    let segments = Segments::of(&client, &servers, context);
    let (clock_offset_us, clock_error_us) = context.offset_us(client.at_ns);
    let transmissions = segments.transmissions();
    let mut pair = Pair {
        key,
        simultaneous: false,
        transmissions,
        lost: segments.lost(),
        clock_offset_us,
        clock_error_us,
        verdict: None,
        confidence: Confidence::Insufficient,
        evidence: Vec::new(),
        remedy: None,
        client: None,
        server: Vec::new(),
    };
    let is_clean = segments.nothing_lost()
        && client.is_established()
        && client.retransmits == 0
        && servers.iter().all(SideHandshake::is_established);
    if is_clean && client.verdict.is_none() && servers.iter().all(|s| s.verdict.is_none()) {
        pair.confidence = Confidence::Certain;
    } else {
        explain(&mut pair, &client, &servers, &segments, context);
    }
    pair.client = Some(client);
    pair.server = servers;
    pair
}

fn explain(
    pair: &mut Pair,
    client: &SideHandshake,
    servers: &[SideHandshake],
    segments: &Segments,
    context: &JoinContext<'_>,
) {
    pair.evidence = segments.words().into_iter().map(fact).collect();
    let mut reasons = segments.unclear.clone();
    reasons.extend(cannot_testify(client, servers, context));
    if segments.lost_syns() > 0
        && let Some(why) = context.server.may_have_taken_a_syn()
    {
        reasons.push(format!("the server cannot tell: {why}"));
    }
    if segments.lost_syns() > 0 && context.clock.at(client.at_ns).is_none() {
        let words = "no handshake shows the offset of the clocks: a half-open without its number may be of this connect";
        reasons.push(words.to_owned());
    }
    let of_server = servers
        .iter()
        .find_map(|s| own(s, OWN_OF_SERVER).map(|v| (v, s)));
    let of_client = own(client, OWN_OF_CLIENT).map(|v| (v, client));
    let own = of_client.or(of_server);
    if !reasons.is_empty() {
        pair.lost = LostSegments::default();
        pair.transmissions.iter_mut().for_each(|t| t.unsure());
    }
    if let Some((verdict, end)) = own {
        pair.verdict = Some(verdict.clone());
        pair.confidence = end.confidence;
        pair.remedy = end.remedy.clone();
        let whose = if std::ptr::eq(end, client) {
            "client"
        } else {
            "server"
        };
        pair.evidence.extend(
            end.evidence
                .iter()
                .take(QUOTED)
                .map(|f| fact(format!("the {whose}: {f}"))),
        );
        pair.evidence.extend(reasons.into_iter().map(against));
        return;
    }
    if !reasons.is_empty() {
        pair.verdict = Some(NOT_ENOUGH.into());
        pair.evidence.extend(reasons.into_iter().map(fact));
        return;
    }
    pair.evidence.extend(segments.conclusion().map(fact));
    let (toward_server, toward_client) = segments.lost_ways();
    let verdict = match (toward_server > 0, toward_client > 0) {
        (true, true) => BOTH_WAYS,
        (true, false) => TOWARD_SERVER,
        (false, true) => TOWARD_CLIENT,
        (false, false) => return without_loss(pair, client, servers, segments),
    };
    pair.verdict = Some(verdict.into());
    pair.confidence = match segments.is_exact() {
        true => Confidence::Certain,
        false => Confidence::Likely,
    };
    pair.remedy = Some(remedy(verdict, client, servers).into());
}

/// Nothing was lost on the way: what the ends themselves say, unless that is a guess about the other.
fn without_loss(
    pair: &mut Pair,
    client: &SideHandshake,
    servers: &[SideHandshake],
    segments: &Segments,
) {
    let ends = std::iter::once(client).chain(servers);
    let said = ends
        .filter(|h| h.confidence != Confidence::Insufficient)
        .find(|h| {
            h.verdict
                .as_deref()
                .is_some_and(|verdict| !GUESSES.contains(&verdict))
        });
    if let Some(end) = said {
        pair.verdict = end.verdict.clone();
        pair.confidence = end.confidence;
        pair.remedy = end.remedy.clone();
        pair.evidence
            .extend(end.evidence.iter().take(QUOTED).map(fact));
        return;
    }
    let all_well = client.is_established() && servers.iter().any(SideHandshake::is_established);
    if all_well && segments.nothing_lost() {
        pair.confidence = Confidence::Certain;
        return;
    }
    pair.verdict = Some(NOT_ENOUGH.into());
    pair.evidence.push(fact(
        "no segment is known to be lost, and neither end names a cause",
    ));
}

/// Why one of the ends cannot testify about this connect.
fn cannot_testify(
    client: &SideHandshake,
    servers: &[SideHandshake],
    context: &JoinContext<'_>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let (from_ns, to_ns) = (client.earliest_ns(), client.at_ns);
    if let Some(why) = context.client.cannot_tell_of(from_ns, to_ns) {
        reasons.push(format!("the client cannot tell: {why}"));
    }
    let last_ns = servers.iter().map(|s| s.at_ns).max().unwrap_or(i64::MIN);
    let first_ns = servers
        .iter()
        .map(SideHandshake::earliest_ns)
        .min()
        .unwrap_or(i64::MAX);
    let until_ns = last_ns.max(context.on_server(segments_end(client)));
    let since_ns = first_ns.min(context.on_server(from_ns));
    if let Some(why) = context.server.cannot_tell_of(since_ns, until_ns) {
        reasons.push(format!("the server cannot tell: {why}"));
    }
    let broken = |h: &&SideHandshake| {
        matches!(
            h.open_reason,
            Some(OpenReason::Evicted | OpenReason::EndNotSeen)
        )
    };
    if servers.iter().chain([client]).any(|h| broken(&h)) {
        reasons.push("the end of it was not seen".to_owned());
    }
    reasons
}

/// Up to when the client sent something that concerns its handshake.
fn segments_end(client: &SideHandshake) -> i64 {
    let last = client.repeats.iter().map(|repeat| repeat.at_ns).max();
    match client.is_established() {
        true => client.at_ns,
        false => last.unwrap_or_else(|| client.began_ns().unwrap_or(client.at_ns)),
    }
}

fn remedy(verdict: &str, client: &SideHandshake, servers: &[SideHandshake]) -> String {
    let server = servers.first().map_or(client.peer_addr, |s| s.local_addr);
    let port = servers
        .first()
        .and_then(|s| s.local_port)
        .or(client.peer_port)
        .unwrap_or(0);
    let on = |here: &str, there: &str, direction: &str| {
        format!(
            "the {direction} loses it: look at what lies between the two hosts in that direction only. \
             On {here}: tcpdump -ni any 'tcp port {port} and tcp[tcpflags] & tcp-syn != 0'; \
             the same on {there}, at the device: what leaves the one and does not enter the other was lost between"
        )
    };
    let (client_is, server_is) = (client.local_addr, server);
    match verdict {
        TOWARD_CLIENT => on(
            &format!("the server {server_is}"),
            &format!("the client {client_is}"),
            "way back",
        ),
        _ => on(
            &format!("the client {client_is}"),
            &format!("the server {server_is}"),
            "way there",
        ),
    }
}
