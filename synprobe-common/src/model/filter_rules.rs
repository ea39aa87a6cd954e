//! The packet filter of a namespace, as far as it can drop packets: what the engine compares dropped packets with.
//!
//! A recording keeps these types: a struct cannot gain a field, an enum gains variants at its end.

use serde::{Deserialize, Serialize};

/// One reading of a namespace's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterReading {
    /// Namespace, inode.
    pub netns: u32,
    /// Before it was read, CLOCK_MONOTONIC nanoseconds.
    pub before_ns: u64,
    /// After that, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// What was found.
    pub found: FilterFound,
}

/// What a reading gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterFound {
    /// The rules.
    Rules(Ruleset),
    /// The kernel refused: CAP_NET_ADMIN is missing.
    NotPermitted,
    /// It failed, with the system's words.
    Failed(String),
}

/// The chains that can drop a packet, with those that lead to them. Chains that cannot are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// A jump names a chain by its place here.
    pub chains: Vec<FilterChain>,
    /// Rules that were read, with those that are left out.
    pub rules_read: u32,
    /// Not everything could be read: there may be further rules that drop.
    pub is_partial: bool,
}

/// The part of the kernel that evaluates a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterBackend {
    /// nf_tables: nft, and iptables-nft.
    Nft,
    /// x_tables: iptables-legacy.
    Legacy,
}

/// The packets that a chain sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Both, or any frame.
    Any,
}

/// A hook of netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterHook {
    /// A device's received frames.
    Ingress,
    /// Received packets before routing.
    Prerouting,
    /// Packets to this host.
    Input,
    /// Packets that are forwarded.
    Forward,
    /// Packets of this host.
    Output,
    /// Packets that leave.
    Postrouting,
    /// A device's frames that leave.
    Egress,
    /// Any hook of a bridge.
    Bridge,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterChain {
    /// `table inet filter chain input`, `iptables table filter chain INPUT`.
    pub name: String,
    /// The command that shows it with its counters; `None`: its name fits into no command.
    pub show: Option<String>,
    /// What evaluates it.
    pub backend: FilterBackend,
    /// What it sees.
    pub family: FilterFamily,
    /// Where the kernel enters it; `None`: by jumps only.
    pub base: Option<FilterBase>,
    /// In order.
    pub rules: Vec<FilterRule>,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterBase {
    /// Its hook.
    pub hook: FilterHook,
    /// Its devices (ingress, egress); empty: all.
    pub devices: Vec<String>,
    /// The policy is drop.
    pub drops: bool,
    /// Packets that the policy has counted; `None`: it does not count.
    pub counter: Option<u64>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRule {
    /// Handle (nf_tables), or number in its chain from 1 (legacy).
    pub handle: u64,
    /// As the tools print it, as far as it is understood.
    pub text: String,
    /// All of them must match.
    pub matches: Vec<FilterMatch>,
    /// Packets that it has counted before its action, which includes all that it acted on; `None`: it does not count.
    pub counter: Option<u64>,
    /// What it does then.
    pub action: FilterAction,
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterAction {
    /// Goes on with the next rule.
    Continue,
    /// No further rule of this base chain.
    Accept,
    /// Drop, or reject.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Into another chain, and back.
    Jump(u32),
    /// Into another chain, and not back.
    Goto(u32),
    /// Not understood: it may drop (verdict maps, targets of modules).
    Unknown,
}

/// A part of a packet, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PacketField {
    /// Of the IP header.
    Network(u16),
    /// Of the TCP header.
    Transport(u16),
    /// The protocol number above IP.
    Protocol,
    /// The family of netfilter (NFPROTO_IPV4, NFPROTO_IPV6).
    NetfilterFamily,
    /// The EtherType.
    EtherType,
    /// The index of the device by which it came, in the host's byte order.
    CameByIndex,
}

/// How two values compare, byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterComparison {
    /// Equal.
    Is,
    /// Not equal.
    IsNot,
    /// Less.
    Below,
    /// Less or equal.
    AtMost,
    /// Greater.
    Above,
    /// Greater or equal.
    AtLeast,
}

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterMatch {
    /// The field's bytes under a mask compare so with a value. Both have the field's length.
    Bytes {
        /// Which.
        field: PacketField,
        /// Bits that count.
        mask: Vec<u8>,
        /// How.
        how: FilterComparison,
        /// With what.
        value: Vec<u8>,
    },
    /// One of these is true: ports of a list, elements of a set.
    AnyOf(Vec<FilterMatch>),
    /// None of these is true.
    NoneOf(Vec<FilterMatch>),
    /// All of these are true: a range.
    AllOf(Vec<FilterMatch>),
    /// The name of a device.
    Device {
        /// The one by which the packet came; otherwise the one by which it leaves.
        came_by: bool,
        /// The name.
        name: String,
        /// Every name that begins so.
        is_prefix: bool,
        /// Any other.
        is_not: bool,
    },
    /// Connection tracking finds the packet INVALID.
    Invalid,
    /// It depends on what the record of a drop does not have: the state of a connection, a mark, a rate.
    Undecided,
    /// It is not understood.
    Unknown,
}
