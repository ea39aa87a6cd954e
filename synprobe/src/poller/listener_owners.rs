//! The owners of listeners, kept from round to round: a search walks over `/proc`. And, once, those of active
//! opens that are older than the run: no event names their callers.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    Hurry,
    seen::{Seen, tuple},
};
use crate::{
    diag::{
        listen_queues::ListenerProcess,
        socket_owner::{Bounds, OwnerCache},
    },
    model::{ClientOwner, Tuple},
    sys::clock::CpuTimer,
};

/// The search may take this share of one core: its pause is this many times its CPU time.
const PAUSE: u32 = 100;
/// An owner is searched again after this time: exec() keeps the socket and changes the name, and a pre-forked
/// server may have left it to its workers.
const AGAIN: Duration = Duration::from_secs(10);
/// One that no process seems to have is searched after twice the time of the search before, up to this. The kernel has
/// sockets of its own (NFS), and what is in another pid namespace is never found: each search reads all of `/proc`.
const AGAIN_UNOWNED: Duration = Duration::from_secs(600);
/// The first search of a run: a page that is printed in seconds needs its names.
const FIRST: Bounds = Bounds {
    max_fds: 4_000_000,
    max_cpu: Duration::from_secs(2),
};
/// A search that begins when no time is left takes this long, by the clock: a problem's listener is to have its name.
const IN_A_HURRY: Duration = Duration::from_millis(100);
/// Active opens whose callers are searched, at most.
const MOST_CALLERS: usize = 65_536;

struct KnownOwner {
    who: ListenerProcess,
    /// When it is searched again.
    due: Instant,
    /// How long that was put off.
    pause: Duration,
}

/// How long the next search is put off after one that found `who`.
fn pause(who: &ListenerProcess, before: Option<&KnownOwner>) -> Duration {
    match before {
        Some(before) if *who == ListenerProcess::default() && before.who == *who => {
            (before.pause * 2).min(AGAIN_UNOWNED)
        }
        _ => AGAIN,
    }
}

#[derive(Default)]
pub(super) struct OwnerSearch {
    cache: OwnerCache,
    known: HashMap<u32, KnownOwner>,
    /// Not before this.
    due: Option<Instant>,
    /// Listeners by namespace, as last seen.
    listeners: HashMap<u32, Vec<u32>>,
    /// Listeners whose owner was found since the last round.
    fresh: HashSet<u32>,
    /// Active opens whose callers are still to be found, and the inodes of their sockets.
    callers: Vec<(Tuple, u32)>,
    /// By namespace, the sockets that were asked for.
    asked: HashMap<u32, HashSet<u32>>,
    /// The quiet mode: no event names the caller of a connect().
    pub(super) wants_all_callers: bool,
    /// Those that were found since the last round.
    found_callers: Vec<ClientOwner>,
    /// A search that was cut short was logged.
    logged: bool,
}

impl OwnerSearch {
    /// The listeners of a namespace, as they are now.
    pub(super) fn saw(&mut self, netns: u32, inodes: Vec<u32>) {
        self.listeners.insert(netns, inodes);
    }

    /// Active opens that are older than the run; in the quiet mode also those whose SYN was retransmitted. Each
    /// is searched once.
    pub(super) fn want_callers(&mut self, seen: &Seen, netns: u32) {
        let now: HashSet<u32> = seen.syn_sent.iter().map(|row| row.inode).collect();
        let asked = self.asked.entry(netns).or_default();
        asked.retain(|inode| now.contains(inode));
        let room = MOST_CALLERS.saturating_sub(self.callers.len());
        let all = self.wants_all_callers;
        let wanted = seen
            .syn_sent
            .iter()
            .filter(|row| row.inode != 0 && (seen.is_first || all && row.retrans > 0))
            .filter(|row| asked.insert(row.inode))
            .take(room);
        self.callers
            .extend(wanted.map(|row| (tuple(row, netns), row.inode)));
        if asked.is_empty() {
            self.asked.remove(&netns);
        }
    }

    /// Searches the owners of sockets that are not known, or were searched long ago, all in one pass over
    /// `/proc`. It ends where no time is left.
    pub(super) fn learn(&mut self, hurry: &Hurry) {
        let now = Instant::now();
        let is_late = hurry.is_set();
        let stop = || match is_late {
            true => now.elapsed() > IN_A_HURRY,
            false => hurry.is_set(),
        };
        self.fresh.clear();
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        let is_known = |inode: &u32| self.known.get(inode).is_some_and(|known| now < known.due);
        let (mut wanted, mut near) = (Vec::new(), HashSet::new());
        for (netns, inodes) in &self.listeners {
            let before = wanted.len();
            wanted.extend(inodes.iter().copied().filter(|i| !is_known(i)));
            if wanted.len() > before {
                near.insert(*netns);
            }
        }
        let listeners = wanted.len();
        wanted.extend(self.callers.iter().map(|(_, inode)| *inode));
        near.extend(self.callers.iter().map(|(tuple, _)| tuple.netns));
        if wanted.is_empty() {
            return;
        }
        let bounds = match self.due {
            None => FIRST,
            Some(_) => Bounds::default(),
        };
        let timer = CpuTimer::begin();
        let mut found = self.cache.find_near(&wanted, &near, bounds, &stop);
        for inode in wanted.into_iter().take(listeners) {
            let owner = found.by_inode.remove(&inode);
            // A search that was cut short proves nothing about the rest.
            if owner.is_none() && !found.complete {
                continue;
            }
            let known = self.known.get(&inode);
            let who = owner.map(ListenerProcess::of).unwrap_or_default();
            let pause = pause(&who, known);
            if known.is_none_or(|known| known.who != who) {
                self.fresh.insert(inode);
            }
            let due = now + pause;
            self.known.insert(inode, KnownOwner { who, due, pause });
        }
        let callers = std::mem::take(&mut self.callers);
        for (tuple, inode) in callers {
            match found.by_inode.remove(&inode) {
                Some(owner) => {
                    let who = ListenerProcess::of(owner);
                    let caller = who.process.map(|process| ClientOwner {
                        tuple,
                        process,
                        cgroup: who.cgroup,
                    });
                    self.found_callers.extend(caller);
                }
                None if found.complete => (),
                None => self.callers.push((tuple, inode)),
            }
        }
        let took = timer.took();
        let all = self.listeners.values().flatten();
        let unnamed =
            all.filter(|inode| !self.known.contains_key(inode)).count() + self.callers.len();
        // Where the run ends, no search goes on.
        let goes_on = !found.complete && !hurry.is_set();
        if goes_on && unnamed > 0 && !std::mem::replace(&mut self.logged, true) {
            log::warn!(
                "the owners of {unnamed} sockets are not known yet: the search was cut short after {} descriptors \
                 and {took:?} of CPU time, and goes on in a while",
                found.read
            );
        }
        self.due = Some(Instant::now() + took * PAUSE);
    }

    /// The callers that were found since the last call.
    pub(super) fn take_callers(&mut self) -> Vec<ClientOwner> {
        std::mem::take(&mut self.found_callers)
    }

    pub(super) fn who(&self, inode: u32) -> Option<ListenerProcess> {
        self.known.get(&inode).map(|known| known.who.clone())
    }

    /// Whether the owner of a listener was found, or changed, since the last round.
    pub(super) fn is_fresh(&self, inode: u32) -> bool {
        self.fresh.contains(&inode)
    }

    /// Forgets what is in no other namespace than these, and listeners that closed.
    pub(super) fn retain(&mut self, netns: impl Fn(u32) -> bool) {
        self.listeners.retain(|inode, _| netns(*inode));
        self.asked.retain(|inode, _| netns(*inode));
        let inodes: HashSet<u32> = self.listeners.values().flatten().copied().collect();
        let cache = &mut self.cache;
        self.known.retain(|inode, _| {
            let stays = inodes.contains(inode);
            if !stays {
                cache.forget(*inode);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Process;

    #[test]
    fn a_socket_that_nobody_has_is_searched_more_and_more_seldom() {
        let found = ListenerProcess {
            process: Some(Process {
                pid: 7,
                comm: "x".into(),
            }),
            cgroup: None,
        };
        let nobody = ListenerProcess::default();
        let mut known = None;
        let mut next = |who: &ListenerProcess| {
            let pause = pause(who, known.as_ref());
            known = Some(KnownOwner {
                who: who.clone(),
                due: Instant::now(),
                pause,
            });
            pause.as_secs()
        };
        let of_nobody: Vec<u64> = (0..8).map(|_| next(&nobody)).collect();
        assert_eq!(of_nobody, [10, 20, 40, 80, 160, 320, 600, 600]);
        // It was handed over: from then on it is as every other one.
        assert_eq!([next(&found), next(&found), next(&nobody)], [10, 10, 10]);
        assert_eq!(next(&nobody), 20);
    }
}
