//! Pairs in trouble, added up: one problem for each verdict and place.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use serde::Serialize;

use super::{
    context::NOT_ENOUGH,
    pair::{LostSegments, Pair, SegmentFate},
};
use crate::{
    model::{Confidence, Evidence},
    util::format::plural,
};

/// Problems that are kept individually.
const PROBLEMS: usize = 4096;
/// Clients of a problem that are counted individually.
const CLIENTS: NamedRoom = NamedRoom {
    each: 16,
    most: 4096,
    of_all: 65_536,
};
/// Clients of a problem that are named.
const NAMED: usize = 5;
/// Reasons of a problem that are counted individually.
const REASONS: NamedRoom = NamedRoom {
    each: 4,
    most: 64,
    of_all: 8192,
};

/// How many of something are counted individually: of each problem, and of all together.
struct NamedRoom {
    /// Room that each problem has, whatever others took.
    each: usize,
    /// What a problem may have at most.
    most: usize,
    /// What all problems together may have beyond the room of each.
    of_all: usize,
}

impl NamedRoom {
    /// Whether there is room for one more. `beyond`: what all have beyond their own room.
    fn take(&self, has: usize, beyond: &mut usize) -> bool {
        if has < self.each {
            return true;
        }
        let room = has < self.most && *beyond < self.of_all;
        *beyond += usize::from(room);
        room
    }
}

/// A verdict, and the server's end as the server knows it; else as the client does.
type ProblemPlace = (String, IpAddr, u16);

#[derive(Default)]
struct PairGroup {
    pairs: u64,
    open: u64,
    surest: Option<Confidence>,
    clients: HashMap<IpAddr, u64>,
    syns_sent: u64,
    syns_arrived: u64,
    /// SYNs of which it is not known whether they arrived.
    syns_unknown: u64,
    syn_acks_sent: u64,
    /// Some pair tells how many were lost.
    counts_losses: bool,
    toward_server: u64,
    toward_client: u64,
    reasons: BTreeMap<String, u64>,
    remedy: Option<Arc<str>>,
    netns: u32,
    pid: Option<u32>,
    comm: Option<Arc<str>>,
    example: Option<Pair>,
}

/// Adds pairs up.
#[derive(Default)]
pub struct PairProblems {
    groups: BTreeMap<ProblemPlace, PairGroup>,
    connects: HashMap<(IpAddr, u16), u64>,
    /// Clients and reasons that are counted individually beyond what each problem has room for.
    beyond: (usize, usize),
}

/// A client of a problem.
#[derive(Clone, Debug, Serialize)]
pub struct PairClient {
    /// Its address, as the server knows it.
    pub peer_addr: IpAddr,
    /// How many of the pairs are its.
    pub handshakes: u64,
}

/// What the pairs of a problem lost together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LostTogether {
    /// SYNs and ACKs.
    pub toward_server: u64,
    /// SYN-ACKs.
    pub toward_client: u64,
}

/// Many pairs with one verdict, at one listening port: the fields of a `problem` line.
#[derive(Clone, Debug, Serialize)]
pub struct PairProblem {
    /// 1 is the worst.
    pub rank: u64,
    /// The verdict.
    pub verdict: String,
    /// The surest of its pairs.
    pub confidence: Confidence,
    role: &'static str,
    netns: u32,
    netns_name: Option<()>,
    /// The server's address.
    pub local_addr: IpAddr,
    /// The server's port.
    pub local_port: Option<u16>,
    peer_port: Option<()>,
    forward: Option<()>,
    pid: Option<u32>,
    comm: Option<Arc<str>>,
    unit: Option<()>,
    container_id: Option<()>,
    pod_uid: Option<()>,
    container: Option<()>,
    pod: Option<()>,
    namespace: Option<()>,
    /// Its pairs.
    pub handshakes: u64,
    /// Those of them that were open when a run ended.
    pub open: u64,
    /// Its clients, those with most pairs first.
    pub peers: Vec<PairClient>,
    /// How many more there are.
    pub peers_more: u64,
    /// Sums, and the reasons that most pairs have.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub remedy: Option<Arc<str>>,
    effects: [(); 0],
    /// Segments; `None`: not known.
    pub lost: Option<LostTogether>,
    /// One of its pairs.
    #[serde(skip)]
    pub example: Option<Box<Pair>>,
}

impl PairProblems {
    /// Takes in a pair.
    pub fn add(&mut self, pair: &Pair) {
        let server = pair.server.first();
        let end = server
            .map(|s| (s.local_addr, s.local_port))
            .or(pair.client.as_ref().map(|c| (c.peer_addr, c.peer_port)));
        let Some((addr, port)) = end else {
            return;
        };
        let port = port.unwrap_or(0);
        if self.connects.len() < PROBLEMS || self.connects.contains_key(&(addr, port)) {
            *self.connects.entry((addr, port)).or_default() += 1;
        }
        let Some(verdict) = &pair.verdict else {
            return;
        };
        let place = (verdict.to_string(), addr, port);
        if self.groups.len() >= PROBLEMS && !self.groups.contains_key(&place) {
            return;
        }
        let group = self.groups.entry(place).or_default();
        group.add(pair, &mut self.beyond);
    }

    /// All problems, worst first.
    pub fn ranked(self) -> Vec<PairProblem> {
        let mut all: Vec<(ProblemPlace, PairGroup)> = self.groups.into_iter().collect();
        all.sort_by_key(|((verdict, ..), group)| (verdict == NOT_ENOUGH, u64::MAX - group.pairs));
        let connects = self.connects;
        let problem = |(i, (place, group)): (usize, (ProblemPlace, PairGroup))| {
            let total = connects
                .get(&(place.1, place.2))
                .copied()
                .unwrap_or(group.pairs);
            group.problem(i as u64 + 1, place, total)
        };
        all.into_iter().enumerate().map(problem).collect()
    }
}

impl PairGroup {
    fn add(&mut self, pair: &Pair, (clients_beyond, reasons_beyond): &mut (usize, usize)) {
        self.pairs += 1;
        let ends = || pair.client.as_deref().into_iter().chain(&pair.server);
        self.open += u64::from(ends().any(|h| h.open_reason.is_some()));
        let sure = |c: Option<Confidence>| match c {
            Some(Confidence::Certain) => 2,
            Some(Confidence::Likely) => 1,
            _ => 0,
        };
        if self.surest.is_none() || sure(Some(pair.confidence)) > sure(self.surest) {
            self.surest = Some(pair.confidence);
            self.remedy = pair.remedy.clone();
            self.example = Some(pair.clone());
        }
        let client = pair.server.first().map(|s| s.peer_addr);
        if let Some(addr) = client.or(pair.client.as_ref().map(|c| c.local_addr))
            && (self.clients.contains_key(&addr)
                || CLIENTS.take(self.clients.len(), clients_beyond))
        {
            *self.clients.entry(addr).or_default() += 1;
        }
        if let Some(client) = pair.client.as_ref().filter(|_| !pair.simultaneous) {
            let sent = u64::from(client.retransmits) + 1;
            self.syns_sent += sent;
            if pair.server.is_empty() {
                match pair.transmissions.first().map(|t| t.fate) {
                    Some(SegmentFate::Lost) => (),
                    Some(SegmentFate::Refused) => self.syns_arrived += sent,
                    _ => self.syns_unknown += sent,
                }
            }
        }
        for server in &pair.server {
            self.syns_arrived += u64::from(server.by_peer) + 1;
            self.syn_acks_sent += u64::from(server.retransmits) + 1;
            self.netns = server.netns;
            self.pid = server.pid.or(self.pid);
            self.comm = server.comm.clone().or(self.comm.take());
        }
        self.counts_losses |= pair.lost != LostSegments::default();
        self.toward_server += u64::from(pair.lost.toward_server.unwrap_or(0));
        self.toward_client += u64::from(pair.lost.toward_client.unwrap_or(0));
        for reason in pair.evidence.iter().filter(|e| !has_numbers(&e.fact)) {
            if let Some(count) = self.reasons.get_mut(&reason.fact) {
                *count += 1;
            } else if REASONS.take(self.reasons.len(), reasons_beyond) {
                self.reasons.insert(reason.fact.clone(), 1);
            }
        }
    }

    /// What was sent and what arrived, as far as that is known.
    fn counts(&self) -> String {
        let mut counts = format!("{} sent", plural(self.syns_sent, "SYN"));
        if self.syns_unknown == self.syns_sent {
            counts.push_str(": whether they arrived is not known");
        } else {
            counts.push_str(&format!(", {} arrived", self.syns_arrived));
            if self.syns_unknown > 0 {
                counts.push_str(&format!(", of {} it is not known", self.syns_unknown));
            }
        }
        if self.syn_acks_sent > 0 || self.counts_losses {
            counts.push_str(&format!("; {} sent", plural(self.syn_acks_sent, "SYN-ACK")));
        }
        if self.counts_losses {
            counts.push_str(&format!(", {} lost on the way back", self.toward_client));
        }
        counts
    }

    fn problem(self, rank: u64, (verdict, addr, port): ProblemPlace, total: u64) -> PairProblem {
        let counts = (self.syns_sent > 0 && verdict != NOT_ENOUGH).then(|| self.counts());
        let mut clients: Vec<PairClient> = self
            .clients
            .into_iter()
            .map(|(peer_addr, handshakes)| PairClient {
                peer_addr,
                handshakes,
            })
            .collect();
        clients.sort_by_key(|c| (u64::MAX - c.handshakes, c.peer_addr));
        let more = clients.len().saturating_sub(NAMED) as u64;
        clients.truncate(NAMED);
        let lost = (verdict != NOT_ENOUGH && self.counts_losses).then_some(LostTogether {
            toward_server: self.toward_server,
            toward_client: self.toward_client,
        });
        let mut evidence = Vec::new();
        let mut say = |fact: String| {
            evidence.push(Evidence {
                fact,
                supports: true,
            })
        };
        say(format!(
            "{} of {} to port {port} of {addr}",
            self.pairs,
            plural(total, "connect")
        ));
        if let Some(counts) = counts {
            say(counts);
        }
        let mut reasons: Vec<(String, u64)> = self.reasons.into_iter().collect();
        reasons.sort_by_key(|(_, count)| u64::MAX - count);
        for (reason, count) in reasons.into_iter().take(4) {
            match count == self.pairs {
                true => say(reason),
                false => say(format!("{count} of them: {reason}")),
            }
        }
        PairProblem {
            rank,
            confidence: self.surest.unwrap_or(Confidence::Insufficient),
            role: "server",
            netns: self.netns,
            netns_name: None,
            local_addr: addr,
            local_port: (port != 0).then_some(port),
            peer_port: None,
            forward: None,
            pid: self.pid,
            comm: self.comm,
            unit: None,
            container_id: None,
            pod_uid: None,
            container: None,
            pod: None,
            namespace: None,
            handshakes: self.pairs,
            open: self.open,
            peers: clients,
            peers_more: more,
            evidence,
            remedy: self.remedy,
            effects: [],
            lost,
            example: self.example.map(Box::new),
            verdict,
        }
    }
}

/// Sums are added up: the counts of each pair are not repeated.
fn has_numbers(fact: &str) -> bool {
    fact.contains(" sent, ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_has_room_whatever_the_others_took() {
        let room = NamedRoom {
            each: 2,
            most: 4,
            of_all: 3,
        };
        let mut beyond = 0;
        let mut filled = |wants: usize| {
            let mut has = 0;
            for _ in 0..wants {
                has += usize::from(room.take(has, &mut beyond));
            }
            has
        };
        assert_eq!([filled(9), filled(9), filled(9), filled(1)], [4, 3, 2, 1]);
    }
}
