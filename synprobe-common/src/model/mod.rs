//! What every view prints: the output contract (docs/events.md) as types.
//!
//! The tracker makes these, the views only format them. Units are in the names; an unknown value is
//! `None`, never 0.

mod accept_wait;
mod community_id;
mod completed;
mod connect;
mod connection;
mod connection_reset;
mod end;
mod facts;
mod filter_rules;
mod handshake;
mod line;
mod listener;
mod listener_table;
mod lost;
mod observation;
mod outcome;
mod peer;
mod problem;
mod recorded;
mod retransmit;
mod role;
mod run;
mod start;
mod state;
mod state_counts;
mod syn_refused;
mod tcp_state;
mod under_way;
mod verdict;
mod wall_clock;
mod workload;

pub use accept_wait::{AcceptCounts, AcceptReading, AcceptWait, AcceptWaitSource};
pub use community_id::CommunityId;
pub use completed::{Bucket, Completed};
pub use connect::{Connect, ConnectAttempt, Redirect, RedirectedBy};
pub use connection::{Connection, Family, Process};
pub use connection_reset::ConnectionReset;
pub use end::End;
pub use facts::{Facts, HalfOpenCounts, Queue, SynSent};
pub use filter_rules::{
    FilterAction, FilterBackend, FilterBase, FilterChain, FilterComparison, FilterFamily,
    FilterFound, FilterHook, FilterMatch, FilterReading, FilterRule, PacketField, Ruleset,
};
pub use handshake::{Confidence, Evidence, Handshake};
pub use line::{Body, Line};
pub use listener::{LimitedBy, Listener, OwnerState, QueueSample, QueueSettings};
pub use listener_table::{ListenerNamespace, ListenerTable, SharedSynQueue};
pub use lost::{Lost, Missed};
pub use observation::{
    ClientOwner, ConntrackCounts, ConntrackReading, DestinationQuestion, Fate, HalfOpenRow,
    HandshakeCounters, HandshakeSettings, Hop, LaterCounters, ListenCounters, ListenerOwner,
    PathQuestion, RetransCounts, RetransReading, ReturnPath, RouteAnswer, RouteQuestion,
    SocketDump, Tuple, TupleHolder,
};
pub use outcome::{DwellSource, OpenReason, Outcome};
pub use peer::Peer;
pub use problem::{
    EffectTie, Forward, PeerShare, Problem, ProblemEffect, ProblemLife, ProblemRole, ProblemState,
};
pub use recorded::{RecordedListenCounters, RecordedListener};
pub use retransmit::{Retransmit, RetransmitKind, Trigger};
pub use role::{ByRole, Role};
pub use run::{Detail, HalfOpenSource};
pub use start::{HandshakeLines, HostIdentity, NO_RECEIVER, Start};
pub use state::State;
pub use state_counts::{Counted, Counts, NetnsStates, PortStates};
pub use syn_refused::SynRefused;
pub use tcp_state::TcpState;
pub use under_way::{OpenOverRun, PortState, RunProgress, UnderWay};
pub use verdict::VerdictKind;
pub use wall_clock::WallClock;
pub use workload::{Workload, WorkloadNames, who};
