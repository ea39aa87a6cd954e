//! What the tracker has to know before the first observation.

use serde::{Deserialize, Serialize};

use crate::{
    filter::Selection,
    model::{Detail, HalfOpenSource},
    util::table_bounds::TableBounds,
};

/// What is known of the host, and how the run was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackConfig {
    /// Jiffies a second (CONFIG_HZ).
    pub hz: u32,
    /// Whether the listener's RTO maximum bounds SYN-ACK time-outs (after 6.18).
    pub synack_rto_max: bool,
    /// Whether a retransmission that fails raises an event too (6.17).
    pub sees_failures: bool,
    /// Whether `tcp:tcp_receive_reset` is watched: without it a RST and an ICMP port-unreachable
    /// look alike.
    pub sees_resets: bool,
    /// The source of a half-open's end.
    pub source: HalfOpenSource,
    /// How much of a handshake comes out of the kernel.
    pub detail: Detail,
    /// Bounds of the tables.
    #[serde(flatten)]
    pub tables: TableBounds,
    /// When the run began, CLOCK_MONOTONIC nanoseconds.
    pub began_ns: u64,
    /// Keys the hashes that estimate the number of peers. Peers choose source addresses and must not know it.
    pub hash_seed: u64,
    /// The connections to watch.
    pub selection: Selection,
}

#[cfg(any(test, feature = "fixtures"))]
impl TrackConfig {
    /// For tests: a run without a selection, on a kernel that reports failures and RSTs.
    pub fn fixture(tables: TableBounds, began_ns: u64) -> Self {
        Self {
            hz: 250,
            synack_rto_max: false,
            sees_failures: true,
            sees_resets: true,
            source: HalfOpenSource::Tracepoints,
            detail: Detail::Handshakes,
            tables,
            began_ns,
            hash_seed: 7,
            selection: Selection::default(),
        }
    }
}
