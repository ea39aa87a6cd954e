//! One line of output.

use super::{
    Completed, Connect, ConnectionReset, End, Handshake, Listener, Lost, Peer, Problem, Retransmit,
    Start, State, SynRefused,
};

/// What a line is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// `start`
    Start(Start),
    /// `state`
    State(State),
    /// `retransmit`
    Retransmit(Retransmit),
    /// `handshake`
    Handshake(Box<Handshake>),
    /// `peer`
    Peer(Box<Peer>),
    /// `listener`
    Listener(Box<Listener>),
    /// `completed`
    Completed(Box<Completed>),
    /// `problem`
    Problem(Box<Problem>),
    /// `connect`
    Connect(Box<Connect>),
    /// `syn_refused`
    SynRefused(Box<SynRefused>),
    /// `connection_reset`
    ConnectionReset(Box<ConnectionReset>),
    /// `lost`
    Lost(Lost),
    /// `end`
    End(End),
}

/// One line of output.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it happened in the kernel, CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// What happened.
    pub body: Body,
}
