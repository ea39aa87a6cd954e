//! The start of a run: how it was set up, and on which host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The start of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// synprobe's version.
    pub version: String,
    /// `uname -r`.
    pub kernel: String,
    /// What is in use, by name.
    pub features: Vec<String>,
    /// The source of a half-open's end: `tracepoints`, `exact (fentry)` or `exact (timer)`.
    pub mode: String,
    /// Why it is not fentry, where that was wanted.
    pub mode_why: Option<String>,
    /// What this host lacks, and so what is not known.
    pub missing: Vec<String>,
    /// The filters, as given.
    pub filters: BTreeMap<String, String>,
    /// Which handshakes have a line.
    #[serde(default)]
    pub handshake_lines: HandshakeLines,
    /// Which host it was.
    #[serde(default)]
    pub host: HostIdentity,
    /// Only in a replay: the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_from: Option<String>,
}

/// Which handshakes of a run have a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandshakeLines {
    /// Each of them.
    #[default]
    All,
    /// Those in trouble: the others are only counted, or not listed.
    Trouble,
}

/// Tells hosts apart; `None`: it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    /// `uname -n`.
    pub hostname: Option<String>,
    /// `/etc/machine-id` (machine-id(5)).
    pub machine_id: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
}

/// Among [`Start::missing`]: the drop hook does not have the receiving socket.
pub const NO_RECEIVER: &str = "which packets a half-open has processed (Linux 6.11)";
