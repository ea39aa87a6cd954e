//! The owners of listeners.

use std::{
    collections::{HashMap, HashSet, VecDeque},
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
    /// Sockets that were opened (true) or closed since, CLOCK_MONOTONIC nanoseconds.
    changes: VecDeque<(u64, bool)>,
    /// When some of them were closed, CLOCK_MONOTONIC nanoseconds; the newest last.
    closed_ns: VecDeque<u64>,
}

impl Sockets {
    fn listening(&self) -> bool {
        let opened = self.changes.iter().filter(|(_, opened)| *opened).count();
        self.sampled + opened > self.changes.len() - opened
    }

    fn change(&mut self, at_ns: u64, opened: bool) {
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((at_ns, opened));
        if !opened {
            if self.closed_ns.len() == CLOSES {
                self.closed_ns.pop_front();
            }
            self.closed_ns.push_back(at_ns);
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

/// The listeners, from a dump at the start, from each sample and from their own transitions since.
#[derive(Default)]
pub struct Owners {
    listeners: HashMap<(u32, u16), Vec<Sockets>>,
}

impl Owners {
    /// Listeners that were found; what is known of the same address is replaced.
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
                    let sockets = Sockets {
                        owner,
                        sampled: 1,
                        changes: VecDeque::new(),
                        closed_ns: VecDeque::new(),
                    };
                    shared.insert(key, sockets);
                }
            }
        }
        for ((netns, port, addr), sockets) in shared {
            let of_port = self.listeners.entry((netns, port)).or_default();
            of_port.retain(|l| l.owner.local_addr != addr);
            of_port.push(sockets);
        }
    }

    /// How many sockets listen at each address of some namespaces; before and after that was read,
    /// CLOCK_MONOTONIC nanoseconds.
    pub fn sampled(
        &mut self,
        (before_ns, at_ns): (u64, u64),
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
                    // What was opened meanwhile may be missing, what was closed may still be there. A listener
                    // too many is the lesser error: it is corrected by the next sample.
                    l.changes.retain(|(changed_ns, opened)| {
                        *changed_ns > if *opened { before_ns } else { at_ns }
                    });
                }
            }
            all.retain(|l| {
                let recent = |closed: &u64| closed + CLOSED_NS > at_ns;
                l.listening() || l.closed_ns.back().is_some_and(recent)
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
            None => of_port.push(Sockets {
                owner,
                sampled: 0,
                changes: [(at_ns, true)].into(),
                closed_ns: VecDeque::new(),
            }),
        }
    }

    /// LISTEN→CLOSE: its half-opens will vanish one by one.
    pub(super) fn closed(&mut self, r: &StateRecord) {
        let (addr, at_ns) = (r.flow.local_addr, r.header.ts_ns);
        for sockets in self.at(r) {
            if sockets.owner.local_addr == addr {
                sockets.change(at_ns, false);
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

    /// When a listener that may be a half-open's was closed while it was open, CLOCK_MONOTONIC nanoseconds.
    pub(super) fn closed_meanwhile(&self, open: &OpenHandshake, until_ns: u64) -> Option<u64> {
        let closed_ns = &self.serving_half_open(open)?.closed_ns;
        let began_ns = open.start.map_or(0, |start| start.at_ns);
        // Another may have been closed since.
        let mut meanwhile = closed_ns.iter().copied();
        meanwhile.find(|closed| (began_ns..=until_ns).contains(closed))
    }

    /// The listener that serves a connection: the one bound to its very address, else a wildcard.
    pub fn of(&self, tuple: &Tuple) -> Option<&ListenerOwner> {
        let sockets = self.serving(tuple.netns, tuple.local_addr, tuple.local_port)?;
        sockets.listening().then_some(&sockets.owner)
    }
}
