//! Verdicts on active opens.

mod abandoned;
mod filtered;
mod ports_exhausted;
mod refused;
mod scan_fanout;
mod server_queue_full;
mod syn_lost_then_ok;
mod unreachable;

pub(super) use abandoned::Abandoned;
pub(super) use filtered::Filtered;
pub(super) use ports_exhausted::PortsExhausted;
pub(super) use refused::Refused;
pub(super) use scan_fanout::ScanFanout;
pub(super) use server_queue_full::ServerQueueFull;
pub(super) use syn_lost_then_ok::SynLostThenOk;
pub(super) use unreachable::Unreachable;

use crate::{
    model::{Handshake, Outcome, Role},
    util::format,
};

/// Whether it is an active open that did not end in a connection.
fn failed(h: &Handshake) -> bool {
    h.connection.role == Role::Client && h.outcome != Outcome::Established
}

/// Its dwell, in words.
fn took(h: &Handshake) -> String {
    h.dwell_us
        .map_or_else(|| "an unknown time".to_owned(), format::duration)
}

/// The peer's end, as one would type it.
fn peer(h: &Handshake) -> String {
    match h.connection.peer_port {
        Some(port) => std::net::SocketAddr::new(h.connection.peer_addr, port).to_string(),
        None => h.connection.peer_addr.to_string(),
    }
}

/// `1 SYN`, `3 SYNs`
fn syns(h: &Handshake) -> String {
    match h.retransmits {
        0 => "1 SYN".to_owned(),
        n => format!("{} SYNs", n.saturating_add(1)),
    }
}
