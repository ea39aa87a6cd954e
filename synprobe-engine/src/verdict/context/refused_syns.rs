//! SYNs that this host refused before a half-open existed, by peer, local end and reason.
//!
//! No handshake has them. Without lines of their own a run could end with "0 handshakes" while SYNs die.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::Context;
use crate::model::Role;

/// Peers, local ends and reasons that are counted individually. The rest is summed by local end and reason.
const TOLD_APART: usize = 256;
/// Sums by local end and reason; what exceeds those is one sum for each namespace, and so many of those.
const SUMS: usize = 256;
/// The namespace of what exceeds them all: several.
pub const SEVERAL_NETNS: u32 = 0;
/// A line that was printed is printed again after this time at the earliest, if its count rose.
const AGAIN_NS: u64 = 10_000_000_000;
/// Room is made again after this time at the earliest.
const MAKE_ROOM_NS: u64 = 1_000_000_000;

/// SYNs that this host refused, as a source saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSyn {
    /// Namespace in which they were refused.
    pub netns: u32,
    /// Where they went; `None`: not known.
    pub local: Option<SocketAddr>,
    /// Who sent them; `None`: not known, as where only a counter shows them. Sums are by address.
    pub peer: Option<SocketAddr>,
    /// The kernel's name for the reason, without `SKB_DROP_REASON_`.
    pub reason: Option<Arc<str>>,
    /// The same in words: completes "SYN refused: …".
    pub words: Arc<str>,
    /// Commands that show or mend the cause.
    pub remedy: Option<Arc<str>>,
    /// How many.
    pub count: u64,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RefusalKey {
    netns: u32,
    local: Option<SocketAddr>,
    peer: Option<IpAddr>,
    /// The reason in words: NETFILTER_DROP alone has several.
    why: Option<Arc<str>>,
}

/// One sum, as it is to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSum {
    /// As noted first. Its count is the sum, its time that of the first.
    pub first: RefusedSyn,
    /// When the last of them was refused.
    pub last_ns: u64,
    printed: u64,
    printed_ns: u64,
}

/// See the module.
#[derive(Default)]
pub struct RefusedSyns {
    sums: HashMap<RefusalKey, RefusedSum>,
    told_apart: usize,
    due: HashSet<RefusalKey>,
    /// Was due and held back. A scan fills this, so it is not asked about with every batch.
    held: HashSet<RefusalKey>,
    total: u64,
    /// When room was last made.
    tidied_ns: u64,
}

impl RefusedSyns {
    /// Some more.
    pub fn note(&mut self, mut refused: RefusedSyn) {
        self.total += refused.count;
        let mut key = RefusalKey {
            netns: refused.netns,
            local: refused.local,
            peer: refused.peer.map(|peer| peer.ip()),
            why: Some(refused.words.clone()),
        };
        if self.told_apart >= TOLD_APART && !self.sums.contains_key(&key) {
            self.make_room(refused.at_ns);
        }
        if self.told_apart >= TOLD_APART && !self.sums.contains_key(&key) {
            (key.peer, refused.peer) = (None, None);
            if self.sums.len() >= TOLD_APART + SUMS && !self.sums.contains_key(&key) {
                key = RefusalKey {
                    netns: refused.netns,
                    local: None,
                    peer: None,
                    why: None,
                };
                if self.sums.len() >= TOLD_APART + 2 * SUMS && !self.sums.contains_key(&key) {
                    (key.netns, refused.netns) = (SEVERAL_NETNS, SEVERAL_NETNS);
                }
                (refused.local, refused.reason) = (None, None);
                refused.words = "for several reasons: this host has too many to list".into();
                refused.remedy = None;
            }
        }
        let at_ns = refused.at_ns;
        let Some(sum) = self.sums.get_mut(&key) else {
            self.told_apart += usize::from(key.peer.is_some());
            self.due.insert(key.clone());
            self.sums.insert(
                key,
                RefusedSum {
                    first: refused,
                    last_ns: at_ns,
                    printed: 0,
                    printed_ns: 0,
                },
            );
            return;
        };
        sum.first.count += refused.count;
        sum.last_ns = sum.last_ns.max(at_ns);
        if self.held.remove(&key) || at_ns.saturating_sub(sum.printed_ns) >= AGAIN_NS {
            self.due.insert(key);
        }
    }

    /// Something was learned that may decide on what was held back.
    pub fn ask_again(&mut self) {
        self.due.extend(self.held.drain());
    }

    /// Time has passed: sums that rose since their last line may be due.
    pub fn passed(&mut self, now_ns: u64) {
        self.ask_again();
        for (key, sum) in &self.sums {
            let rose = sum.first.count > sum.printed;
            if rose && now_ns.saturating_sub(sum.printed_ns) >= AGAIN_NS {
                self.due.insert(key.clone());
            }
        }
    }

    /// Forgets what was printed and does not come any more: namespaces end, and new ones are made.
    fn make_room(&mut self, at_ns: u64) {
        if at_ns.saturating_sub(self.tidied_ns) >= MAKE_ROOM_NS {
            self.tidied_ns = at_ns;
            self.forget_before(at_ns.saturating_sub(AGAIN_NS));
        }
    }

    /// Forgets sums without a SYN since then, CLOCK_MONOTONIC nanoseconds, whose lines are printed: a later one
    /// begins anew.
    pub fn forget_before(&mut self, cutoff_ns: u64) {
        self.sums
            .retain(|_, sum| sum.last_ns >= cutoff_ns || sum.first.count > sum.printed);
        let named = self.sums.keys().filter(|key| key.peer.is_some());
        self.told_apart = named.count();
    }

    /// Whether a line may be due.
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The sums whose lines are due, the longest known first. `at_the_end`: every one that rose.
    pub fn take_due(&mut self, at_the_end: bool) -> Vec<RefusedSum> {
        self.take_due_but(at_the_end, |_| false)
    }

    /// The same, without those that are held back: until a SYN comes that adds to them, or [`Self::ask_again`]. None is
    /// at the end.
    pub fn take_due_but(
        &mut self,
        at_the_end: bool,
        mut held_back: impl FnMut(&RefusedSyn) -> bool,
    ) -> Vec<RefusedSum> {
        let mut due = std::mem::take(&mut self.due);
        if at_the_end {
            self.held.clear();
            due = self.sums.keys().cloned().collect();
        }
        let mut taken = Vec::new();
        for key in due {
            let sum = self.sums.get_mut(&key);
            let Some(sum) = sum.filter(|sum| sum.first.count > sum.printed) else {
                continue;
            };
            if !at_the_end && held_back(&sum.first) {
                self.held.insert(key);
                continue;
            }
            sum.printed = sum.first.count;
            sum.printed_ns = sum.last_ns;
            taken.push(sum.clone());
        }
        // In an order that no hash decides.
        taken.sort_by(|a, b| {
            let order = |r: &RefusedSum| {
                let f = &r.first;
                (f.at_ns, f.netns, f.local, f.peer, f.words.clone())
            };
            order(a).cmp(&order(b))
        });
        taken
    }

    /// How many SYNs were refused in all.
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl Context {
    /// Takes in SYNs that this host refused before a half-open existed, from whichever source: the one door for
    /// `syn_refused` lines. What the selection leaves out is ignored.
    pub fn note_refused_syn(&mut self, refused: RefusedSyn) {
        let port = refused.local.map(|local| local.port());
        let selected = match refused.peer {
            Some(peer) => {
                let (addr, peer_port) = (peer.ip(), Some(peer.port()));
                self.selection.matches(port, peer_port, addr, refused.netns)
            }
            // Only a counter shows them: their peers are not known.
            None => port.is_none_or(|port| {
                let selects = self.selection.selects_listener(port, refused.netns);
                selects.unwrap_or(false)
            }),
        };
        if selected && self.selection.wants(Role::Server) {
            self.refused_syns.note(refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: u64 = 1_000_000_000;

    fn refused(peer: u32, at_ns: u64) -> RefusedSyn {
        RefusedSyn {
            netns: 7,
            local: Some("10.0.0.1:80".parse().unwrap()),
            peer: Some(SocketAddr::new(IpAddr::V4(peer.into()), 4000)),
            reason: Some("NETFILTER_DROP".into()),
            words: "the packet filter".into(),
            remedy: None,
            count: 1,
            at_ns,
        }
    }

    fn counts(due: &[RefusedSum]) -> Vec<u64> {
        due.iter().map(|r| r.first.count).collect()
    }

    #[test]
    fn the_first_is_due_at_once_and_later_ones_every_ten_seconds() {
        let mut all = RefusedSyns::default();
        all.note(refused(1, 100 * SEC));
        assert!(all.is_due());
        assert_eq!(counts(&all.take_due(false)), [1]);
        all.note(refused(1, 101 * SEC));
        all.note(refused(1, 109 * SEC));
        assert!(!all.is_due());
        // It is due also if no further SYN comes.
        all.passed(110 * SEC);
        let due = all.take_due(false);
        assert_eq!(counts(&due), [3]);
        assert_eq!((due[0].first.at_ns, due[0].last_ns), (100 * SEC, 109 * SEC));
        all.passed(200 * SEC);
        assert!(!all.is_due(), "it did not rise");
        assert_eq!(counts(&all.take_due(true)), [0; 0]);
        all.note(refused(1, 201 * SEC));
        assert!(all.is_due());
    }

    #[test]
    fn the_end_prints_what_rose_since() {
        let mut all = RefusedSyns::default();
        all.note(refused(1, SEC));
        all.take_due(false);
        all.note(refused(1, 2 * SEC));
        all.note(refused(2, 2 * SEC));
        assert_eq!(counts(&all.take_due(true)), [2, 1]);
        assert_eq!(all.total(), 3);
    }

    #[test]
    fn reasons_are_told_apart_and_peers_are_bounded() {
        let mut all = RefusedSyns::default();
        all.note(refused(0, SEC));
        all.note(RefusedSyn {
            reason: Some("TCP_CSUM".into()),
            words: "damaged".into(),
            ..refused(0, SEC)
        });
        assert_eq!(all.take_due(false).len(), 2);
        for peer in 0..100_000 {
            all.note(refused(peer, 2 * SEC));
        }
        let due = all.take_due(true);
        assert_eq!(due.len(), TOLD_APART);
        let rest = due.iter().find(|r| r.first.peer.is_none()).unwrap();
        assert_eq!(rest.first.count, 100_001 - TOLD_APART as u64);
        // Local ends are bounded too.
        for port in 1..2000 {
            all.note(RefusedSyn {
                local: Some(SocketAddr::new("10.0.0.1".parse().unwrap(), port)),
                ..refused(200_000, 3 * SEC)
            });
        }
        let due = all.take_due(true);
        assert!(due.len() <= SUMS + 2, "{}", due.len());
        assert!(due.iter().any(|r| r.first.local.is_none()));
        assert_eq!(all.total(), 102_001);
        // So are namespaces.
        for netns in 1000..101_000 {
            all.note(RefusedSyn {
                netns,
                ..refused(1, 3 * SEC)
            });
        }
        assert!(all.sums.len() <= TOLD_APART + 2 * SUMS + 1);
        let due = all.take_due(true);
        let several = due.iter().find(|r| r.first.netns == SEVERAL_NETNS);
        assert!(several.is_some_and(|r| r.first.count > 90_000));
    }

    #[test]
    fn what_is_held_back_is_asked_about_when_it_rises_and_each_round() {
        let mut all = RefusedSyns::default();
        for peer in 0..100 {
            all.note(refused(peer, SEC));
        }
        fn asked(all: &mut RefusedSyns) -> usize {
            let mut asked = 0;
            let due = all.take_due_but(false, |_| {
                asked += 1;
                true
            });
            assert_eq!(due, []);
            asked
        }
        assert_eq!(asked(&mut all), 100);
        assert!(!all.is_due(), "a batch ends without them");
        all.note(refused(100, SEC));
        all.note(refused(7, SEC));
        assert_eq!(asked(&mut all), 2);
        all.passed(2 * SEC);
        assert_eq!(asked(&mut all), 101);
        assert_eq!(all.take_due(true).len(), 101);
    }

    #[test]
    fn a_tenant_with_many_namespaces_that_end_takes_no_place_of_others() {
        let mut all = RefusedSyns::default();
        // Fifty a second, each with one SYN, for five minutes.
        let mut told = 0;
        for n in 0..15_000 {
            all.note(RefusedSyn {
                netns: 1000 + n,
                ..refused(1, SEC + u64::from(n) * SEC / 50)
            });
            told += counts(&all.take_due(false)).iter().sum::<u64>();
        }
        assert_eq!(told, 15_000, "each was printed");
        assert!(all.sums.len() <= TOLD_APART + 2 * SUMS + 1);
        // Half a minute later somebody else's peer is told apart.
        all.note(refused(77, 330 * SEC));
        assert_eq!(all.take_due(false)[0].first.peer, refused(77, 0).peer);
    }
}
