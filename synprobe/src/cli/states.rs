//! `synprobe states`

use clap::Args;

use super::{Format, select::union};
use crate::filter::PortSet;

/// `synprobe states`
#[derive(Debug, Args)]
pub struct StatesArgs {
    /// Only listeners on these ports, such as 443,8000-8100
    ///
    /// A list of ports and ranges. The counts of the whole namespace are left out in text.
    #[arg(long, value_name = "PORTS")]
    pub port: Vec<PortSet>,
    /// Also namespaces and listeners without trouble
    ///
    /// Without it, and without --port and --netns, text has those with half-opens, SYN_SENT, or connections that wait
    /// for accept(). JSON has all.
    #[arg(long)]
    pub all: bool,
    /// Only this network namespace: a name (ip netns), a path, or a pid
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
    /// Aligned text, or one JSON object a line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

impl StatesArgs {
    /// The ports that were asked for, if any.
    pub fn ports(&self) -> PortSet {
        union(&self.port)
    }
}
