//! Resets and errors that a socket received during its handshake.

use super::{Flow, Header};

/// `tcp:tcp_receive_reset` on a socket whose handshake is in progress.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetRecord {
    /// Kind [`KIND_RESET`].
    pub header: Header,
    /// The connection.
    pub flow: Flow,
    /// Address of the `struct sock`.
    pub sock: u64,
    /// `sk_state`.
    pub state: u8,
    /// Zero.
    pub _pad: [u8; 7],
}

/// `sock:inet_sk_error_report` on a socket whose handshake is in progress.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorRecord {
    /// Kind [`KIND_ERROR`].
    pub header: Header,
    /// The connection.
    pub flow: Flow,
    /// Address of the `struct sock`.
    pub sock: u64,
    /// `sk_err`, a positive errno or 0.
    pub sk_err: u32,
    /// `sk_err_soft`, a positive errno or 0.
    pub sk_err_soft: u32,
    /// `sk_state`.
    pub state: u8,
    /// Zero.
    pub _pad: [u8; 7],
}
