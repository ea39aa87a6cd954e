//! The second pass: both sides in the order of one clock, and the pairs as they become complete.

use std::{iter::Peekable, net::IpAddr};

use super::{
    clock::ClockModel,
    connects::{CalledAddresses, JoinCounts, Repeats, WaitingConnect},
    context::JoinContext,
    coverage::Coverage,
    crossing::{Crossing, judge_crossed},
    fact::{JoinFact, SideHandshake},
    judge::judge,
    pair::{Pair, PairKey},
    refusals::Refusals,
    silence::{silent_client, silent_server},
    survey::SideSurvey,
    waiting::{WaitingTable, Waits},
};
use crate::model::Role;

/// How long one in trouble waits for its other end: a half-open lives 63 s with the default settings.
const TROUBLED_NS: i64 = 200_000_000_000;
/// How long a clean one waits.
const CLEAN_NS: i64 = 10_000_000_000;
/// Handshakes that wait, of each side.
const WAITING: usize = 100_000;
/// Connects without a record of the server that are judged at the end, when all destinations are known.
const SILENT: usize = 50_000;
/// What they may take.
const SILENT_BYTES: usize = 16 << 20;
/// Called addresses that are kept individually.
const DESTINATIONS: usize = 16_384;
/// The half-open of a connect whose clock is not known may be this far from it, nanoseconds.
const APART_NS: i64 = 5_000_000_000;

/// The side of a fact.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JoinSide {
    Client,
    Server,
}

/// Joins two sides.
pub struct Joiner<'s, E> {
    clock: &'s ClockModel,
    client: &'s Coverage,
    server: &'s Coverage,
    refusals: Refusals<'s>,
    late_ns: i64,
    clients: WaitingTable<WaitingConnect>,
    servers: WaitingTable<Box<SideHandshake>>,
    silent: Vec<WaitingConnect>,
    silent_bytes: usize,
    destinations: CalledAddresses,
    crossing: Crossing<'s>,
    repeats: [Repeats; 2],
    counts: JoinCounts,
    emit: E,
}

impl<'s, E: FnMut(Pair)> Joiner<'s, E> {
    /// Hands each pair to `emit`, in the order in which they become complete.
    pub fn new(
        clock: &'s ClockModel,
        client: &'s SideSurvey,
        server: &'s SideSurvey,
        emit: E,
    ) -> Self {
        Self {
            clock,
            client: &client.coverage,
            server: &server.coverage,
            refusals: Refusals::of(&server.refused),
            late_ns: client.late_ns.max(server.late_ns),
            clients: WaitingTable::default(),
            servers: WaitingTable::default(),
            silent: Vec::new(),
            silent_bytes: 0,
            destinations: CalledAddresses::default(),
            crossing: Crossing::of(&client.crossed, &server.crossed),
            repeats: Default::default(),
            counts: JoinCounts::default(),
            emit,
        }
    }

    /// Takes both sides to their ends.
    pub fn run(
        mut self,
        client: impl Iterator<Item = JoinFact>,
        server: impl Iterator<Item = JoinFact>,
    ) -> JoinCounts {
        let (mut client, mut server) = (client.peekable(), server.peekable());
        let (mut client_ns, mut server_ns) = (i64::MIN, i64::MIN);
        loop {
            client_ns = client_ns.max(next_ns(&mut client, |at_ns| at_ns));
            server_ns = server_ns.max(next_ns(&mut server, |at_ns| self.on_client_clock(at_ns)));
            let (side, fact) = if client_ns <= server_ns {
                (JoinSide::Client, client.next())
            } else {
                (JoinSide::Server, server.next())
            };
            let fact = match fact {
                Some(fact) => fact,
                // The other one may go on, without a time.
                None => match client.next() {
                    Some(fact) => {
                        self.fact(JoinSide::Client, fact);
                        continue;
                    }
                    None => match server.next() {
                        Some(fact) => {
                            self.fact(JoinSide::Server, fact);
                            continue;
                        }
                        None => break,
                    },
                },
            };
            self.fact(side, fact);
            self.overdue(
                client_ns.min(server_ns).saturating_sub(self.late_ns),
                WAITING,
            );
        }
        self.overdue(i64::MAX, 0);
        for connect in std::mem::take(&mut self.silent) {
            self.silent(connect);
        }
        self.counts
    }

    fn on_client_clock(&self, server_ns: i64) -> i64 {
        let offset_ns = self.clock.roughly_at_server(server_ns).unwrap_or(0);
        server_ns.saturating_sub(offset_ns)
    }

    fn fact(&mut self, side: JoinSide, fact: JoinFact) {
        let repeats = &mut self.repeats[side as usize];
        match fact {
            JoinFact::Start(_) => repeats.clear(),
            JoinFact::Repeat { id, repeat } => repeats.add(id, repeat),
            JoinFact::Handshake(mut h) => {
                if h.retransmits > 0 {
                    h.repeats = repeats.take(h.id);
                }
                match (side, h.role) {
                    (JoinSide::Client, Role::Client) => self.active(h),
                    (JoinSide::Server, Role::Server) => self.passive(h),
                    (JoinSide::Server, Role::Client) => self.crossing.caller(h),
                    _ => (),
                }
            }
            _ => (),
        }
    }

    fn active(&mut self, client: Box<SideHandshake>) {
        if self.destinations.sources.len() < DESTINATIONS {
            self.destinations.sources.insert(client.local_addr);
        }
        let one = |number: u64, key| {
            let server = self.servers.get(number);
            server.is_some_and(|s| self.is_one(&client, s, key))
        };
        // A connect may have half-opens with their number and, of its other SYNs, some without.
        let of_seq = self.servers.of_seq(&client);
        let mut numbers: Vec<u64> = of_seq.filter(|n| one(*n, PairKey::SynSeq)).collect();
        let has_number = !numbers.is_empty();
        for number in self.servers.of_ends(&client) {
            if one(number, PairKey::Ends) && !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let key = match has_number || numbers.is_empty() && client.syn_seq.is_some() {
            true => PairKey::SynSeq,
            false => PairKey::Ends,
        };
        let mut servers: Vec<SideHandshake> = numbers
            .iter()
            .filter_map(|n| self.servers.remove(*n).map(|server| *server))
            .collect();
        // It waits: there may be many.
        servers.shrink_to_fit();
        let connect = WaitingConnect {
            client,
            servers,
            key,
        };
        if connect.is_complete() {
            return self.finish(connect);
        }
        let is_quick = connect.client.is_clean() && connect.servers.is_empty();
        let wait_ns = match is_quick && !self.crossing.may_be(&connect.client) {
            true => CLEAN_NS,
            false => TROUBLED_NS,
        };
        let due_ns = connect.client.at_ns.saturating_add(wait_ns);
        self.clients.insert(connect, due_ns);
    }

    fn passive(&mut self, server: Box<SideHandshake>) {
        let one = |number: u64, key| {
            let connect = self.clients.get(number);
            connect.is_some_and(|c| self.is_one(&c.client, &server, key))
        };
        let mut of_seq = self.clients.of_seq(&server);
        let mut of_ends = self.clients.of_ends(&server);
        let found = match of_seq.rfind(|n| one(*n, PairKey::SynSeq)) {
            Some(number) => Some((number, PairKey::SynSeq)),
            None => of_ends
                .rfind(|n| one(*n, PairKey::Ends))
                .map(|number| (number, PairKey::Ends)),
        };
        drop((of_seq, of_ends));
        let Some((number, key)) = found else {
            let wait_ns = if server.is_clean() {
                CLEAN_NS
            } else {
                TROUBLED_NS
            };
            let due_ns = self.on_client_clock(server.at_ns).saturating_add(wait_ns);
            self.servers.insert(server, due_ns);
            return;
        };
        let is_complete = self.clients.update(number, |connect| {
            if connect.servers.is_empty() || key == PairKey::SynSeq {
                connect.key = key;
            }
            connect.servers.reserve_exact(1);
            connect.servers.push(*server);
            connect.is_complete()
        });
        if is_complete == Some(true)
            && let Some(connect) = self.clients.remove(number)
        {
            self.finish(connect);
        }
    }

    /// The active open of the server's that is the other end of a simultaneous open.
    fn other_end(&mut self, client: &SideHandshake) -> Option<(SideHandshake, PairKey)> {
        let at = self
            .crossing
            .find(client, |server| self.is_then(client, server))?;
        self.crossing.take(at)
    }

    /// Whether a half-open belongs to a connect. The same number or the same ends come again after hours.
    fn is_one(&self, client: &SideHandshake, server: &SideHandshake, key: PairKey) -> bool {
        let same_ends = client.ends().is_some() && client.ends() == server.ends();
        let both = |a: Option<u32>, b: Option<u32>| Some(a? == b?);
        let same_answer = both(client.syn_ack_seq, server.syn_ack_seq);
        let same_syn = both(client.syn_seq, server.syn_seq);
        if key == PairKey::Ends && same_syn == Some(false) {
            return false;
        }
        let Some(overlap) = self.is_then(client, server) else {
            // Nothing is known of the clocks: numbers that agree must do.
            return key == PairKey::SynSeq && (same_ends || same_answer == Some(true));
        };
        // Without the ends, numbers agree by chance once in four billion: both must, or their times.
        overlap
            && (same_ends || key == PairKey::SynSeq && same_answer != Some(false) || {
                key == PairKey::SynSeq && client.peer_port == server.local_port
            })
    }

    /// Whether both were under way at once, about; `None`: nothing is known of the clocks.
    fn is_then(&self, client: &SideHandshake, server: &SideHandshake) -> Option<bool> {
        let close_ns = match self.clock.at(client.at_ns) {
            Some(clock) => APART_NS.saturating_add(clock.error_ns),
            None => self.clock.roughly_at(client.at_ns).map(|_| 4 * APART_NS)?,
        };
        let began_ns = self.on_client_clock(server.earliest_ns());
        let ended_ns = self.on_client_clock(server.at_ns);
        Some(
            began_ns <= client.at_ns.saturating_add(close_ns)
                && ended_ns >= client.earliest_ns().saturating_sub(close_ns),
        )
    }

    fn overdue(&mut self, now_ns: i64, most: usize) {
        while let Some(connect) = self.clients.take_due(now_ns, most) {
            self.finish(connect);
        }
        while let Some(server) = self.servers.take_due(now_ns, most) {
            self.counts.server_only += 1;
            if !server.is_clean() {
                let pair = silent_client(*server, &self.context(), &self.destinations);
                (self.emit)(pair);
            }
        }
    }

    fn finish(&mut self, connect: WaitingConnect) {
        let WaitingConnect {
            client,
            mut servers,
            key,
        } = connect;
        let destination = client.peer_port.map(|port| (client.peer_addr, port));
        if servers.is_empty()
            && let Some((server, key)) = self.other_end(&client)
        {
            self.counts.joined += 1;
            let pair = judge_crossed(client, server, key, &self.context());
            return (self.emit)(pair);
        }
        if servers.is_empty() {
            return self.without_server(
                WaitingConnect {
                    client,
                    servers,
                    key,
                },
                destination,
            );
        }
        self.counts.joined += 1;
        let room = self.destinations.translated.len() < DESTINATIONS;
        if let Some(destination) = destination
            && room
            && servers
                .iter()
                .any(|s| (s.local_addr, s.local_port) != (destination.0, Some(destination.1)))
        {
            self.destinations.translated.insert(destination);
        }
        servers.sort_by_key(|server| (server.earliest_ns(), server.id));
        let pair = judge(client, servers, key, &self.context());
        (self.emit)(pair);
    }

    fn without_server(&mut self, connect: WaitingConnect, destination: Option<(IpAddr, u16)>) {
        self.counts.client_only += 1;
        let client = &connect.client;
        let watching = || {
            let offset_ns = self.clock.roughly_at(client.at_ns).unwrap_or(0);
            let at = |ns: i64| ns.saturating_add(offset_ns);
            let (from_ns, to_ns) = (at(client.earliest_ns()), at(client.at_ns));
            self.server.reports_all() && self.server.cannot_tell_of(from_ns, to_ns).is_none()
        };
        let answered = client.is_established();
        if answered
            && self.destinations.shared.len() < DESTINATIONS
            && let Some(destination) = destination
            && watching()
        {
            self.destinations.shared.insert(destination);
        }
        if client.is_clean() {
            return;
        }
        let bytes = connect.bytes();
        if self.silent.len() < SILENT && self.silent_bytes + bytes <= SILENT_BYTES {
            self.silent_bytes += bytes;
            self.silent.push(connect);
        } else {
            self.silent(connect);
        }
    }

    fn silent(&mut self, connect: WaitingConnect) {
        let pair = silent_server(
            connect.client,
            connect.key,
            &self.context(),
            &self.destinations,
        );
        (self.emit)(pair);
    }

    fn context(&self) -> JoinContext<'_> {
        JoinContext {
            clock: self.clock,
            client: self.client,
            server: self.server,
            refusals: &self.refusals,
            crossed: self.crossing.of_server(),
        }
    }
}

/// The time of the next fact on the common clock. One without a time is taken at once; at the end there is
/// none.
fn next_ns(
    facts: &mut Peekable<impl Iterator<Item = JoinFact>>,
    common: impl Fn(i64) -> i64,
) -> i64 {
    match facts.peek() {
        None => i64::MAX,
        Some(fact) => fact.at_ns().map_or(i64::MIN, common),
    }
}
