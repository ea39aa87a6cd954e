//! Totals of one peer.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::{
    Role,
    verdict::{self, VerdictKind},
};

/// Totals of one peer address in one role.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peer {
    /// The peer.
    pub peer_addr: IpAddr,
    /// This host's role towards it.
    pub role: Role,
    /// Handshakes begun.
    pub attempts: u64,
    /// Completed.
    pub established: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Still open.
    pub open: u64,
    /// Median dwell of those that ended, microseconds (relative error 1 %).
    pub dwell_p50_us: Option<u64>,
    /// 99th percentile, microseconds (relative error 1 %).
    pub dwell_p99_us: Option<u64>,
    /// Largest, exact.
    pub dwell_max_us: Option<u64>,
    /// SYN retransmissions.
    pub syn_retransmits: u64,
    /// SYN-ACK retransmissions.
    pub synack_retransmits: u64,
    /// RTO retransmissions.
    pub rto_retransmits: u64,
    /// Tail-loss probes.
    pub tlp_retransmits: u64,
    /// Fast retransmissions.
    pub fast_retransmits: u64,
    /// Loss-recovery retransmissions.
    pub recovery_retransmits: u64,
    /// Server: its SYNs that were refused because the accept queue was full; `None`: not known.
    pub syns_refused_accept_queue: Option<u64>,
    /// Server: its SYNs that were refused because the SYN queue was full; `None`: not known.
    pub syns_refused_syn_queue: Option<u64>,
    /// Verdict → count; printed in the order of their names.
    #[serde(serialize_with = "verdict::serialize_counts")]
    pub verdicts: BTreeMap<VerdictKind, u64>,
}
