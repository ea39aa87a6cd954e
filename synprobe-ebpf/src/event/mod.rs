//! Records in the ring buffer.
//!
//! Every record is `repr(C)`, starts with a [`Header`], and has only integer members and no implicit
//! padding. Any byte pattern of the right length is therefore a valid value. Kinds are integers, never
//! Rust enums. All integers are in host byte order unless a member says otherwise.

mod drop;
mod early_reset;
mod request;
mod retransmit;
pub mod state;
mod transition;

pub use drop::DropRecord;
pub use early_reset::EarlyResetRecord;
pub use request::{
    ENDED_BY_ABORTED, ENDED_BY_ICMP, ENDED_BY_PACKET, ENDED_BY_TIMER, ENDED_BY_UNKNOWN,
    QUEUE_ACCEPT, QUEUE_NEITHER, QUEUE_SYN, REQUEST_BEGUN, REQUEST_ENDED, REQUEST_REFUSED,
    RequestRecord,
};
pub use retransmit::{
    RetransmitRecord, SYN_HAD_ECN, SYN_HAD_FAST_OPEN, SynAckRecord, TRIGGER_PEER, TRIGGER_TIMER,
};
pub use transition::{
    ACCEPT_QUEUE, BOTH_QUEUES, SYN_BUILT, SYN_NO_TUPLE, SYN_NOT_BUILT, SYN_UNKNOWN, StateRecord,
};

/// [`Header::kind`] of a [`StateRecord`].
pub const KIND_STATE: u16 = 1;
/// [`Header::kind`] of a [`RetransmitRecord`].
pub const KIND_RETRANSMIT: u16 = 2;
/// [`Header::kind`] of a [`SynAckRecord`].
pub const KIND_SYNACK: u16 = 3;
/// [`Header::kind`] of a [`ResetRecord`].
pub const KIND_RESET: u16 = 4;
/// [`Header::kind`] of an [`ErrorRecord`].
pub const KIND_ERROR: u16 = 5;
/// [`Header::kind`] of a [`DropRecord`].
pub const KIND_DROP: u16 = 6;
/// [`Header::kind`] of a [`RequestRecord`].
pub const KIND_REQUEST: u16 = 7;
/// [`Header::kind`] of an [`EarlyResetRecord`].
pub const KIND_EARLY_RESET: u16 = 8;
/// One more than the highest kind: the length of every per-kind counter array.
pub const KINDS: usize = 9;

/// Names of the kinds, as `lost` lines print them; index = kind.
pub const KIND_NAMES: [&str; KINDS] = [
    "none",
    "state",
    "retransmit",
    "synack",
    "reset",
    "error",
    "drop",
    "request",
    "early_reset",
];

/// `AF_INET` of `linux/socket.h`.
pub const AF_INET: u16 = 2;
/// `AF_INET6` of `linux/socket.h`.
pub const AF_INET6: u16 = 10;

/// The start of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of the `KIND_*` constants.
    pub kind: u16,
    /// Length of the whole record, bytes.
    pub len: u16,
    /// The CPU that wrote it.
    pub cpu: u32,
    /// `bpf_ktime_get_ns()`: CLOCK_MONOTONIC, nanoseconds.
    pub ts_ns: u64,
}

/// Identifies a connection: addresses, ports and network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Local address, network order; IPv4 as `::ffff:a.b.c.d`, whatever the socket's family.
    pub local_addr: [u8; 16],
    /// Peer address, in the same form.
    pub peer_addr: [u8; 16],
    /// Local port, host order; 0 while the kernel has not chosen one.
    pub local_port: u16,
    /// Peer port, host order; 0 where the kernel does not have it (LISTEN→SYN_RECV before 6.15).
    pub peer_port: u16,
    /// The socket's own family: [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// Of a half-open: the port of its listener (`rsk_listener`), host order. It is not `local_port` where TPROXY or a
    /// BPF `sk_lookup` program chose the listener. 0: the record does not tell.
    pub listener_port: u16,
    /// Inode of the network namespace (`net.ns.inum`).
    pub netns: u32,
    /// Zero.
    pub _pad2: u32,
}

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

/// A record type and its kind.
///
/// # Safety
///
/// The type is `repr(C)`, starts with a [`Header`], has no padding that is not a named member, and
/// is valid for every byte pattern of its size.
pub unsafe trait Wire: Copy + 'static {
    /// The [`Header::kind`] of the record.
    const KIND: u16;
    /// Its length in recordings of earlier versions, bytes: what was added since is zero in them.
    const EARLIER: usize = core::mem::size_of::<Self>();
}

macro_rules! wire {
    ($($record:ty, $kind:expr, $size:expr $(, was $earlier:expr)?;)*) => {$(
        // SAFETY: repr(C), integer members only; the asserts below exclude padding.
        unsafe impl Wire for $record {
            const KIND: u16 = $kind;
            $(const EARLIER: usize = $earlier;)?
        }
        const _: () = assert!(core::mem::size_of::<$record>() == $size);
        const _: () = assert!(<$record as Wire>::EARLIER <= $size);
        const _: () = assert!(core::mem::align_of::<$record>() == 8);
        const _: () = assert!(core::mem::offset_of!($record, header) == 0);
        const _: () = assert!(core::mem::offset_of!($record, flow) == 16);
        const _: () = assert!(($kind as usize) < KINDS);
    )*};
}

const _: () = assert!(core::mem::size_of::<Header>() == 16);
const _: () = assert!(core::mem::size_of::<Flow>() == 48);
wire! {
    StateRecord, KIND_STATE, 64 + 16 + 24 + 8 + 16 + 16;
    RetransmitRecord, KIND_RETRANSMIT, 64 + 8 + 32 + 8 + 8;
    SynAckRecord, KIND_SYNACK, 64 + 24 + 24 + 8 + 8, was 64 + 24 + 24 + 8;
    ResetRecord, KIND_RESET, 64 + 8 + 8;
    ErrorRecord, KIND_ERROR, 64 + 8 + 8 + 8;
    DropRecord, KIND_DROP, 64 + 8 + 16 + 16 + 16;
    RequestRecord, KIND_REQUEST, 64 + 16 + 24 + 8 + 8;
    EarlyResetRecord, KIND_EARLY_RESET, 64 + 24 + 16 + 8 + 8 + 8;
}
/// The longest record, bytes.
pub const MAX_RECORD: usize = core::mem::size_of::<StateRecord>();
