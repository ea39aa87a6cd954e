//! Connections that a RST ends right after their handshake.

use synprobe_ebpf::event::EarlyResetRecord;

use super::{Tracker, client::comm};
use crate::model::{
    Body, Connection, ConnectionReset, Line, ListenerOwner, Process, Role, TcpState, Tuple,
};

impl Tracker {
    /// A RST is about to end a young connection that has received no data.
    pub(super) fn reset_early(&mut self, r: &EarlyResetRecord, state: TcpState) {
        let connection = self.connection_of_reset(r);
        if !self.config.selection.wants(connection.role) {
            return;
        }
        self.lines.push(Line {
            mono_ns: r.header.ts_ns,
            body: Body::ConnectionReset(Box::new(ConnectionReset {
                connection,
                age_us: r.age_us,
                bytes_sent: r.bytes_sent,
                unacknowledged_us: (r.unacknowledged != 0).then_some(r.data_age_us.into()),
                fin_received: state == TcpState::CloseWait,
            })),
        });
    }

    /// The owner of the listeners that serve an end of this host.
    pub fn listener_owner(&self, tuple: &Tuple) -> Option<&ListenerOwner> {
        self.owners.of(tuple)
    }

    /// Whose RST it is. In the quiet mode most handshakes leave nothing: a listener at the local end, which may
    /// have been closed meanwhile, makes it a server's.
    fn connection_of_reset(&mut self, r: &EarlyResetRecord) -> Connection {
        let tuple = Tuple::from(&r.flow);
        if let Some(known) = self.known_connection(r.sock, &tuple, r.flow.family) {
            return known;
        }
        if self.owners.listened(&tuple) {
            let owner = self.owners.of(&tuple).cloned();
            let mut connection = self.new_connection(&tuple, Role::Server, r.flow.family);
            if let Some(owner) = owner {
                connection.set_process(owner.process.as_ref());
                connection.cgroup = owner.cgroup;
                self.name_workload(&mut connection);
            }
            return connection;
        }
        let mut connection = self.new_connection(&tuple, Role::Client, r.flow.family);
        if r.tgid != 0 {
            let process = Process {
                pid: r.tgid,
                comm: comm(&r.comm),
            };
            connection.set_process(Some(&process));
            connection.cgroup = self.host.cgroup_path(r.cgroup);
            self.name_workload(&mut connection);
        }
        connection
    }
}
