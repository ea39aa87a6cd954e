//! The command line, and nothing else: what is parsed here is only checked here.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    connect::Target,
    filter::{PortSet, Selection, parse_cidr},
    model::Role,
    probe::half_open_source::RequestedMode,
};

/// Watches every TCP handshake on this host, times it truthfully, and says why it is stuck.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// A verb.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print every handshake as it happens, then a table of the peers
    Watch(WatchArgs),
    /// Watch for a while, then say what is wrong, worst first, with the evidence and the remedy
    Diagnose(DiagnoseArgs),
    /// Explain a verdict: what it means, how it is told, what to try, how to see it made
    Explain(ExplainArgs),
    /// One connect, watched from inside: each address of a name with its timing, its SYNs, its outcome
    Connect(ConnectArgs),
    /// Count the sockets in each TCP state, per network namespace and listening port
    States(StatesArgs),
    /// List the listeners with their SYN and accept queues, the fullest first, and what limits them
    Listeners(ListenersArgs),
    /// Say what this host allows, what is missing, and the remedy
    Preflight(PreflightArgs),
    #[cfg(feature = "lab")]
    /// Make a handshake fail on purpose, in network namespaces of its own, and watch it
    Lab(LabArgs),
}

/// How lines are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned lines for eyes
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Which transitions are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum States {
    /// Those into and out of SYN_SENT and SYN_RECV
    #[default]
    Handshake,
    /// Every one
    All,
}

/// What tells that a half-open has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// The kernel's functions (fentry) where this host allows them, else as `tracepoints`
    #[default]
    Auto,
    /// A look at the kernel's tables once a second; nothing but TCP's tracepoints is used
    Tracepoints,
    /// An event at that very moment: fentry, or else the tracepoints of all timers, which cost more
    Exact,
}

impl From<ModeArg> for RequestedMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auto => Self::Auto,
            ModeArg::Tracepoints => Self::Tracepoints,
            ModeArg::Exact => Self::Exact,
        }
    }
}

/// This host's role in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// It opened the connection
    Client,
    /// It accepted it
    Server,
}

/// `synprobe watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// What to watch
    #[command(flatten)]
    pub select: SelectArgs,
    /// Text for eyes, or one JSON object a line (docs/events.md)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// End after this time, such as 30s or 5m
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// End after so many handshakes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Which transitions to print
    #[arg(long, value_enum, default_value_t)]
    pub states: States,
    /// Print only handshakes that were sent again, failed, or were slow; the kernel counts the others
    #[arg(long, conflicts_with = "states")]
    pub quiet: bool,
    /// Below this a handshake that needed no retransmission is not worth a line, such as 300ms
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s", requires = "quiet")]
    pub slow: Duration,
    /// How the kernel hands its records over
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// `synprobe diagnose`
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// What to watch
    #[command(flatten)]
    pub select: SelectArgs,
    /// How long to watch, such as 30s or 5m
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "10s")]
    pub duration: Duration,
    /// A page for eyes, or one JSON object a line (docs/events.md)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Below this a handshake that needed no retransmission is only counted, in the kernel
    #[arg(long, value_parser = slow, value_name = "TIME", default_value = "1s")]
    pub slow: Duration,
    /// Look at every handshake, also those that go well: at a higher price, what is usual is known
    /// too, and with it slow-peer below --slow, flash-crowd, and the processes that connect
    #[arg(long, conflicts_with = "slow")]
    pub every: bool,
    /// How the kernel hands its records over
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// `synprobe explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Which verdict, such as synack-lost; without one: all of them, a line each
    pub verdict: Option<String>,
}

/// What narrows a run.
#[derive(Debug, Default, Args)]
pub struct SelectArgs {
    /// Only these ports, local or peer: a list of ports and ranges, such as 443,8000-8100
    #[arg(long, value_name = "PORTS")]
    pub port: Vec<PortSet>,
    /// Only these local ports
    #[arg(long, value_name = "PORTS")]
    pub local_port: Vec<PortSet>,
    /// Only these peer ports
    #[arg(long, value_name = "PORTS")]
    pub peer_port: Vec<PortSet>,
    /// Only peers in these networks, such as 10.0.0.0/8 or 2001:db8::/32
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr, value_delimiter = ',')]
    pub peer: Vec<IpNet>,
    /// Only handshakes in which this host has this role
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
    /// Only this network namespace: a name (ip netns), a path, or a pid
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
}

/// How the kernel hands its records over.
#[derive(Debug, Args)]
pub struct TuningArgs {
    /// Size of the ring buffer between kernel and agent, rounded up to a power of two; without it 16M,
    /// and 1M where only trouble gives a record
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub ring_size: Option<u32>,
    /// Handshakes under way that are remembered; the oldest makes room, and that is said
    #[arg(long, value_name = "N", default_value = "1000000",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_handshakes: u32,
    /// Peers told apart that have shown life, beside up to 8192 silent ones; the one least in trouble
    /// makes room, and how many there were is estimated
    #[arg(long, value_name = "N", default_value = "32768",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_peers: u32,
    /// What tells that a half-open has ended
    #[arg(long, value_enum, default_value_t)]
    pub mode: ModeArg,
    /// Diagnostics on standard error, the kernel side's included: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub log_level: log::LevelFilter,
}

/// `synprobe connect`
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Whom: a name or an address, and a port, such as db.internal:5432 or [fe80::1%eth0]:22
    #[arg(value_name = "HOST:PORT")]
    pub target: Target,
    /// Only IPv4 addresses
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Only IPv6 addresses
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// How long to wait for each address, such as 10s or 500ms
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "10s")]
    pub timeout: Duration,
    /// Resolve and connect in this network namespace: a name (ip netns), a path, or a pid
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
    /// Text for eyes, or one JSON object a line (docs/events.md)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// How the kernel hands its records over
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// `synprobe states`
#[derive(Debug, Args)]
pub struct StatesArgs {
    /// Only this network namespace: a name (ip netns), a path, or a pid
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
    /// Text for eyes, or one JSON object a line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `synprobe listeners`
#[derive(Debug, Args)]
pub struct ListenersArgs {
    /// Only these ports: a list of ports and ranges, such as 443,8000-8100
    #[arg(long, value_name = "PORTS")]
    pub port: Vec<PortSet>,
    /// Only this network namespace: a name (ip netns), a path, or a pid
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
    /// Text for eyes, or one JSON object a line (docs/events.md)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `synprobe preflight`
#[derive(Debug, Args)]
pub struct PreflightArgs {
    /// Text for eyes, or one JSON object
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `synprobe lab`
#[cfg(feature = "lab")]
#[derive(Debug, Args)]
pub struct LabArgs {
    /// Which handshake to make; see --list
    #[arg(required_unless_present = "list")]
    pub scenario: Option<String>,
    /// Explain each scenario in a line
    #[arg(long)]
    pub list: bool,
    /// Address family of the lab
    #[arg(long, value_enum, default_value_t)]
    pub family: FamilyArg,
    /// Text for eyes, or one JSON object a line (docs/events.md)
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// How the kernel hands its records over
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// The lab's address family.
#[cfg(feature = "lab")]
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

impl SelectArgs {
    /// Everything but the namespace, which has to be looked up.
    pub fn selection(&self) -> Selection {
        Selection {
            ports: union(&self.port),
            local_ports: union(&self.local_port),
            peer_ports: union(&self.peer_port),
            peers: self.peer.clone(),
            role: self.role.map(|role| match role {
                RoleArg::Client => Role::Client,
                RoleArg::Server => Role::Server,
            }),
            netns: None,
        }
    }
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

/// Options given twice add up.
fn union(sets: &[PortSet]) -> PortSet {
    let mut all = PortSet::default();
    sets.iter().for_each(|set| all.extend(set));
    all
}

/// `30s`, `5m`, `1h 30m`, `500ms`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a time: give one such as 30s, 5m or 500ms");
    let seconds = text
        .trim()
        .parse::<f64>()
        .ok()
        .map(Duration::try_from_secs_f64);
    let duration = match seconds {
        Some(seconds) => seconds.map_err(|_| wrong())?,
        None => {
            let friendly: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
            Duration::try_from(friendly).map_err(|_| wrong())?
        }
    };
    if duration.is_zero() {
        Err(wrong())
    } else {
        Ok(duration)
    }
}

/// As [`duration`], within what the kernel side can count.
fn slow(text: &str) -> Result<Duration, String> {
    let slow = duration(text)?;
    match slow.as_micros() {
        1_000..=3_600_000_000 => Ok(slow),
        _ => Err(format!("\"{text}\" is not between 1ms and 1h")),
    }
}

/// `1048576`, `256K`, `8M`, `1G`, with or without `iB`.
fn bytes(text: &str) -> Result<u32, String> {
    let wrong = || format!("\"{text}\" is not a size: give one such as 256K or 8M, 1G at the most");
    let upper = text.trim().to_ascii_uppercase();
    let digits = upper.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &upper[digits.len()..] {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
    let size = number
        .checked_mul(unit)
        .filter(|size| (1..=1 << 30).contains(size));
    size.and_then(|size| u32::try_from(size).ok())
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert!(duration("0").is_err() && duration("-1s").is_err() && duration("soon").is_err());
        assert_eq!(bytes("8M"), Ok(8 << 20));
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert!(bytes("0").is_err() && bytes("2G").is_err() && bytes("8X").is_err());
    }
}
