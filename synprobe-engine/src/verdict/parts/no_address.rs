//! Packets that were dropped because nobody has their address.

use crate::{
    model::{Handshake, Role},
    verdict::{
        Context,
        context::{DroppedPacket, Packet},
        enter_of,
    },
};

/// Reasons for dropping a packet whose address is not configured. In the handshake's own namespace this host
/// is to blame; in another one the answer to a forged peer has merely come where nobody has its address.
pub(in crate::verdict) const NOBODYS: [&str; 2] = ["IP_INADDRERRORS", "IP_INNOROUTES"];

/// Whether an answer was dropped because the client's own address is none of its namespace's.
pub(in crate::verdict) fn is_of_no_address(
    d: &DroppedPacket,
    h: &Handshake,
    context: &Context,
) -> bool {
    let c = &h.connection;
    c.role == Role::Client
        && d.netns == c.netns
        && d.incoming
        && d.packet == Packet::SynAck
        && d.to.ip() == c.local_addr
        && NOBODYS.contains(&&*d.reason)
        // A rule that prohibits has the same reason.
        && context.lacks_address(d.netns, d.to.ip())
}

/// The same in words.
pub(in crate::verdict) fn no_address(
    h: &Handshake,
    drops: &[&DroppedPacket],
    context: &Context,
) -> Option<String> {
    let mut of_no_address = drops.iter().filter(|d| is_of_no_address(d, h, context));
    of_no_address.next().map(|_| {
        format!(
            "the client's socket is bound to {}, which is no address of this namespace: a transparent proxy \
             (IP_TRANSPARENT, IP_FREEBIND), or the address has been removed",
            h.connection.local_addr
        )
    })
}

/// Commands that show why it is not delivered.
pub(in crate::verdict) fn deliver(h: &Handshake) -> String {
    let run = enter_of(&h.connection);
    format!(
        "see the addresses: {run}ip -br address; a transparent proxy needs a rule and a route of type local for its \
         answers: {run}ip rule; {run}ip route show table all"
    )
}
