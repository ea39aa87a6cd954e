//! The other end of a simultaneous open, and the verdict on both ends.

use std::collections::VecDeque;

use super::{
    context::{JoinContext, NOT_ENOUGH, QUOTED, fact, own},
    crossed::{CrossedOpens, OPENS, is_crossed},
    fact::SideHandshake,
    pair::{LostSegments, Pair, PairKey},
};
use crate::{
    model::{Confidence, Outcome},
    util::format::plural,
};

/// Why such a pair names no direction.
const NO_DIRECTION: &str = "SYNs and SYN-ACKs went both ways (simultaneous open, RFC 9293 section 3.5): \
                            what both ends count does not tell which way lost one";

/// What an end did itself. `answer-rejected` is none here: in SYN_RECV the other end answers a repeated SYN with an ACK
/// alone, as an old connection would.
const OWN: &[&str] = &[
    "dropped-here",
    "not-sent",
    "ports-exhausted",
    "no-route-back",
];

/// Finds the other ends of simultaneous opens.
pub(super) struct Crossing<'s> {
    client: &'s CrossedOpens,
    server: &'s CrossedOpens,
    /// Active opens of the server's file that may be one. Few are kept: hosts that call each other at once are rare.
    callers: VecDeque<Box<SideHandshake>>,
}

impl<'s> Crossing<'s> {
    pub(super) fn of(client: &'s CrossedOpens, server: &'s CrossedOpens) -> Self {
        Self {
            client,
            server,
            callers: VecDeque::new(),
        }
    }

    pub(super) fn of_server(&self) -> &'s CrossedOpens {
        self.server
    }

    /// An active open of the server's file.
    pub(super) fn caller(&mut self, h: Box<SideHandshake>) {
        if !is_crossed(&h) && !self.client.may_have(&h) {
            return;
        }
        self.callers.push_back(h);
        if self.callers.len() > OPENS {
            self.callers.pop_front();
        }
    }

    /// Whether a connect of the client's may have its other end among them.
    pub(super) fn may_be(&self, client: &SideHandshake) -> bool {
        is_crossed(client) || self.server.may_have(client)
    }

    /// Where it is. `is_then`: whether both were under way at once, where the clocks are known.
    pub(super) fn find(
        &self,
        client: &SideHandshake,
        is_then: impl Fn(&SideHandshake) -> Option<bool>,
    ) -> Option<(usize, PairKey)> {
        if !self.may_be(client) {
            return None;
        }
        self.callers.iter().enumerate().find_map(|(at, server)| {
            let (key, agree) = key_of(client, server)?;
            is_then(server).unwrap_or(agree).then_some((at, key))
        })
    }

    pub(super) fn take(&mut self, (at, key): (usize, PairKey)) -> Option<(SideHandshake, PairKey)> {
        Some((*self.callers.remove(at)?, key))
    }
}

/// By what two active opens are one connection, if they are; `agree`: how surely, apart from their times.
fn key_of(client: &SideHandshake, server: &SideHandshake) -> Option<(PairKey, bool)> {
    if !is_crossed(client) && !is_crossed(server) {
        return None;
    }
    let both = |a: Option<u32>, b: Option<u32>| Some(a? == b?);
    // Each end's own number is what the other one was sent.
    let numbers = [
        both(client.syn_seq, server.syn_ack_seq),
        both(client.syn_ack_seq, server.syn_seq),
    ];
    if numbers.contains(&Some(false)) {
        return None;
    }
    let agreeing = numbers.iter().flatten().count();
    let is_mirrored = client
        .ends()
        .zip(server.ends())
        .is_some_and(|(ours, theirs)| ours == (theirs.1, theirs.0));
    match (agreeing, is_mirrored) {
        (0, false) => None,
        (0, true) => Some((PairKey::Ends, false)),
        (1, false) => Some((PairKey::SynSeq, false)),
        _ => Some((PairKey::SynSeq, true)),
    }
}

/// Judges both ends. Losses are not counted: one SYN-ACK may be lost, and nothing is retransmitted.
pub(super) fn judge_crossed(
    client: Box<SideHandshake>,
    server: SideHandshake,
    key: PairKey,
    context: &JoinContext<'_>,
) -> Pair {
    let (clock_offset_us, clock_error_us) = context.offset_us(client.at_ns);
    let mut pair = Pair {
        key,
        simultaneous: true,
        transmissions: Vec::new(),
        lost: LostSegments::default(),
        clock_offset_us,
        clock_error_us,
        verdict: None,
        confidence: Confidence::Likely,
        evidence: Vec::new(),
        remedy: None,
        client: None,
        server: Vec::new(),
    };
    let ends = [("client", &*client), ("server", &server)];
    for (name, end) in ends {
        let again = plural(end.retransmits, "segment");
        let came = match end.called_too {
            true => "the other host's SYN came meanwhile",
            false => "no SYN of the other host is known to have come",
        };
        let words = format!("the {name} called, and retransmitted {again}; {came}");
        pair.evidence.push(fact(words));
    }
    let all_well = ends.iter().all(|(_, end)| end.is_clean() && end.called_too);
    let explains = |end: &&(&str, &SideHandshake)| {
        let refused = end.1.outcome == Outcome::Refused && end.1.verdict.is_some();
        refused || own(end.1, OWN).is_some()
    };
    if let Some((name, end)) = ends.iter().find(explains) {
        pair.verdict = end.verdict.clone();
        pair.confidence = end.confidence;
        pair.remedy = end.remedy.clone();
        let facts = end.evidence.iter().take(QUOTED);
        pair.evidence
            .extend(facts.map(|f| fact(format!("the {name}: {f}"))));
    } else if !all_well {
        pair.verdict = Some(NOT_ENOUGH.into());
        pair.confidence = Confidence::Insufficient;
        pair.evidence.push(fact(NO_DIRECTION));
    }
    pair.client = Some(client);
    pair.server = vec![server];
    pair
}
