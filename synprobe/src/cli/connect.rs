//! `synprobe connect`

use std::time::Duration;

use clap::Args;

use super::{Format, TuningArgs, values::duration};
use crate::connect::Target;

/// `synprobe connect`
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// A host and a port, such as db.internal:5432
    ///
    /// A name or an address, such as [fe80::1%eth0]:22.
    #[arg(value_name = "HOST:PORT")]
    pub target: Target,
    /// Only IPv4 addresses
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Only IPv6 addresses
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// How long to wait for each address
    ///
    /// Such as 10s or 500ms.
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "10s")]
    pub timeout: Duration,
    /// Resolve and connect in this namespace
    ///
    /// A network namespace: a name (ip netns), a path, or a pid.
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
    /// Text, or one JSON object a line
    ///
    /// docs/events.md has the fields.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}
