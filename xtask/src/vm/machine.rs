//! What differs between the emulated machines: the emulator, its processor, and names.

use clap::ValueEnum;
use serde::Deserialize;

use crate::dist;

/// A processor architecture, by Debian's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestMachine {
    /// x86-64
    #[default]
    Amd64,
    /// 64-bit Arm
    Arm64,
}

impl GuestMachine {
    /// Debian's name.
    pub fn of_debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// What the programs are compiled for.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => dist::TARGET,
            Self::Arm64 => dist::ARM_TARGET,
        }
    }

    /// The emulator.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// Debian's package of the emulator.
    pub fn package(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86",
            Self::Arm64 => "qemu-system-arm",
        }
    }

    /// The emulated hardware.
    pub fn hardware(self) -> &'static [&'static str] {
        match self {
            // All CPU features except those that are slow to emulate: string instructions (erms, fsrm), five
            // page table levels (la57), and smap. `cmpxchg16b` is off too: on 6.8 a guest crashed in the
            // kernel's allocator because the emulator (7.2) lost flags in that instruction.
            Self::Amd64 => &["-cpu", "max,-erms,-fsrm,-la57,-smap,-cx16"],
            // It has the atomic instructions of Armv8.1. What `max` adds, pointer authentication and memory
            // tagging, is slow to emulate.
            Self::Arm64 => &["-machine", "virt", "-cpu", "neoverse-n1"],
        }
    }

    /// The kernel's name of the first serial line.
    pub fn console(self) -> &'static str {
        match self {
            Self::Amd64 => "ttyS0",
            Self::Arm64 => "ttyAMA0",
        }
    }
}
