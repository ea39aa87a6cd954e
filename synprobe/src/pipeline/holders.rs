//! Which socket, and which process, holds a connection's addresses and ports.
//!
//! The answer is needed before the line of the event that asks for it, and the socket may be gone a moment
//! later. So it is looked up at once: one exact request to sock_diag, and a bounded search for the process.
//! Look-ups are rare, and limited.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use synprobe_ebpf::event::{Flow, state};

use crate::{
    diag::{
        sock_diag::SockDiag,
        socket_owner::{Bounds, OwnerCache},
    },
    model::{Process, Tuple, TupleHolder},
    sys::{clock::CpuTimer, netns::NetNs},
};

/// The same connection is not looked up again within this time.
const AGAIN: Duration = Duration::from_secs(5);
/// Look-ups in any [`AGAIN`], at most.
const MOST: usize = 64;
/// CPU time that a search for a process may take.
const SEARCH: Duration = Duration::from_millis(50);
/// How long it may keep the ring waiting, on a host that gives it little of a CPU.
const LONGEST: Duration = Duration::from_millis(200);
/// The pause after a search is this many times its CPU time.
const PAUSE: u32 = 20;

/// See the module.
#[derive(Default)]
pub(super) struct Holders {
    asked: HashMap<Tuple, Instant>,
    owners: OwnerCache,
    /// Not before this.
    search_due: Option<Instant>,
}

impl Holders {
    /// The socket that holds a tuple: `Some(None)`: none does; `None`: not looked up.
    pub fn look_up(&mut self, netns: &NetNs, flow: &Flow, pid: u32) -> Option<Option<TupleHolder>> {
        let now = Instant::now();
        self.asked.retain(|_, at| now.duration_since(*at) < AGAIN);
        let tuple = Tuple::from(flow);
        if self.asked.len() >= MOST || self.asked.insert(tuple, now).is_some() {
            return None;
        }
        let mut sock_diag = SockDiag::open(netns).ok()?;
        let row = sock_diag.get(&tuple.flow(), 0).ok()?;
        // Where there is none, the kernel returns the listener.
        let Some(row) = row.filter(|row| row.state != state::LISTEN) else {
            return Some(None);
        };
        let inode = (row.inode != 0).then_some(row.inode);
        Some(Some(TupleHolder {
            state: row.state,
            expires_ms: (row.timer != 0).then_some(row.expires_ms),
            inode,
            process: inode.and_then(|inode| self.process(inode, pid)),
        }))
    }

    /// The process that holds a socket: `pid` is asked first.
    fn process(&mut self, inode: u32, pid: u32) -> Option<Process> {
        if let Some(owner) = OwnerCache::of_process(pid, inode) {
            return Some(Process {
                pid: owner.pid,
                comm: owner.comm.into(),
            });
        }
        if self.search_due.is_some_and(|due| Instant::now() < due) {
            return None;
        }
        // CPU time: on a busy host a search must not seem expensive.
        let timer = CpuTimer::begin();
        let bounds = Bounds {
            max_cpu: SEARCH,
            ..Bounds::default()
        };
        let until = Instant::now() + LONGEST;
        let stop = || Instant::now() > until;
        let mut found = (self.owners).find_near(&[inode], &HashSet::new(), bounds, &stop);
        let owner = found.by_inode.remove(&inode);
        self.search_due = Some(Instant::now() + timer.took() * PAUSE);
        owner.map(|owner| Process {
            pid: owner.pid,
            comm: owner.comm.into(),
        })
    }
}
