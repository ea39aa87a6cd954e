//! `synprobe listeners`

use clap::Args;

use super::{Format, select::union};
use crate::filter::{PortSet, Selection};

/// `synprobe listeners`
#[derive(Debug, Args)]
pub struct ListenersArgs {
    /// Only these ports: a list of ports and ranges, such as 443,8000-8100
    #[arg(long, value_name = "PORTS")]
    pub port: Vec<PortSet>,
    /// Only this network namespace: a name (ip netns), a path, or a pid
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
    /// Also listeners at which nothing waits
    ///
    /// Without it, and without --port and --netns, text has only those in whose queues something waits, or that have
    /// dropped something. JSON has all.
    #[arg(long)]
    pub all: bool,
    /// Aligned text, or one JSON object a line (docs/events.md)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

impl ListenersArgs {
    /// Everything but the namespace, which has to be looked up.
    pub fn selection(&self) -> Selection {
        Selection {
            local_ports: union(&self.port),
            ..Selection::default()
        }
    }
}
