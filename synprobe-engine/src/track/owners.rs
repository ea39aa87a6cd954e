//! The owners of listeners.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::Arc,
};

use synprobe_ebpf::event::StateRecord;

use super::{client::comm, handshake::OpenHandshake};
use crate::{
    model::{Listener, ListenerOwner, Process, Tuple},
    util::addresses::{is_wildcard, mapped},
};

/// Closed listeners are remembered for this long, nanoseconds: their half-opens die at their next time-out,
/// the longest of which takes 32 s by default.
const CLOSED_NS: u64 = 64_000_000_000;
/// Changes of one address that are remembered.
const CHANGES: usize = 64;
/// Closed sockets of one address that are remembered.
const CLOSES: usize = 16;

/// The listening sockets that share an address: one, or a SO_REUSEPORT group.
struct Sockets {
    /// Whose they are; no process where they are of several.
    owner: ListenerOwner,
    /// How many the last sample showed.
    sampled: usize,
    /// Before and after that sample was read, CLOCK_MONOTONIC nanoseconds.
    sampled_ns: (u64, u64),
    /// Sockets that were opened (true) or closed since, CLOCK_MONOTONIC nanoseconds.
    changes: VecDeque<(u64, bool)>,
    /// Some of their closes; the newest last.
    closes: VecDeque<Close>,
}

/// A listening socket was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Close {
    /// CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// It was the only socket of its address, as far as is known.
    pub was_last: bool,
}

impl Sockets {
    fn listening(&self) -> bool {
        let opened = self.changes.iter().filter(|(_, opened)| *opened).count();
        self.sampled + opened > self.changes.len() - opened
    }

    /// None listens, as far as is known.
    fn new(owner: ListenerOwner) -> Self {
        Self {
            owner,
            sampled: 0,
            sampled_ns: (0, 0),
            changes: VecDeque::new(),
            closes: VecDeque::new(),
        }
    }

    fn change(&mut self, at_ns: u64, opened: bool) {
        // A sample may be taken in before the events of its time: it has counted this change.
        let is_new = is_after((at_ns, opened), self.sampled_ns);
        if is_new {
            if self.changes.len() == CHANGES {
                self.changes.pop_front();
            }
            self.changes.push_back((at_ns, opened));
        }
        if !opened {
            if self.closes.len() == CLOSES {
                self.closes.pop_front();
            }
            // A later sample does not tell what listened at the time of the close.
            let was_last = is_new && !self.listening();
            self.closes.push_back(Close { at_ns, was_last });
        }
    }

    /// A further socket of the same address.
    fn share(&mut self, owner: &ListenerOwner) {
        if self.owner.process != owner.process {
            self.owner.process = None;
        }
        if self.owner.cgroup != owner.cgroup {
            self.owner.cgroup = None;
        }
    }
}

/// Whether a change came after a sample. What was opened while it was read may be missing from it, and what was
/// closed may still be there. A listener too many is the lesser error: the next sample corrects it.
fn is_after((at_ns, opened): (u64, bool), (before_ns, read_ns): (u64, u64)) -> bool {
    at_ns > if opened { before_ns } else { read_ns }
}

/// The listeners, from a dump at the start, from each sample and from their own transitions since.
#[derive(Default)]
pub struct Owners {
    listeners: HashMap<(u32, u16), Vec<Sockets>>,
}

impl Owners {
    /// Listeners that were found; what is known of the same address is replaced, but for what was closed.
    pub fn add(&mut self, listeners: Vec<ListenerOwner>) {
        let mut shared: HashMap<(u32, u16, [u8; 16]), Sockets> = HashMap::new();
        for owner in listeners {
            let key = (owner.netns, owner.local_port, owner.local_addr);
            match shared.get_mut(&key) {
                Some(sockets) => {
                    sockets.share(&owner);
                    sockets.sampled += 1;
                }
                None => {
                    let mut sockets = Sockets::new(owner);
                    sockets.sampled = 1;
                    shared.insert(key, sockets);
                }
            }
        }
        for ((netns, port, addr), mut sockets) in shared {
            let of_port = self.listeners.entry((netns, port)).or_default();
            match of_port.iter_mut().find(|l| l.owner.local_addr == addr) {
                Some(known) => {
                    sockets.closes = mem::take(&mut known.closes);
                    *known = sockets;
                }
                None => of_port.push(sockets),
            }
        }
    }

    /// How many sockets listen at each address of some namespaces; before and after that was read,
    /// CLOCK_MONOTONIC nanoseconds.
    pub fn sampled(
        &mut self,
        when_ns: (u64, u64),
        namespaces: &HashSet<u32>,
        listeners: &[Listener],
    ) {
        let mut counts: HashMap<(u32, u16, [u8; 16]), usize> = HashMap::new();
        for l in listeners {
            let key = (l.netns, l.local_port, mapped(l.local_addr));
            *counts.entry(key).or_default() += 1;
        }
        self.listeners.retain(|(netns, port), all| {
            if namespaces.contains(netns) {
                for l in all.iter_mut() {
                    let key = (*netns, *port, l.owner.local_addr);
                    l.sampled = counts.get(&key).copied().unwrap_or(0);
                    l.sampled_ns = when_ns;
                    l.changes.retain(|change| is_after(*change, when_ns));
                }
            }
            all.retain(|l| {
                let recent = |close: &Close| close.at_ns + CLOSED_NS > when_ns.1;
                l.listening() || l.closes.back().is_some_and(recent)
            });
            !all.is_empty()
        });
    }

    fn at(&mut self, r: &StateRecord) -> &mut Vec<Sockets> {
        let key = (r.flow.netns, r.flow.local_port);
        self.listeners.entry(key).or_default()
    }

    /// →LISTEN runs in the context of the process that calls listen().
    pub(super) fn opened(&mut self, r: &StateRecord, cgroup: Option<Arc<str>>) {
        let process = (r.tgid != 0).then(|| Process {
            pid: r.tgid,
            comm: comm(&r.comm),
        });
        let owner = ListenerOwner {
            netns: r.flow.netns,
            local_addr: r.flow.local_addr,
            local_port: r.flow.local_port,
            process,
            cgroup,
        };
        let at_ns = r.header.ts_ns;
        let of_port = self.at(r);
        let same = |l: &&mut Sockets| l.owner.local_addr == owner.local_addr;
        match of_port.iter_mut().find(same) {
            Some(sockets) => {
                match sockets.listening() {
                    true => sockets.share(&owner),
                    false => sockets.owner = owner,
                }
                sockets.change(at_ns, true);
            }
            None => {
                let mut sockets = Sockets::new(owner);
                sockets.change(at_ns, true);
                of_port.push(sockets);
            }
        }
    }

    /// LISTEN→CLOSE: its half-opens will vanish one by one.
    pub(super) fn closed(&mut self, r: &StateRecord) {
        let (addr, at_ns) = (r.flow.local_addr, r.header.ts_ns);
        let of_port = self.at(r);
        match of_port.iter_mut().find(|l| l.owner.local_addr == addr) {
            Some(sockets) => sockets.change(at_ns, false),
            None => {
                // A later sample came first and no longer had it.
                let mut sockets = Sockets::new(ListenerOwner {
                    netns: r.flow.netns,
                    local_addr: addr,
                    local_port: r.flow.local_port,
                    process: None,
                    cgroup: None,
                });
                sockets.change(at_ns, false);
                of_port.push(sockets);
            }
        }
    }

    /// The sockets that serve an address: those bound to it, else to a wildcard.
    fn serving(&self, netns: u32, addr: [u8; 16], port: u16) -> Option<&Sockets> {
        let of_port = self.listeners.get(&(netns, port))?;
        let by = |wanted: fn(&Sockets) -> bool| {
            let exact = of_port
                .iter()
                .find(|l| l.owner.local_addr == addr && wanted(l));
            exact.or_else(|| {
                let mut all = of_port.iter();
                all.find(|l| is_wildcard(l.owner.local_addr) && wanted(l))
            })
        };
        by(Sockets::listening).or_else(|| by(|_| true))
    }

    fn serving_half_open(&self, open: &OpenHandshake) -> Option<&Sockets> {
        let c = &open.connection;
        self.serving(c.netns, mapped(c.local_addr), c.local_port.unwrap_or(0))
    }

    /// Whether a listener for a half-open exists.
    pub(super) fn listens(&self, open: &OpenHandshake) -> bool {
        self.serving_half_open(open).is_some_and(Sockets::listening)
    }

    /// The close of a listener that may be a half-open's, while it was open.
    pub(super) fn closed_meanwhile(&self, open: &OpenHandshake, until_ns: u64) -> Option<Close> {
        let closes = &self.serving_half_open(open)?.closes;
        let began_ns = open.start.map_or(0, |start| start.at_ns);
        // Another may have been closed since.
        let mut meanwhile = closes.iter().copied();
        meanwhile.find(|close| (began_ns..=until_ns).contains(&close.at_ns))
    }

    /// Whether a listener serves a connection, or did so until it was closed a short time ago.
    pub(super) fn listened(&self, tuple: &Tuple) -> bool {
        self.serving(tuple.netns, tuple.local_addr, tuple.local_port)
            .is_some()
    }

    /// The listener that serves a connection: the one bound to its very address, else a wildcard.
    pub fn of(&self, tuple: &Tuple) -> Option<&ListenerOwner> {
        let sockets = self.serving(tuple.netns, tuple.local_addr, tuple.local_port)?;
        sockets.listening().then_some(&sockets.owner)
    }
}
