//! How a run was set up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What tells of a half-open's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HalfOpenSource {
    /// Nothing does: it is missed at the next look at sock_diag.
    #[default]
    Tracepoints,
    /// The kernel's functions.
    Fentry,
    /// The request's own timer.
    Timer,
}

impl HalfOpenSource {
    /// As lines and people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracepoints => "tracepoints",
            Self::Fentry => "exact (fentry)",
            Self::Timer => "exact (timer)",
        }
    }

    /// Whether a half-open's end is told as it happens.
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
    /// Only handshakes worth a line: sent again, failed, or slower than this. The others are counted
    /// in the kernel.
    Quiet {
        /// Below this a handshake that needed no retransmission went well.
        slow: Duration,
    },
}

impl Detail {
    /// Of the quiet mode: below so many microseconds a handshake went well.
    pub fn slow_us(self) -> Option<u32> {
        match self {
            Self::Quiet { slow } => {
                Some(u32::try_from(slow.as_micros()).unwrap_or(u32::MAX).max(1))
            }
            _ => None,
        }
    }
}
