//! Totals by peer address and role. The tables are bounded, and a flood cannot evict the peers that matter.
//!
//! A SYN from a forged address costs an entry. Such a peer never answers: it is on probation, in a table of
//! its own from which the oldest is evicted. A peer that has responded, with any packet beyond one SYN, is
//! protected: silent peers cannot evict it. That table is bounded too, and there the healthiest peer is
//! evicted. The evicted peers are kept as one sum, and the number of different peers is estimated.

mod distinct;
mod dwells;

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
};

use distinct::Distinct;
pub use distinct::Estimate;
use dwells::Dwells;

use crate::{
    model::{ByRole, Handshake, Outcome, Peer, RetransmitKind, Role},
    util::table_bounds::TableBounds,
};

/// Peers in trouble that are skipped because they were active since, at most, before one is evicted.
const SECOND_CHANCES: usize = 8;

/// How much a peer matters: the one that matters least is evicted first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// Nothing came from it but a SYN (server), nothing at all (client).
    #[default]
    Silent,
    /// One attempt, one RST: the true owner of a forged source address answers so, or a closed port that a
    /// scan finds.
    Reset,
    /// Every handshake completed, and nothing was retransmitted.
    Healthy,
    /// Anything else.
    Trouble,
}

/// The standings in the protected table, in the order of eviction.
const PROTECTED: [Standing; 3] = [Standing::Reset, Standing::Healthy, Standing::Trouble];

#[derive(Default)]
struct PeerTotals {
    attempts: u64,
    established: u64,
    failed: u64,
    open: u64,
    retransmits: [u64; RetransmitKind::ALL.len()],
    dwells: Dwells,
    dwell_max_us: Option<u64>,
    /// SYNs that were refused: because the accept queue was full, because the SYN queue was.
    refused: [u64; 2],
    /// Whether a packet came from it beyond one SYN.
    alive: bool,
    standing: Standing,
    /// Of its ticket; 0: it has none yet.
    serial: u64,
}

impl PeerTotals {
    fn resent(&self) -> u64 {
        self.retransmits.iter().sum()
    }

    fn earned(&self) -> Standing {
        match (self.failed + self.open, self.resent()) {
            _ if !self.alive => Standing::Silent,
            (0, 0) => Standing::Healthy,
            (1, 0) if self.attempts == 1 && self.failed == 1 => Standing::Reset,
            _ => Standing::Trouble,
        }
    }
}

/// Why a SYN was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullQueue {
    /// Too many connections wait for accept().
    Accept,
    /// Too many are half-open.
    Syn,
}

type Key = (IpAddr, Role);

/// A place in the order of eviction. It is void once the peer has another serial.
struct Ticket {
    key: Key,
    serial: u64,
    /// Attempts and retransmissions when it was given out.
    activity: u64,
}

/// The sum of the evicted peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Handshakes.
    pub attempts: u64,
    /// Of those, completed.
    pub established: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Still open.
    pub open: u64,
    /// Segments retransmitted, of every kind.
    pub retransmits: u64,
}

impl Others {
    fn add(&mut self, totals: &PeerTotals) {
        self.attempts += totals.attempts;
        self.established += totals.established;
        self.failed += totals.failed;
        self.open += totals.open;
        self.retransmits += totals.resent();
    }
}

/// The peers of a run.
pub struct Peers {
    totals: HashMap<Key, PeerTotals>,
    /// By standing.
    tickets: [VecDeque<Ticket>; 4],
    /// By standing: how many there are.
    counts: [usize; 4],
    limit: usize,
    probation: usize,
    serial: u64,
    others: Others,
    distinct: ByRole<Distinct>,
    /// Whether a peer was evicted: from then on the number of peers is an estimate.
    incomplete: ByRole<bool>,
    /// Whether refused SYNs raise events.
    sees_refusals: bool,
}

impl Peers {
    /// An empty table with these bounds. `hash_seed` keys the estimate of how many peers there were.
    pub fn new(bounds: &TableBounds, hash_seed: u64) -> Self {
        Self {
            totals: HashMap::new(),
            tickets: Default::default(),
            counts: [0; 4],
            limit: bounds.peers.max(1),
            probation: bounds.silent_peers.max(1),
            serial: 0,
            others: Others::default(),
            distinct: ByRole {
                client: Distinct::new(hash_seed),
                server: Distinct::new(!hash_seed),
            },
            incomplete: ByRole::default(),
            sees_refusals: false,
        }
    }
}

impl Peers {
    /// Handshakes and retransmissions of evicted peers.
    pub fn unlisted(&self) -> u64 {
        self.others.attempts + self.others.retransmits
    }

    /// The sum of the evicted peers.
    pub fn others(&self) -> Others {
        self.others
    }

    /// Peers in the table.
    pub fn len(&self) -> usize {
        self.totals.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty()
    }

    /// The number of different peers in a role: exact while none was evicted.
    pub fn distinct(&self, role: Role) -> Estimate {
        let listed = self.totals.keys().filter(|(_, r)| *r == role).count() as u64;
        if !*self.incomplete.get(role) {
            return Estimate {
                count: listed,
                error: 0.0,
            };
        }
        let estimate = self.distinct.get(role).estimate();
        Estimate {
            count: estimate.count.max(listed),
            ..estimate
        }
    }

    /// Counts something for a peer, then evicts where a table is full.
    fn count(&mut self, key: Key, count: impl FnOnce(&mut PeerTotals)) {
        let totals = self.totals.entry(key).or_default();
        let (is_new, had) = (totals.serial == 0, totals.standing);
        count(totals);
        let earned = totals.earned();
        if !is_new && earned == had {
            return;
        }
        self.serial += 1;
        (totals.standing, totals.serial) = (earned, self.serial);
        self.tickets[earned as usize].push_back(Ticket {
            key,
            serial: self.serial,
            activity: totals.attempts + totals.resent(),
        });
        self.counts[earned as usize] += 1;
        if is_new {
            self.distinct.get_mut(key.1).add(key.0);
        } else {
            self.counts[had as usize] -= 1;
            self.tidy(had);
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        if self.counts[Standing::Silent as usize] > self.probation {
            self.evict(Standing::Silent);
        }
        let held = |standing: &Standing| self.counts[*standing as usize];
        if PROTECTED.iter().map(held).sum::<usize>() > self.limit
            && let Some(least) = PROTECTED.into_iter().find(|s| held(s) > 0)
        {
            self.evict(least);
        }
    }

    /// The one that has had this standing for longest goes; of those in trouble, one in which nothing
    /// happened since.
    fn evict(&mut self, standing: Standing) {
        let mut chances = match standing {
            Standing::Trouble => SECOND_CHANCES,
            _ => 0,
        };
        while let Some(mut ticket) = self.tickets[standing as usize].pop_front() {
            let Entry::Occupied(entry) = self.totals.entry(ticket.key) else {
                continue;
            };
            let totals = entry.get();
            if totals.serial != ticket.serial {
                continue;
            }
            let activity = totals.attempts + totals.resent();
            if chances > 0 && activity > ticket.activity {
                chances -= 1;
                ticket.activity = activity;
                self.tickets[standing as usize].push_back(ticket);
                continue;
            }
            let totals = entry.remove();
            self.counts[standing as usize] -= 1;
            self.others.add(&totals);
            *self.incomplete.get_mut(ticket.key.1) = true;
            return;
        }
    }

    /// Drops the dead tickets when they are many.
    fn tidy(&mut self, standing: Standing) {
        let tickets = &mut self.tickets[standing as usize];
        if tickets.len() > 2 * self.counts[standing as usize] + 1024 {
            let totals = &self.totals;
            tickets.retain(|t| totals.get(&t.key).is_some_and(|of| of.serial == t.serial));
        }
    }

    /// A handshake ended (or the run did).
    pub fn ended(&mut self, handshake: &Handshake) {
        let connection = &handshake.connection;
        let key = (connection.peer_addr, connection.role);
        self.count(key, |totals| {
            totals.alive |= shows_life(handshake);
            totals.attempts += 1;
            match handshake.outcome {
                Outcome::Established => totals.established += 1,
                Outcome::Open => totals.open += 1,
                _ => totals.failed += 1,
            }
            if let Some(us) = handshake.dwell_us
                && handshake.outcome != Outcome::Open
            {
                totals.dwell_max_us = totals.dwell_max_us.max(Some(us));
                totals.dwells.add(us);
            }
        });
    }

    /// A segment was retransmitted.
    pub fn retransmitted(&mut self, peer: IpAddr, role: Role, kind: RetransmitKind, count: u64) {
        self.count((peer, role), |totals| {
            totals.retransmits[kind as usize] += count;
            // Data is sent only to those who have taken part in a handshake.
            totals.alive |= !matches!(kind, RetransmitKind::Syn | RetransmitKind::Synack);
        });
    }

    /// The peer repeated its SYN: it lives, whatever becomes of its handshake.
    pub fn syn_repeated(&mut self, peer: IpAddr, role: Role) {
        self.count((peer, role), |totals| totals.alive = true);
    }

    /// Whether refused SYNs raise events: else their numbers are not known.
    pub fn with_syn_refusals(mut self, sees: bool) -> Self {
        self.sees_refusals = sees;
        self
    }

    /// A SYN of this peer was refused.
    pub fn refused(&mut self, peer: IpAddr, queue: FullQueue) {
        self.count((peer, Role::Server), |totals| {
            totals.refused[queue as usize] += 1;
        });
    }

    /// The table, most trouble first: failures, then what is still open, then retransmissions.
    pub fn table(&self) -> Vec<Peer> {
        let mut table: Vec<Peer> = self
            .totals
            .iter()
            .map(|(key, totals)| row(key, totals, self.sees_refusals))
            .collect();
        let resent = |p: &Peer| p.syn_retransmits + p.synack_retransmits + p.rto_retransmits;
        table.sort_by(|a, b| {
            (b.failed, b.open, resent(b), b.dwell_max_us, b.attempts)
                .cmp(&(a.failed, a.open, resent(a), a.dwell_max_us, a.attempts))
                .then_with(|| (a.peer_addr, a.role).cmp(&(b.peer_addr, b.role)))
        });
        table
    }
}

/// Whether a packet came from the peer, beyond the SYN that a server's handshake begins with. An ICMP error
/// comes from another host.
fn shows_life(handshake: &Handshake) -> bool {
    let facts = &handshake.facts;
    matches!(
        handshake.outcome,
        Outcome::Established | Outcome::Refused | Outcome::Reset
    ) || handshake.repeated_syns() > 0
        || facts.acked
        || facts.reset_seen
        || facts.syn_after_reset > 0
}

fn row((peer_addr, role): &Key, totals: &PeerTotals, sees_refusals: bool) -> Peer {
    let quantile = |q: f64| {
        // The middle of a bucket may lie above the largest value in it.
        Some(totals.dwells.quantile(q)?.min(totals.dwell_max_us?))
    };
    let resent = |kind: RetransmitKind| totals.retransmits[kind as usize];
    let refused = |queue: FullQueue| {
        let known = sees_refusals && *role == Role::Server;
        known.then_some(totals.refused[queue as usize])
    };
    Peer {
        peer_addr: *peer_addr,
        role: *role,
        attempts: totals.attempts,
        established: totals.established,
        failed: totals.failed,
        open: totals.open,
        dwell_p50_us: quantile(0.5),
        dwell_p99_us: quantile(0.99),
        dwell_max_us: totals.dwell_max_us,
        syn_retransmits: resent(RetransmitKind::Syn),
        synack_retransmits: resent(RetransmitKind::Synack),
        rto_retransmits: resent(RetransmitKind::Rto),
        tlp_retransmits: resent(RetransmitKind::Tlp),
        fast_retransmits: resent(RetransmitKind::Fast),
        recovery_retransmits: resent(RetransmitKind::Recovery),
        syns_refused_accept_queue: refused(FullQueue::Accept),
        syns_refused_syn_queue: refused(FullQueue::Syn),
        verdicts: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests;
