//! The names of the verdicts: compared as a type, printed as in the output contract.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

/// The name in the output contract where no verdict can be given.
pub const INSUFFICIENT: &str = "insufficient";

/// The table of verdicts, in the order in which they are tried: those that rest on an event before those
/// that rest on its absence. A line has what the verdict says, its type's name, and its name in the output
/// contract.
///
/// Passes all lines to the macro `$with`: this module makes [`VerdictKind`] of them, and the verdicts' own
/// module the list of their types.
#[macro_export]
macro_rules! verdict_table {
    ($with:ident) => {
        $with! {
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
            /// The listener was closed, and the half-open with it.
            ListenerClosed = "listener-closed",
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
            /// A SYN meets a connection that exists.
            ExistingConnection = "existing-connection",
            /// This host has no local port left.
            PortsExhausted = "ports-exhausted",
            /// No SYN left: connect() failed, or was deferred, before there was one.
            NotSent = "not-sent",
            /// A socket is connected to itself.
            SelfConnect = "self-connect",
            /// The process connects to many destinations.
            ScanFanout = "scan-fanout",
            /// An answer came, and TCP refused it.
            AnswerRejected = "answer-rejected",
            /// The accept queue of the server is full.
            ServerQueueFull = "server-queue-full",
            /// The server on this host has no route back to the client.
            NoRouteBack = "no-route-back",
            /// The SYN queue of the server is full, and SYN cookies are off.
            SynQueueFull = "syn-queue-full",
            /// The peer refused the connection.
            Refused = "refused",
            /// An ICMP error or the routing table reports that the peer cannot be reached.
            Unreachable = "unreachable",
            /// The round trip is longer than the time-out.
            SpuriousRetransmit = "spurious-retransmit",
            /// The first SYN is lost for an option that it has.
            OptionDropped = "option-dropped",
            /// A SYN was lost and a later one was answered.
            SynLostThenOk = "syn-lost-then-ok",
            /// The application gave up first.
            Abandoned = "abandoned",
            /// Nothing answers.
            Filtered = "filtered",
            /// Data is not acknowledged after the handshake.
            DataUnacknowledged = "data-unacknowledged",
            /// The connection is reset right after the handshake.
            ResetAfterHandshake = "reset-after-handshake",
            /// Connections wait for accept() for long, and the accept queue is not full.
            AcceptSlow = "accept-slow",
        }
    };
}

macro_rules! verdict_kinds {
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

            /// The verdict of that name; `_` stands for `-`.
            pub fn parse(name: &str) -> Option<Self> {
                let name = name.replace('_', "-");
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }

            /// Whether it says that a SYN found no listener: it made no half-open.
            pub fn finds_no_listener(self) -> bool {
                self == Self::Refused
            }
        }
    };
}

verdict_table!(verdict_kinds);

impl Serialize for VerdictKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Prints a verdict's name; `insufficient` for none.
pub(super) fn serialize_or_insufficient<S: Serializer>(
    verdict: &Option<VerdictKind>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.map_or(INSUFFICIENT, VerdictKind::name))
}

/// Prints counts in the order of the verdicts' names.
pub(super) fn serialize_counts<S: Serializer>(
    counts: &BTreeMap<VerdictKind, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let by_name: BTreeMap<&str, u64> = counts.iter().map(|(kind, n)| (kind.name(), *n)).collect();
    by_name.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_with_either_separator() {
        for kind in VerdictKind::ALL {
            assert_eq!(VerdictKind::parse(kind.name()), Some(*kind));
            let underscored = kind.name().replace('-', "_");
            assert_eq!(VerdictKind::parse(&underscored), Some(*kind));
        }
        assert_eq!(VerdictKind::parse("no-such-verdict"), None);
    }

    #[test]
    fn counts_are_printed_in_the_order_of_names() {
        #[derive(Serialize)]
        struct Counts(#[serde(serialize_with = "serialize_counts")] BTreeMap<VerdictKind, u64>);
        let counts = VerdictKind::ALL.iter().map(|kind| (*kind, 1)).collect();
        let json = serde_json::to_string(&Counts(counts)).unwrap();
        let mut names: Vec<&str> = VerdictKind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        let expected: Vec<String> = names.iter().map(|name| format!("\"{name}\":1")).collect();
        assert_eq!(json, format!("{{{}}}", expected.join(",")));
    }
}
