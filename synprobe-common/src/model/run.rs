//! How a run was set up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The source of a half-open's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HalfOpenSource {
    /// None: the next dump no longer shows it.
    #[default]
    Tracepoints,
    /// The kernel's functions.
    Fentry,
    /// The request's own timer.
    Timer,
}

impl HalfOpenSource {
    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracepoints => "tracepoints",
            Self::Fentry => "exact (fentry)",
            Self::Timer => "exact (timer)",
        }
    }

    /// Whether an event reports a half-open's end.
    pub fn is_exact(self) -> bool {
        self != Self::Tracepoints
    }
}

/// How much of a handshake comes out of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// Every transition of every connection.
    AllStates,
    /// Every transition of every handshake.
    #[default]
    Handshakes,
    /// Only handshakes in trouble: retransmitted, failed, or slower than this. The others are counted in the
    /// kernel.
    Quiet {
        /// A handshake that took less and needed no retransmission is healthy.
        slow: Duration,
    },
}

impl Detail {
    /// In the quiet mode: the bound of a healthy handshake, microseconds.
    pub fn slow_us(self) -> Option<u32> {
        match self {
            Self::Quiet { slow } => {
                Some(u32::try_from(slow.as_micros()).unwrap_or(u32::MAX).max(1))
            }
            _ => None,
        }
    }
}
