//! `synprobe lab`

use clap::{Args, ValueEnum};

use super::{Format, TuningArgs};

/// `synprobe lab`
#[derive(Debug, Args)]
pub struct LabArgs {
    /// The scenario; --list shows all
    #[arg(required_unless_present = "list")]
    pub scenario: Option<String>,
    /// List the scenarios, one line each
    #[arg(long)]
    pub list: bool,
    /// Address family of the lab
    #[arg(long, value_enum, default_value_t)]
    pub family: FamilyArg,
    /// Aligned text, or one JSON object a line (docs/events.md)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Kernel side and tables
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// The lab's address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FamilyArg {
    /// IPv4
    #[default]
    #[value(alias = "4", alias = "v4")]
    Ipv4,
    /// IPv6
    #[value(alias = "6", alias = "v6")]
    Ipv6,
    /// IPv4 through IPv6 sockets (::ffff:a.b.c.d)
    Mapped,
}
