//! The owners of listeners.

use crate::model::{ListenerOwner, Tuple};
use std::{collections::HashMap, sync::Arc};

use synprobe_ebpf::event::StateRecord;

use super::{client::comm, handshake::OpenHandshake};
use crate::{
    model::Process,
    util::addresses::{is_wildcard, mapped},
};

/// The listeners, from a dump at the start and from their own transitions since.
#[derive(Default)]
pub struct Owners {
    listeners: HashMap<(u32, u16), Vec<ListenerOwner>>,
}

impl Owners {
    /// Listeners that were found; what is known of the same socket is replaced.
    pub fn add(&mut self, listeners: Vec<ListenerOwner>) {
        for listener in listeners {
            let of_port = self
                .listeners
                .entry((listener.netns, listener.local_port))
                .or_default();
            of_port.retain(|l| l.local_addr != listener.local_addr);
            of_port.push(listener);
        }
    }

    /// →LISTEN runs in the context of the process that calls listen().
    pub(super) fn opened(&mut self, r: &StateRecord, cgroup: Option<Arc<str>>) {
        let process = (r.tgid != 0).then(|| Process {
            pid: r.tgid,
            comm: comm(&r.comm),
        });
        self.add(vec![ListenerOwner {
            netns: r.flow.netns,
            local_addr: r.flow.local_addr,
            local_port: r.flow.local_port,
            process,
            cgroup,
        }]);
    }

    /// LISTEN→CLOSE: its half-opens will vanish one by one.
    pub(super) fn closed(&mut self, r: &StateRecord) {
        let key = (r.flow.netns, r.flow.local_port);
        if let Some(of_port) = self.listeners.get_mut(&key) {
            of_port.retain(|l| l.local_addr != r.flow.local_addr);
            if of_port.is_empty() {
                self.listeners.remove(&key);
            }
        }
    }

    /// Whether a listener for a half-open exists.
    pub(super) fn listens(&self, open: &OpenHandshake) -> bool {
        let c = &open.connection;
        let key = (c.netns, c.local_port.unwrap_or(0));
        let local = mapped(c.local_addr);
        self.listeners.get(&key).is_some_and(|all| {
            all.iter()
                .any(|l| l.local_addr == local || is_wildcard(l.local_addr))
        })
    }

    /// The listener that serves a connection: the one bound to its very address, else a wildcard.
    pub fn of(&self, tuple: &Tuple) -> Option<&ListenerOwner> {
        let of_port = self.listeners.get(&(tuple.netns, tuple.local_port))?;
        of_port
            .iter()
            .find(|l| l.local_addr == tuple.local_addr)
            .or_else(|| of_port.iter().find(|l| is_wildcard(l.local_addr)))
    }
}
