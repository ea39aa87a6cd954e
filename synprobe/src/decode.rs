//! Bytes from the ring → [`Event`]. Total: every input gives an event or a typed error.

use std::mem::size_of;

use synprobe_ebpf::event::{
    AF_INET, AF_INET6, DropRecord, ErrorRecord, Flow, Header, KIND_DROP, KIND_ERROR, KIND_REQUEST,
    KIND_RESET, KIND_RETRANSMIT, KIND_STATE, KIND_SYNACK, REQUEST_BEGUN, REQUEST_ENDED,
    REQUEST_REFUSED, RequestRecord, ResetRecord, RetransmitRecord, StateRecord, SynAckRecord,
    TRIGGER_PEER, TRIGGER_TIMER, Wire,
};
use thiserror::Error;

use crate::model::{TcpState, Trigger};

/// What the kernel side saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transition: from, to.
    State(StateRecord, TcpState, TcpState),
    /// A segment of a full socket was sent again, in this state.
    Retransmit(RetransmitRecord, TcpState),
    /// A half-open's SYN-ACK was sent again.
    SynAck(SynAckRecord, Trigger),
    /// A RST is about to take effect.
    Reset(ResetRecord, TcpState),
    /// An error was reported to the socket.
    Error(ErrorRecord, TcpState),
    /// A packet of a handshake was thrown away.
    Drop(DropRecord),
    /// A half-open began or ended, or a SYN was refused (the exact mode).
    Request(RequestRecord, Moment),
}

/// What a [`RequestRecord`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A SYN was taken.
    Begun,
    /// A half-open ended, and became no connection.
    Ended,
    /// A SYN was not taken.
    Refused,
}

impl Event {
    /// When it happened, CLOCK_MONOTONIC nanoseconds.
    pub fn at_ns(&self) -> u64 {
        self.header().ts_ns
    }

    /// Whose packets it is about.
    pub fn flow(&self) -> &Flow {
        match self {
            Self::State(r, ..) => &r.flow,
            Self::Retransmit(r, _) => &r.flow,
            Self::SynAck(r, _) => &r.flow,
            Self::Reset(r, _) => &r.flow,
            Self::Error(r, _) => &r.flow,
            Self::Drop(r) => &r.flow,
            Self::Request(r, _) => &r.flow,
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
        }
    }
}

/// Why a record cannot be understood: the object and the agent are not of one build, or memory is
/// broken. Counted as lost, never fatal.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than a header.
    #[error("{0} bytes: shorter than a header")]
    Short(usize),
    /// No such kind.
    #[error("unknown kind {0}")]
    Kind(u16),
    /// The length is not the kind's.
    #[error("kind {kind}: {got} bytes where {want} are due")]
    Length {
        /// The kind.
        kind: u16,
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        want: usize,
    },
    /// The address family is neither IPv4 nor IPv6.
    #[error("kind {kind}: address family {family}")]
    Family {
        /// The kind.
        kind: u16,
        /// What stands there.
        family: u16,
    },
    /// A number that is no TCP state.
    #[error("kind {kind}: TCP state {state}")]
    State {
        /// The kind.
        kind: u16,
        /// What stands there.
        state: u8,
    },
    /// A number that is no trigger.
    #[error("SYN-ACK trigger {0}")]
    Trigger(u8),
    /// A number that is no moment of a half-open's life.
    #[error("moment {0} of a half-open")]
    Moment(u8),
}

/// Decodes one record.
///
/// # Errors
///
/// [`DecodeError`] where the bytes are not a record of this build.
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
        other => Err(DecodeError::Kind(other)),
    }
}

fn read<R: Wire>(bytes: &[u8]) -> Result<R, DecodeError> {
    if bytes.len() != size_of::<R>() {
        return Err(DecodeError::Length {
            kind: R::KIND,
            got: bytes.len(),
            want: size_of::<R>(),
        });
    }
    // SAFETY: the length was checked, the read tolerates any alignment, and `Wire` promises that
    // every byte pattern is a valid `R`.
    Ok(unsafe { bytes.as_ptr().cast::<R>().read_unaligned() })
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
