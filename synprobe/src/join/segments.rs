//! The segments of one handshake, matched between its ends.

use super::{
    context::JoinContext,
    crossed::is_crossed,
    fact::SideHandshake,
    pair::{LostSegments, SegmentFate, SegmentKind, Sent, Transmission},
    segment_times::{ToClient, WAY_NS, us_since},
};
use crate::{model::Confidence, util::format::plural};

/// Two SYNs so close get one answer: a half-open limits them (`tcp_invalid_ratelimit`, 500 ms).
const ANSWERED_ONCE_NS: i64 = 550_000_000;

/// One SYN-ACK.
#[derive(Clone, Copy, Debug)]
struct SynAckSent {
    /// On the client's clock.
    at_ns: i64,
    fate: SegmentFate,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments {
    syns: Vec<Transmission>,
    syn_acks: Vec<Transmission>,
    ack: Option<Transmission>,
    syn: Sent,
    refused_syns: u32,
    refused_what: Option<String>,
    lost_syn_acks: u32,
    sent_syn_acks: u32,
    lost_acks: u32,
    established: bool,
    /// Why nothing can be said.
    pub(super) unclear: Vec<String>,
    /// A segment may have been late in place of lost.
    may_be_late: bool,
}

impl Segments {
    pub(super) fn of(
        client: &SideHandshake,
        servers: &[SideHandshake],
        context: &JoinContext<'_>,
    ) -> Self {
        let mut segments = Self {
            established: client.is_established(),
            ..Self::default()
        };
        segments.syn.sent = 1 + client.retransmits;
        segments.syn.arrived = servers.iter().map(|s| 1 + s.by_peer).sum();
        segments.is_one_answered(client, servers);
        let to_client = ToClient::of(client, servers, segments.missing(), context);
        segments.refusals(client, servers, context);
        segments.syns(client, servers, to_client.as_ref());
        if let Some(to_client) = to_client {
            segments.answers(client, servers, &to_client);
            segments.last_ack(client, servers, &to_client);
        } else if !client.is_established() || client.retransmits > 0 {
            segments
                .unclear
                .push("the times of the two ends cannot be compared".to_owned());
        }
        segments
    }

    fn missing(&self) -> u32 {
        self.syn.sent.saturating_sub(self.syn.arrived)
    }

    /// Whether the counts of both ends can be compared at all.
    fn is_one_answered(&mut self, client: &SideHandshake, servers: &[SideHandshake]) {
        let answers = servers.iter().filter_map(|s| s.syn_ack_seq);
        let another = client.syn_ack_seq.is_some_and(|seq| {
            let mut answers = answers.peekable();
            answers.peek().is_some() && answers.all(|answer| answer != seq)
        });
        if another {
            self.unclear.push(
                "the SYN-ACK that the client got is not the server's: a SYN proxy answers in between".to_owned(),
            );
        }
        if is_crossed(client) {
            let words = "a SYN of the server came too: not all retransmitted segments are SYNs";
            self.unclear.push(words.to_owned());
        }
        if !client.is_established() && servers.iter().any(SideHandshake::is_established) {
            self.unclear
                .push("the server is connected, and the client is not".to_owned());
        }
        let is_cookie = |s: &SideHandshake| s.is_established() && s.dwell_us.is_none();
        if client.retransmits > 0 && servers.iter().any(is_cookie) {
            self.unclear.push(
                "the server may have answered with a SYN cookie, which counts no SYN".to_owned(),
            );
        }
        if self.missing() == 0 {
            return;
        }
        let mut times: Vec<i64> = client.repeats.iter().map(|r| r.at_ns).collect();
        times.extend(client.began_ns());
        times.sort_unstable();
        if times
            .windows(2)
            .any(|two| two[1] - two[0] < ANSWERED_ONCE_NS)
        {
            self.unclear.push(
                "SYNs came less than half a second apart: a half-open answers only one of them"
                    .to_owned(),
            );
        }
    }

    /// SYNs that arrived and were refused.
    fn refusals(
        &mut self,
        client: &SideHandshake,
        servers: &[SideHandshake],
        context: &JoinContext<'_>,
    ) {
        let missing = self.missing();
        if missing == 0 {
            return;
        }
        let mut peers = vec![client.local_addr];
        peers.extend(servers.iter().map(|s| s.peer_addr));
        peers.dedup();
        let from_ns = context
            .on_server(client.earliest_ns())
            .saturating_sub(WAY_NS);
        let to_ns = context.on_server(client.at_ns).saturating_add(WAY_NS);
        if let Some(refused) = context.refusals.of_connect(client, &peers, from_ns, to_ns) {
            self.refused_syns = missing.min(u32::try_from(refused.count).unwrap_or(missing));
            self.refused_what = Some(refused.what.to_string());
        }
    }

    fn syns(
        &mut self,
        client: &SideHandshake,
        servers: &[SideHandshake],
        to_client: Option<&ToClient>,
    ) {
        let Some(began_ns) = client.began_ns() else {
            return;
        };
        let mut sent: Vec<i64> = vec![began_ns];
        sent.extend(client.repeats.iter().filter(|r| !r.failed).map(|r| r.at_ns));
        let mut syns: Vec<Transmission> = (0..self.syn.sent as usize)
            .map(|i| Transmission {
                segment: SegmentKind::Syn,
                sent_us: sent.get(i).map(|at| us_since(*at, began_ns)),
                seen_us: None,
                fate: SegmentFate::Unknown,
            })
            .collect();
        let mut arrivals: Vec<i64> = Vec::new();
        if let Some(to_client) = to_client {
            for server in servers {
                arrivals.extend(server.began_ns().map(|at| to_client.at(at)));
                let by_peer = server.repeats.iter().filter(|r| r.by_peer);
                arrivals.extend(by_peer.map(|r| to_client.at(r.at_ns)));
            }
        }
        arrivals.sort_unstable();
        let all_known = arrivals.len() == self.syn.arrived as usize && sent.len() == syns.len();
        if all_known {
            let margin_ns = to_client.map_or(0, |t| t.margin_ns);
            let mut next = 0;
            for arrival in arrivals {
                // The last SYN that was sent by then: they are a second apart.
                let by_then = sent.partition_point(|at| *at <= arrival.saturating_add(margin_ns));
                let place = match self.missing() {
                    0 => next,
                    _ => by_then.saturating_sub(1).max(next),
                };
                if let Some(syn) = syns.get_mut(place) {
                    syn.seen_us = Some(us_since(arrival, began_ns).max(syn.sent_us.unwrap_or(0)));
                    syn.fate = SegmentFate::Arrived;
                }
                next = place + 1;
            }
        }
        if self.missing() == 0 {
            syns.iter_mut()
                .for_each(|syn| syn.fate = SegmentFate::Arrived);
        }
        let arrived = syns
            .iter()
            .filter(|s| s.fate == SegmentFate::Arrived)
            .count();
        if arrived == self.syn.arrived.min(self.syn.sent) as usize {
            let mut refused = self.refused_syns;
            for syn in syns.iter_mut().filter(|s| s.fate != SegmentFate::Arrived) {
                syn.fate = match refused {
                    0 => SegmentFate::Lost,
                    _ => SegmentFate::Refused,
                };
                refused = refused.saturating_sub(1);
            }
        }
        self.syns = syns;
    }

    /// Which SYN-ACKs the client got.
    fn answers(&mut self, client: &SideHandshake, servers: &[SideHandshake], to_client: &ToClient) {
        self.sent_syn_acks = servers.iter().map(|s| 1 + s.retransmits).sum();
        let mut sent: Vec<SynAckSent> = Vec::new();
        for server in servers {
            let repeats = server.repeats.iter().filter(|r| !r.failed).map(|r| r.at_ns);
            sent.extend(
                server
                    .began_ns()
                    .into_iter()
                    .chain(repeats)
                    .map(|at| SynAckSent {
                        at_ns: to_client.at(at),
                        fate: SegmentFate::Unknown,
                    }),
            );
        }
        sent.sort_unstable_by_key(|s| s.at_ns);
        let took_them = ["answer-rejected", "dropped-here"];
        let at_fate = match client.verdict.as_deref() {
            Some(verdict) if took_them.contains(&verdict) => SegmentFate::Refused,
            _ => SegmentFate::Lost,
        };
        if client.is_established() {
            let is_late = client.verdict.as_deref() == Some("spurious-retransmit");
            let by_then =
                sent.partition_point(|s| s.at_ns <= client.at_ns + to_client.margin_ns / 2);
            if let Some(accepted) = by_then.checked_sub(1) {
                let accepted_ns = sent[accepted].at_ns;
                sent[accepted].fate = SegmentFate::Arrived;
                for before in &mut sent[..accepted] {
                    if !is_late && accepted_ns - before.at_ns > to_client.margin_ns {
                        before.fate = at_fate;
                        self.may_be_late = true;
                    }
                }
            }
        } else {
            // Those that came while it waited.
            for answer in &mut sent {
                if answer.at_ns + to_client.margin_ns < client.at_ns {
                    answer.fate = at_fate;
                }
            }
            // The first time-out is one second: what is sent within it is waited for.
            if sent.iter().all(|s| s.fate == SegmentFate::Unknown) {
                self.unclear
                    .push("the client ended before an answer was due".to_owned());
            }
        }
        self.lost_syn_acks = sent.iter().filter(|s| s.fate == SegmentFate::Lost).count() as u32;
        let Some(began_ns) = client.began_ns() else {
            return;
        };
        self.syn_acks = sent
            .iter()
            .map(|s| Transmission {
                segment: SegmentKind::SynAck,
                sent_us: Some(us_since(s.at_ns, began_ns)),
                seen_us: (s.fate == SegmentFate::Arrived).then(|| us_since(client.at_ns, began_ns)),
                fate: s.fate,
            })
            .collect();
    }

    /// Whether the ACK that a connected client sends arrived.
    fn last_ack(
        &mut self,
        client: &SideHandshake,
        servers: &[SideHandshake],
        to_client: &ToClient,
    ) {
        if !client.is_established() {
            return;
        }
        let Some(began_ns) = client.began_ns() else {
            return;
        };
        let connected_ns = client.at_ns;
        let margin_ns = to_client.margin_ns;
        let refused = servers.iter().any(|s| {
            let own = [
                "accept-queue-full",
                "defer-accept",
                "dropped-here",
                "listener-closed",
            ];
            s.confidence != Confidence::Insufficient
                && s.verdict.as_deref().is_some_and(|v| own.contains(&v))
        });
        let connected = servers.iter().find(|s| s.is_established());
        // The server goes on answering after the client is connected: it has not taken the ACK.
        let went_on = servers.iter().any(|s| {
            let ended_ns = to_client.at(s.at_ns.saturating_sub(s.error_ns()));
            let lived_on = !s.is_established() && ended_ns > connected_ns + margin_ns;
            let repeated = s
                .repeats
                .iter()
                .any(|r| to_client.at(r.at_ns) > connected_ns + margin_ns);
            repeated || lived_on
        });
        let fate = match (went_on, refused, connected) {
            (true, true, _) => SegmentFate::Refused,
            (true, false, _) => SegmentFate::Lost,
            (false, _, Some(_)) => SegmentFate::Arrived,
            (false, ..) => SegmentFate::Unknown,
        };
        self.lost_acks = u32::from(fate == SegmentFate::Lost);
        self.ack = Some(Transmission {
            segment: SegmentKind::Ack,
            sent_us: Some(us_since(connected_ns, began_ns)),
            seen_us: (fate == SegmentFate::Arrived)
                .then(|| connected.map(|s| us_since(to_client.at(s.at_ns), began_ns)))
                .flatten(),
            fate,
        });
    }

    pub(super) fn transmissions(&self) -> Vec<Transmission> {
        let mut all: Vec<Transmission> = self.syns.clone();
        all.extend(&self.syn_acks);
        all.extend(self.ack);
        all
    }

    pub(super) fn lost_syns(&self) -> u32 {
        self.missing().saturating_sub(self.refused_syns)
    }

    pub(super) fn lost_ways(&self) -> (u32, u32) {
        (self.lost_syns() + self.lost_acks, self.lost_syn_acks)
    }

    pub(super) fn lost(&self) -> LostSegments {
        LostSegments::of(self.lost_syns(), self.lost_syn_acks, self.lost_acks)
    }

    pub(super) fn nothing_lost(&self) -> bool {
        self.lost_ways() == (0, 0) && self.refused_syns == 0
    }

    /// Each SYN and each SYN-ACK is accounted for, and none may only have been late.
    pub(super) fn is_exact(&self) -> bool {
        let unknown = |t: &Transmission| t.fate == SegmentFate::Unknown;
        self.refused_syns == 0 && !self.may_be_late && !self.syns.iter().any(unknown)
    }

    /// The counts in words.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = vec![self.syn.words("SYN")];
        if let Some(what) = &self.refused_what {
            words.push(format!(
                "the server refused SYNs of this address then: {what}"
            ));
        }
        let got = match (self.established, self.lost_syn_acks) {
            (false, _) => "the client took none".to_owned(),
            (true, 0) => "the client took one".to_owned(),
            (true, _) => "the client took a later one".to_owned(),
        };
        let sent = plural(self.sent_syn_acks, "SYN-ACK");
        words.push(format!("{sent} sent, {got}"));
        words
    }

    /// What follows from the counts, where both ends can testify.
    pub(super) fn conclusion(&self) -> Option<&'static str> {
        match self.ack.map(|ack| ack.fate)? {
            SegmentFate::Lost => Some(
                "the client was connected, and the server went on sending its SYN-ACK: the ACK was lost",
            ),
            SegmentFate::Refused => {
                Some("the client was connected, and the server did not take its ACK")
            }
            _ => None,
        }
    }
}

impl Transmission {
    /// One end cannot testify: what was not seen there is not known.
    pub(super) fn unsure(&mut self) {
        if matches!(self.fate, SegmentFate::Lost | SegmentFate::Refused) {
            self.fate = SegmentFate::Unknown;
        }
    }
}
