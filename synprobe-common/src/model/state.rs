//! A transition between two states.

use serde::Serialize;

use super::{Connection, TcpState};

/// A transition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// Whose.
    #[serde(flatten)]
    pub connection: Connection,
    /// State left.
    pub old: TcpState,
    /// State entered.
    pub new: TcpState,
    /// Time spent in `old`, microseconds.
    pub dwell_us: Option<u64>,
}
