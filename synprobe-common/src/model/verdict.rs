//! The names of the verdicts: compared as a type, printed as in the output contract.

use serde::{Serialize, Serializer};

macro_rules! verdicts {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// Why a handshake went badly, in the order in which verdicts are tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum VerdictKind {
            $($(#[$doc])* $kind,)*
        }

        impl VerdictKind {
            /// Every verdict.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name in the output contract.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

verdicts! {
    /// This host dropped the packets.
    DroppedHere = "dropped-here",
    /// TCP_DEFER_ACCEPT waits for data.
    DeferAccept = "defer-accept",
    /// The application does not accept fast enough.
    AcceptQueueFull = "accept-queue-full",
    /// The answer takes another path than the request.
    AsymmetricNat = "asymmetric-nat",
    /// The peer reset the half-open.
    PeerReset = "peer-reset",
    /// The SYN-ACK does not reach the peer.
    SynackLost = "synack-lost",
    /// Many sources never answer.
    SynFlood = "syn-flood",
    /// More clients came than usual.
    FlashCrowd = "flash-crowd",
    /// The peer never answers.
    PeerSilent = "peer-silent",
    /// The peer answers late.
    SlowPeer = "slow-peer",
    /// This host has no local port left.
    PortsExhausted = "ports-exhausted",
    /// The process connects to many destinations.
    ScanFanout = "scan-fanout",
    /// The accept queue of the server is full.
    ServerQueueFull = "server-queue-full",
    /// The peer refused the connection.
    Refused = "refused",
    /// ICMP or the routing table says that there is no way.
    Unreachable = "unreachable",
    /// A SYN was lost and a later one was answered.
    SynLostThenOk = "syn-lost-then-ok",
    /// The application gave up first.
    Abandoned = "abandoned",
    /// Nothing answers.
    Filtered = "filtered",
}

impl Serialize for VerdictKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
