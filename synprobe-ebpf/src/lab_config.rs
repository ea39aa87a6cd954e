//! Shared by the lab and its fault classifier: the rules that select lost segments.

/// Rules of one attach point.
pub const FAULT_RULES: usize = 8;

/// [`FaultRule::action`]: the rule is disabled.
pub const FAULT_OFF: u8 = 0;
/// [`FaultRule::action`]: every matching segment is lost.
pub const FAULT_ALWAYS: u8 = 1;
/// [`FaultRule::action`]: the first [`FaultRule::which`] matching segments of each flow are lost.
pub const FAULT_FIRST: u8 = 2;
/// [`FaultRule::action`]: [`FaultRule::which`] is a bitmap. Bit `n` set: the `n`th matching segment of its
/// flow (counted from 0, at most 64) is lost.
pub const FAULT_ORDINALS: u8 = 3;

/// [`FaultRule::payload`]: with or without data.
pub const PAYLOAD_ANY: u8 = 0;
/// [`FaultRule::payload`]: data-carrying segments only.
pub const PAYLOAD_ONLY: u8 = 1;
/// [`FaultRule::payload`]: segments without data only.
pub const PAYLOAD_NONE: u8 = 2;

/// TCP header flag bits.
pub mod flags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

/// One rule: a match on segments and an action. The first matching rule applies.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRule {
    /// Number or bitmap of segments: see [`FaultRule::action`].
    pub which: u64,
    /// A change restarts the ordinals.
    pub generation: u32,
    /// Source port, host order; 0: any.
    pub source_port: u16,
    /// Destination port, host order; 0: any.
    pub destination_port: u16,
    /// One of the `FAULT_*` actions.
    pub action: u8,
    /// Mask of the TCP flags to compare.
    pub flags_mask: u8,
    /// Required value of these flags.
    pub flags_value: u8,
    /// One of the `PAYLOAD_*` constants.
    pub payload: u8,
    /// 1: this host drops the segment visibly (TC_ACT_SHOT). 0: the segment appears lost on the network.
    pub dropped_here: u8,
    /// Zero.
    pub _pad: [u8; 3],
}

/// Counts of one rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCount {
    /// Segments that matched.
    pub seen: u64,
    /// Matching segments that were lost.
    pub dropped: u64,
}

/// Key of an ordinal counter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultFlow {
    /// Source address, network order; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, in the same form.
    pub destination: [u8; 16],
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// Index of the rule.
    pub rule: u32,
    /// [`FaultRule::generation`].
    pub generation: u32,
    /// Zero: the key of a hash map must not have indeterminate bytes.
    pub _pad: u32,
}

const _: () = assert!(size_of::<FaultRule>() == 24);
const _: () = assert!(size_of::<FaultCount>() == 16);
const _: () = assert!(size_of::<FaultFlow>() == 48);
