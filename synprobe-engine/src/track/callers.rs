//! The callers of active opens that are older than the run: no event names them, but their sockets do.

use super::Tracker;
use crate::{
    model::{ClientOwner, Connection, Tuple},
    util::addresses::mapped,
};

impl Tracker {
    /// Names the callers of active opens that are older than the run. The first dump, which shows them, may
    /// still come.
    pub fn set_callers(&mut self, callers: Vec<ClientOwner>) {
        for caller in callers {
            // A record of its socket may have come before the first dump.
            let sock = self.clients.iter().find_map(|(sock, open)| {
                let is_it = open.connection.pid.is_none() && is_of(&open.connection, &caller.tuple);
                is_it.then_some(*sock)
            });
            let workload = self.workload(Some(caller.process.pid), caller.cgroup.as_deref());
            let known = match sock {
                Some(sock) => self.clients.get_mut(&sock),
                None => self.preexisting.get_mut(&caller.tuple),
            };
            match known {
                Some(open) => {
                    open.connection.set_process(Some(&caller.process));
                    open.connection.cgroup = caller.cgroup;
                    open.connection.workload = workload;
                }
                None => {
                    self.callers.insert(caller.tuple, caller);
                }
            }
        }
    }

    /// Names the process that holds the socket.
    pub(super) fn named_by(&self, connection: &mut Connection, caller: ClientOwner) {
        connection.set_process(Some(&caller.process));
        connection.cgroup = caller.cgroup;
        self.name_workload(connection);
    }
}

fn is_of(c: &Connection, tuple: &Tuple) -> bool {
    (c.netns, c.local_port, c.peer_port)
        == (tuple.netns, Some(tuple.local_port), Some(tuple.peer_port))
        && mapped(c.peer_addr) == tuple.peer_addr
        && mapped(c.local_addr) == tuple.local_addr
}
