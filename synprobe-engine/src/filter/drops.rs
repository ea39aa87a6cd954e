//! Which dropped packets are of the selection.

use synprobe_ebpf::event::{DropRecord, state};

use super::Selection;
use crate::{model::Role, util::addresses::printable, verdict::context::DroppedPacket};

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
        let matches = |local: u16, peer: u16| {
            let known = |port: u16| (port != 0).then_some(port);
            let addr = printable(flow.peer_addr);
            self.matches(known(local), known(peer), addr, flow.netns)
        };
        let (local, peer) = (flow.local_port, flow.peer_port);
        role.is_none_or(|role| self.wants(role))
            && (matches(local, peer)
                || r.called_port()
                    .and_then(|called| before_nat(r.flags, incoming, called, (local, peer)))
                    .is_some_and(|(local, peer)| matches(local, peer)))
    }

    /// Whether a packet that this host dropped is of the selection, by its ends or by those before DNAT.
    pub(crate) fn selects_dropped(&self, d: &DroppedPacket) -> bool {
        let (local, peer) = match d.incoming {
            true => (d.to, d.from),
            false => (d.from, d.to),
        };
        let matches = |(local, of_peer): (u16, u16)| {
            self.matches(Some(local), Some(of_peer), peer.ip(), d.netns)
        };
        let ports = (local.port(), peer.port());
        matches(ports)
            || d.called_port
                .and_then(|called| before_nat(d.flags, d.incoming, called, ports))
                .is_some_and(matches)
    }
}

/// The local and the peer's port, where the server's end has the port that was called. An ACK does not show which end that
/// is.
fn before_nat(
    flags: u8,
    incoming: bool,
    called: u16,
    (local, peer): (u16, u16),
) -> Option<(u16, u16)> {
    match flags & (SYN | ACK) {
        SYN if incoming => Some((called, peer)),
        SYN => Some((local, called)),
        both if both == SYN | ACK && incoming => Some((local, called)),
        both if both == SYN | ACK => Some((called, peer)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Outcome,
        verdict::{
            context::Packet,
            fixtures::{active, discard},
        },
    };

    /// A SYN that came in for port 80 and was sent on to port 8080 by NAT, and the SYN-ACK to it.
    #[test]
    fn a_port_that_was_called_before_nat_selects() {
        let selection = |ports: &str| Selection {
            ports: ports.parse().unwrap(),
            ..Selection::default()
        };
        let mut r = DropRecord {
            flags: SYN,
            ifindex: 3,
            max_ack_backlog: 80,
            ..DropRecord::default()
        };
        (r.flow.local_port, r.flow.peer_port) = (8080, 40_000);
        let selects = |r: &DropRecord| {
            ["80", "8080", "40000", "81"].map(|ports| selection(ports).selects_drop(r))
        };
        assert_eq!(selects(&r), [true, true, true, false]);
        r.flags = SYN | ACK;
        (r.flow.local_port, r.flow.peer_port) = (40_000, 8080);
        assert_eq!(selects(&r), [true, true, true, false]);
        // Which end of an ACK is the server's is not known.
        r.flags = ACK;
        assert_eq!(selects(&r), [false, true, true, false]);
        // With a receiving socket the field is the limit of its queue.
        (r.flags, r.receiver) = (SYN, state::LISTEN);
        assert_eq!(selects(&r), [false, true, true, false]);

        let mut d = discard(&active(Outcome::TimedOut), Packet::Syn, 1);
        (d.flags, d.incoming, d.called_port) = (SYN, true, Some(80));
        let called = d.to.port().to_string();
        let selects =
            |d: &DroppedPacket| ["80", &*called, "81"].map(|p| selection(p).selects_dropped(d));
        assert_eq!(selects(&d), [true, true, false]);
        d.called_port = None;
        assert_eq!(selects(&d), [false, true, false]);
    }
}
