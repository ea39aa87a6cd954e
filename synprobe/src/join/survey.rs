//! The first pass over a side: what its runs cover, and a sample of its handshakes for the clocks.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    coverage::{Coverage, Gap},
    crossed::CrossedOpens,
    fact::{Ends, JoinFact, RefusedAt, SideHandshake},
};
use crate::model::Role;

/// Handshakes of the sample, for each role and kind of key.
const SAMPLE: usize = 16_384;
/// Addresses that are remembered.
const ADDRESSES: usize = 65_536;
/// Gaps that are kept individually; then the last one grows.
const GAPS: usize = 4096;
/// Sums of refused SYNs: a run names 256 peers, and sums up those beyond.
const REFUSED: usize = 1024;
/// How long before it was noticed a loss may have happened, nanoseconds: one look at the counters and more.
const BEFORE_NS: i64 = 10_000_000_000;

/// One handshake of the sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockSample {
    /// As early as its first SYN, or as late as its first SYN-ACK.
    pub began_ns: Option<i64>,
    /// Bound of the error of that.
    pub error_ns: i64,
    /// When it ended.
    pub at_ns: i64,
    /// Whether with a connection.
    pub established: bool,
}

/// The handshakes whose keys have the lowest hashes: both sides choose the same ones.
#[derive(Debug)]
struct BottomSample<K> {
    kept: Vec<(u64, K, ClockSample)>,
    below: u64,
}

impl<K: Ord + Copy> BottomSample<K> {
    fn add(&mut self, hash: u64, key: K, sample: ClockSample) {
        if hash >= self.below {
            return;
        }
        self.kept.push((hash, key, sample));
        if self.kept.len() >= 2 * SAMPLE {
            self.kept
                .select_nth_unstable_by_key(SAMPLE, |(hash, ..)| *hash);
            self.below = self.kept[SAMPLE].0;
            self.kept.truncate(SAMPLE);
        }
    }

    /// By key; `None` for a key that several have.
    fn unique(&self) -> BTreeMap<K, Option<ClockSample>> {
        let mut all = BTreeMap::new();
        for (_, key, sample) in &self.kept {
            all.entry(*key)
                .and_modify(|one| *one = None)
                .or_insert(Some(*sample));
        }
        all
    }
}

impl<K> Default for BottomSample<K> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            below: u64::MAX,
        }
    }
}

/// The sample of one role.
#[derive(Debug, Default)]
pub struct RoleSample {
    by_seq: BottomSample<u32>,
    by_ends: BottomSample<Ends>,
    /// Handshakes of this role.
    pub handshakes: u64,
}

impl RoleSample {
    fn add(&mut self, h: &SideHandshake) {
        self.handshakes += 1;
        let sample = ClockSample {
            began_ns: h.began_ns(),
            error_ns: h.error_ns(),
            at_ns: h.at_ns,
            established: h.is_established(),
        };
        if let Some(seq) = h.syn_seq {
            self.by_seq.add(mixed(u64::from(seq)), seq, sample);
        }
        if let Some(ends) = h.ends() {
            self.by_ends.add(mixed_ends(&ends), ends, sample);
        }
    }

    /// The clocks are known: the sample is not needed any more.
    pub fn clear_sample(&mut self) {
        self.by_seq = BottomSample::default();
        self.by_ends = BottomSample::default();
    }

    /// Handshakes that are in both, each once.
    pub fn common(&self, other: &Self) -> Vec<(ClockSample, ClockSample)> {
        let mut both = in_both(&self.by_seq, &other.by_seq);
        if both.is_empty() {
            both = in_both(&self.by_ends, &other.by_ends);
        }
        both
    }
}

fn in_both<K: Ord + Copy>(
    a: &BottomSample<K>,
    b: &BottomSample<K>,
) -> Vec<(ClockSample, ClockSample)> {
    let b = b.unique();
    a.unique()
        .into_iter()
        .filter_map(|(key, one)| Some((one?, (*b.get(&key)?)?)))
        .collect()
}

/// Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators* (2014): the finalizer.
fn mixed(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn mixed_ends((client, server): &Ends) -> u64 {
    let end = |end: &SocketAddr| {
        let bits = match end.ip() {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                (bits >> 64) as u64 ^ mixed(bits as u64)
            }
        };
        mixed(bits ^ u64::from(end.port()) << 48)
    };
    mixed(end(client).wrapping_add(end(server).rotate_left(17)))
}

/// What one pass over a side found.
#[derive(Debug, Default)]
pub struct SideSurvey {
    /// What it covers.
    pub coverage: Coverage,
    /// Its active opens.
    pub client: RoleSample,
    /// Its passive opens.
    pub server: RoleSample,
    /// Its active opens that met the SYN of whom they called.
    pub crossed: CrossedOpens,
    /// SYNs that it refused: the last sum of each kind.
    pub refused: Vec<RefusedAt>,
    /// How far a handshake's line was behind the newest line before it, nanoseconds.
    pub late_ns: i64,
    /// Facts in all.
    pub facts: u64,
    newest_ns: i64,
}

impl SideSurvey {
    /// Looks at every fact of a side.
    pub fn of(facts: impl Iterator<Item = JoinFact>) -> Self {
        let mut survey = Self {
            newest_ns: i64::MIN,
            ..Self::default()
        };
        for fact in facts {
            survey.fact(fact);
        }
        survey
    }

    fn fact(&mut self, fact: JoinFact) {
        self.facts += 1;
        let coverage = &mut self.coverage;
        if let Some(at_ns) = fact.at_ns() {
            coverage.seen_at(at_ns);
            if matches!(fact, JoinFact::Handshake(_)) {
                self.late_ns = self.late_ns.max(self.newest_ns.saturating_sub(at_ns));
            }
            self.newest_ns = self.newest_ns.max(at_ns);
        }
        match fact {
            JoinFact::Start(start) => {
                self.newest_ns = start.at_ns;
                coverage.begins(*start);
            }
            JoinFact::Missing { at_ns, events } => {
                let gap = Gap {
                    from_ns: at_ns.saturating_sub(BEFORE_NS),
                    to_ns: at_ns,
                    events,
                };
                let are_many = coverage.gaps.len() >= GAPS;
                match coverage.gaps.last_mut() {
                    Some(last) if last.to_ns >= gap.from_ns || are_many => {
                        last.to_ns = last.to_ns.max(gap.to_ns);
                        last.events += events;
                    }
                    _ => coverage.gaps.push(gap),
                }
            }
            JoinFact::Handshake(h) => {
                note(&mut coverage.addresses, h.local_addr);
                match h.role {
                    Role::Client => {
                        self.crossed.add(&h);
                        self.client.add(&h);
                    }
                    Role::Server => self.server.add(&h),
                }
            }
            JoinFact::Refused(refused) => {
                if let Some(local) = refused.local {
                    note(&mut coverage.addresses, local);
                }
                self.refuses(*refused);
            }
            JoinFact::Address(address) => note(&mut coverage.addresses, address),
            JoinFact::End {
                listen_drops,
                syn_cookies,
                ..
            } => {
                coverage.counted(listen_drops, syn_cookies);
            }
            JoinFact::Seen { .. } | JoinFact::Repeat { .. } => (),
        }
    }
}

impl SideSurvey {
    fn refuses(&mut self, refused: RefusedAt) {
        let same = |known: &&mut RefusedAt| {
            known.first_ns / 1_000_000 == refused.first_ns / 1_000_000
                && (known.peer, known.local, known.local_port)
                    == (refused.peer, refused.local, refused.local_port)
                && known.what == refused.what
        };
        let has_room = self.refused.len() < REFUSED;
        match self.refused.iter_mut().find(same) {
            Some(known) => {
                known.count = known.count.max(refused.count);
                known.last_ns = known.last_ns.max(refused.last_ns);
            }
            None if has_room => self.refused.push(refused),
            None => (),
        }
    }
}

fn note(addresses: &mut HashSet<IpAddr>, address: IpAddr) {
    if addresses.len() < ADDRESSES && !address.is_unspecified() {
        addresses.insert(address);
    }
}
