//! Decodes records of the ring into [`Event`]s. Every input gives an event or a typed error.

use std::{
    mem::{MaybeUninit, size_of},
    ptr,
};

use synprobe_ebpf::event::{
    AF_INET, AF_INET6, DropRecord, EarlyResetRecord, ErrorRecord, Flow, Header, KIND_DROP,
    KIND_EARLY_RESET, KIND_ERROR, KIND_REQUEST, KIND_RESET, KIND_RETRANSMIT, KIND_STATE,
    KIND_SYNACK, REQUEST_BEGUN, REQUEST_ENDED, REQUEST_REFUSED, RequestRecord, ResetRecord,
    RetransmitRecord, StateRecord, SynAckRecord, TRIGGER_PEER, TRIGGER_TIMER, Wire,
};
use thiserror::Error;

use crate::model::{TcpState, Trigger};

/// An event that the kernel side reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transition: from, to.
    State(StateRecord, TcpState, TcpState),
    /// A segment of a full socket was retransmitted, in this state.
    Retransmit(RetransmitRecord, TcpState),
    /// The SYN-ACK of a half-open was retransmitted.
    SynAck(SynAckRecord, Trigger),
    /// A RST is about to take effect.
    Reset(ResetRecord, TcpState),
    /// An error was reported to the socket.
    Error(ErrorRecord, TcpState),
    /// A packet of a handshake was dropped.
    Drop(DropRecord),
    /// A half-open began or ended, or a SYN was refused (the exact mode).
    Request(RequestRecord, Moment),
    /// A RST ends a connection right after its handshake.
    EarlyReset(EarlyResetRecord, TcpState),
}

/// What a [`RequestRecord`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A SYN was accepted.
    Begun,
    /// A half-open ended without becoming a connection.
    Ended,
    /// A SYN was refused.
    Refused,
}

impl Event {
    /// Its time: CLOCK_MONOTONIC, nanoseconds.
    pub fn at_ns(&self) -> u64 {
        self.header().ts_ns
    }

    /// The connection.
    pub fn flow(&self) -> &Flow {
        match self {
            Self::State(r, ..) => &r.flow,
            Self::Retransmit(r, _) => &r.flow,
            Self::SynAck(r, _) => &r.flow,
            Self::Reset(r, _) => &r.flow,
            Self::Error(r, _) => &r.flow,
            Self::Drop(r) => &r.flow,
            Self::Request(r, _) => &r.flow,
            Self::EarlyReset(r, _) => &r.flow,
        }
    }

    /// The record's bytes: what [`decode`] made the event of.
    pub fn record(&self) -> &[u8] {
        match self {
            Self::State(r, ..) => record_bytes(r),
            Self::Retransmit(r, _) => record_bytes(r),
            Self::SynAck(r, _) => record_bytes(r),
            Self::Reset(r, _) => record_bytes(r),
            Self::Error(r, _) => record_bytes(r),
            Self::Drop(r) => record_bytes(r),
            Self::Request(r, _) => record_bytes(r),
            Self::EarlyReset(r, _) => record_bytes(r),
        }
    }

    /// The record's header.
    pub fn header(&self) -> &Header {
        match self {
            Self::State(r, ..) => &r.header,
            Self::Retransmit(r, _) => &r.header,
            Self::SynAck(r, _) => &r.header,
            Self::Reset(r, _) => &r.header,
            Self::Error(r, _) => &r.header,
            Self::Drop(r) => &r.header,
            Self::Request(r, _) => &r.header,
            Self::EarlyReset(r, _) => &r.header,
        }
    }
}

/// The bytes of a record.
pub fn record_bytes<R: Wire>(record: &R) -> &[u8] {
    // SAFETY: a wire record has integer members only and no padding that is not a named member, so each of
    // its bytes is initialised; the slice lives as long as the borrow.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<R>()) }
}

/// Why a record cannot be decoded: object and agent are of different builds, or memory is corrupt. It is
/// counted as lost; the run goes on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than a header.
    #[error("{0} bytes: shorter than a header")]
    Short(usize),
    /// The kind is unknown.
    #[error("unknown kind {0}")]
    Kind(u16),
    /// The length does not fit the kind.
    #[error("kind {kind}: {got} bytes, expected {want}")]
    Length {
        /// The kind.
        kind: u16,
        /// Length of the record, bytes.
        got: usize,
        /// Length of the kind, bytes.
        want: usize,
    },
    /// The address family is neither IPv4 nor IPv6.
    #[error("kind {kind}: address family {family}")]
    Family {
        /// The kind.
        kind: u16,
        /// The value found.
        family: u16,
    },
    /// The number is not a TCP state.
    #[error("kind {kind}: TCP state {state}")]
    State {
        /// The kind.
        kind: u16,
        /// The value found.
        state: u8,
    },
    /// The number is not a trigger.
    #[error("SYN-ACK trigger {0}")]
    Trigger(u8),
    /// The number is not a moment of a half-open.
    #[error("moment {0} of a half-open")]
    Moment(u8),
}

/// Decodes one record.
///
/// # Errors
///
/// [`DecodeError`]: the bytes are not a record of this build.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let Some(kind) = bytes.first_chunk::<2>() else {
        return Err(DecodeError::Short(bytes.len()));
    };
    let kind = u16::from_ne_bytes(*kind);
    match kind {
        KIND_STATE => {
            let r: StateRecord = read(bytes)?;
            check_family(kind, &r.flow)?;
            Ok(Event::State(
                r,
                tcp_state(kind, r.old)?,
                tcp_state(kind, r.new)?,
            ))
        }
        KIND_RETRANSMIT => {
            let r: RetransmitRecord = read(bytes)?;
            check_family(kind, &r.flow)?;
            Ok(Event::Retransmit(r, tcp_state(kind, r.state)?))
        }
        KIND_SYNACK => {
            let r: SynAckRecord = read(bytes)?;
            check_family(kind, &r.flow)?;
            let trigger = match r.trigger {
                TRIGGER_TIMER => Trigger::Timer,
                TRIGGER_PEER => Trigger::Peer,
                other => return Err(DecodeError::Trigger(other)),
            };
            Ok(Event::SynAck(r, trigger))
        }
        KIND_RESET => {
            let r: ResetRecord = read(bytes)?;
            check_family(kind, &r.flow)?;
            Ok(Event::Reset(r, tcp_state(kind, r.state)?))
        }
        KIND_ERROR => {
            let r: ErrorRecord = read(bytes)?;
            check_family(kind, &r.flow)?;
            Ok(Event::Error(r, tcp_state(kind, r.state)?))
        }
        KIND_DROP => {
            let r: DropRecord = read(bytes)?;
            check_family(kind, &r.flow)?;
            Ok(Event::Drop(r))
        }
        KIND_REQUEST => {
            let r: RequestRecord = read(bytes)?;
            check_family(kind, &r.flow)?;
            let moment = match r.moment {
                REQUEST_BEGUN => Moment::Begun,
                REQUEST_ENDED => Moment::Ended,
                REQUEST_REFUSED => Moment::Refused,
                other => return Err(DecodeError::Moment(other)),
            };
            Ok(Event::Request(r, moment))
        }
        KIND_EARLY_RESET => {
            let r: EarlyResetRecord = read(bytes)?;
            check_family(kind, &r.flow)?;
            Ok(Event::EarlyReset(r, tcp_state(kind, r.state)?))
        }
        other => Err(DecodeError::Kind(other)),
    }
}

fn read<R: Wire>(bytes: &[u8]) -> Result<R, DecodeError> {
    if bytes.len() != size_of::<R>() && bytes.len() != R::EARLIER {
        return Err(DecodeError::Length {
            kind: R::KIND,
            got: bytes.len(),
            want: size_of::<R>(),
        });
    }
    let mut record = MaybeUninit::<R>::zeroed();
    // SAFETY: the length was checked and is at most that of `R`, the copy is of bytes, and `Wire` promises that
    // every byte pattern is a valid `R`: also one whose end is zero.
    Ok(unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), record.as_mut_ptr().cast(), bytes.len());
        record.assume_init()
    })
}

fn check_family(kind: u16, flow: &Flow) -> Result<(), DecodeError> {
    match flow.family {
        AF_INET | AF_INET6 => Ok(()),
        family => Err(DecodeError::Family { kind, family }),
    }
}

fn tcp_state(kind: u16, state: u8) -> Result<TcpState, DecodeError> {
    TcpState::from_kernel(state).ok_or(DecodeError::State { kind, state })
}
