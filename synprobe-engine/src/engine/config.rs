//! What the engine needs before the first input.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    filter::Selection,
    model::{Detail, NO_RECEIVER, Start},
    track::TrackConfig,
};

/// How a run was set up: the first thing in a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// The `start` line.
    pub start: Start,
    /// What the tracker has to know of the host.
    pub track: TrackConfig,
    /// Whether this kernel reports the packets that this host drops (`skb:kfree_skb` with a reason, 5.17).
    pub sees_drops: bool,
    /// Problems are judged over this window, again and again; `None`: once, over the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
}

impl RunConfig {
    /// Whether this kernel reports the packets that a socket refuses: the drop hook has the receiving socket.
    pub fn sees_answers(&self) -> bool {
        self.sees_drops && !self.start.missing.iter().any(|m| m == NO_RECEIVER)
    }

    /// What was asked for.
    pub fn selection(&self) -> &Selection {
        &self.track.selection
    }

    /// How much of a handshake comes out of the kernel.
    pub fn detail(&self) -> Detail {
        self.track.detail
    }
}
