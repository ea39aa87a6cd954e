//! The registers of nf_tables, by what a rule has loaded into them.

use std::collections::HashMap;

use crate::model::PacketField;

/// `NFT_REG32_SIZE`.
pub(super) const REGISTER_LEN: usize = 4;
/// Registers that a value of unknown length may take: those of a `NFT_REG_SIZE`.
const MOST_REGISTERS: u32 = 4;
/// `IFNAMSIZ`.
const DEVICE_NAME_LEN: usize = 16;

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RegisterValue {
    /// A part of the packet, under a mask.
    Field(PacketField, Vec<u8>),
    /// A device's name: of the one by which the packet came, or by which it leaves.
    Device(bool),
    /// `ct state`, under a mask.
    CtState(Option<u32>),
    /// Something with that name, which a record does not have, and its bytes where they are known.
    Undecided(String, Option<usize>),
    Unknown,
}

impl RegisterValue {
    /// Its bytes; `None`: not known.
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::Field(_, mask) => Some(mask.len()),
            Self::Device(_) => Some(DEVICE_NAME_LEN),
            Self::CtState(_) => Some(4),
            Self::Undecided(_, len) => *len,
            Self::Unknown => None,
        }
    }

    /// Registers that it takes; `unknown`: where its length is not known.
    fn registers(&self, unknown: u32) -> u32 {
        let of = |len: usize| len.div_ceil(REGISTER_LEN).max(1) as u32;
        self.len().map_or(unknown, of)
    }
}

/// Each value by the register that it begins at.
#[derive(Default)]
pub(super) struct Registers(HashMap<u32, RegisterValue>);

impl Registers {
    /// Puts a value in place of all that it overwrites, in whole or in part.
    pub fn set(&mut self, first: u32, value: RegisterValue) {
        let end = first.saturating_add(value.registers(MOST_REGISTERS));
        let is_before = |at: u32, old: &RegisterValue| at.saturating_add(old.registers(1)) <= first;
        self.0.retain(|at, old| *at >= end || is_before(*at, old));
        self.0.insert(first, value);
    }

    /// What was loaded at a register.
    pub fn value(&self, number: u32) -> RegisterValue {
        let value = self.0.get(&number).cloned();
        value.unwrap_or(RegisterValue::Unknown)
    }

    /// Whether a value begins at a register.
    pub fn has(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }
}
