//! Connections that the peer reset right after their handshake.

use serde::Serialize;

use super::Connection;

/// A `connection_reset` line: a RST ended a connection less than a second after its handshake, or after its
/// first data where nothing was acknowledged, and the peer had sent no data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionReset {
    /// Which one.
    #[serde(flatten)]
    pub connection: Connection,
    /// From ESTABLISHED to the RST, microseconds.
    pub age_us: u64,
    /// Data that this end had sent, retransmissions included, bytes.
    pub bytes_sent: u64,
    /// Where data was sent and none of it was acknowledged: from its first transmission to the RST,
    /// microseconds.
    pub unacknowledged_us: Option<u64>,
    /// Whether the peer had sent a FIN before.
    pub fin_received: bool,
}
