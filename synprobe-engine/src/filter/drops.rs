//! Which dropped packets are of the selection.

use synprobe_ebpf::event::{DropRecord, state};

use super::Selection;
use crate::{model::Role, util::addresses::printable};

const SYN: u8 = 2;
const ACK: u8 = 16;

impl Selection {
    /// Whether the user asks for this port of this host.
    pub fn names_port(&self, port: u16) -> bool {
        self.ports.contains(port) || self.local_ports.contains(port)
    }

    /// Whether a dropped packet is of the selection, as the kernel side decides (`drop_skb.rs`). Others are taken
    /// in too where this host dropped them: one may be of a selected handshake, in another namespace or with other
    /// ends after NAT.
    pub fn selects_drop(&self, r: &DropRecord) -> bool {
        let incoming = r.ifindex != 0;
        let role = match r.flags & (SYN | ACK) {
            _ if r.receiver == state::SYN_SENT => Some(Role::Client),
            _ if r.listener != 0 => Some(Role::Server),
            SYN if incoming => Some(Role::Server),
            SYN => Some(Role::Client),
            both if both == SYN | ACK && incoming => Some(Role::Client),
            both if both == SYN | ACK => Some(Role::Server),
            _ => None,
        };
        let flow = &r.flow;
        role.is_none_or(|role| self.wants(role))
            && self.matches(
                (flow.local_port != 0).then_some(flow.local_port),
                (flow.peer_port != 0).then_some(flow.peer_port),
                printable(flow.peer_addr),
                flow.netns,
            )
    }
}
