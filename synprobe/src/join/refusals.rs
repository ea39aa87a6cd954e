//! SYNs that the server refused before a half-open existed.

use std::net::IpAddr;

use super::fact::{RefusedAt, SideHandshake};

/// Refused SYNs of a side.
#[derive(Clone, Copy, Debug)]
pub struct Refusals<'s> {
    all: &'s [RefusedAt],
}

impl<'s> Refusals<'s> {
    /// Of the sums of a side, the last of each.
    pub fn of(all: &'s [RefusedAt]) -> Self {
        Self { all }
    }

    /// Those that may be a connect's, between two times of the server's clock; `peers`: as whom the server
    /// knows the client.
    pub(super) fn of_connect(
        &self,
        client: &SideHandshake,
        peers: &[IpAddr],
        from_ns: i64,
        to_ns: i64,
    ) -> Option<&'s RefusedAt> {
        let mine = |refused: &&RefusedAt| {
            refused.last_ns >= from_ns
                && refused.first_ns <= to_ns
                && refused.peer.is_none_or(|peer| peers.contains(&peer))
                && refused
                    .local
                    .is_none_or(|local| local == client.peer_addr || peers.len() > 1)
                && (refused
                    .local_port
                    .is_none_or(|port| Some(port) == client.peer_port)
                    || peers.len() > 1)
        };
        // One with the peer's address first.
        let named = self
            .all
            .iter()
            .filter(mine)
            .find(|refused| refused.peer.is_some());
        named.or_else(|| self.all.iter().find(mine))
    }
}
