//! TCP states as the kernel numbers and RFC 9293 names them.

use serde::{Serialize, Serializer};

/// A TCP state as `include/net/tcp_states.h` numbers it and RFC 9293 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    /// Data flows.
    Established = 1,
    /// Active open, SYN sent.
    SynSent = 2,
    /// Passive open, SYN-ACK sent; or a simultaneous open.
    SynRecv = 3,
    /// Our FIN is not acknowledged.
    FinWait1 = 4,
    /// Our FIN is acknowledged, the peer's is awaited.
    FinWait2 = 5,
    /// Both closed, waiting 2 MSL.
    TimeWait = 6,
    /// No connection.
    Close = 7,
    /// The peer closed, we have not.
    CloseWait = 8,
    /// Both closed, the acknowledgement of our FIN is awaited.
    LastAck = 9,
    /// Passive socket.
    Listen = 10,
    /// Simultaneous close.
    Closing = 11,
}

impl TcpState {
    /// From the kernel's number; a request_sock's NEW_SYN_RECV (12) is SYN_RECV to every reader.
    pub fn from_kernel(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => return None,
        })
    }

    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }

    /// Whether a handshake is under way.
    pub fn is_handshake(self) -> bool {
        matches!(self, Self::SynSent | Self::SynRecv)
    }
}

impl Serialize for TcpState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
