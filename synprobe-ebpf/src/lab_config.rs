//! What the lab and its fault classifier share: the rules that decide which segments are lost.

/// Rules of one attach point.
pub const FAULT_RULES: usize = 8;

/// [`FaultRule::action`]: the rule is not in force.
pub const FAULT_OFF: u8 = 0;
/// [`FaultRule::action`]: every matching segment is lost.
pub const FAULT_ALWAYS: u8 = 1;
/// [`FaultRule::action`]: the first [`FaultRule::which`] matching segments of each flow are lost.
pub const FAULT_FIRST: u8 = 2;
/// [`FaultRule::action`]: [`FaultRule::which`] is a bitmap; bit `n` set: the segment that is the
/// `n`th of its flow to match (counted from 0, at most 64 of them) is lost.
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

/// One rule: which segments, and what becomes of them. The first rule that matches decides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRule {
    /// How many, or which ones: see [`FaultRule::action`].
    pub which: u64,
    /// Ordinals are counted anew whenever this changes.
    pub generation: u32,
    /// Source port, host order; 0: any.
    pub source_port: u16,
    /// Destination port, host order; 0: any.
    pub destination_port: u16,
    /// One of the `FAULT_*` actions.
    pub action: u8,
    /// Which TCP flags are looked at.
    pub flags_mask: u8,
    /// What they must be.
    pub flags_value: u8,
    /// One of the `PAYLOAD_*` constants.
    pub payload: u8,
    /// 1: dropped by this host, and known to be (TC_ACT_SHOT); 0: made to look lost on its way.
    pub dropped_here: u8,
    /// Zero.
    pub _pad: [u8; 3],
}

/// What one rule has done.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCount {
    /// Segments that matched.
    pub seen: u64,
    /// Those of them that were lost.
    pub dropped: u64,
}

/// Whose ordinals are counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultFlow {
    /// Source address, network order; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, likewise.
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
