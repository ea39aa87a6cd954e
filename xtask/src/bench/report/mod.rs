//! The bench's results, printed as tables or as one JSON object.
//!
//! One file a section. A new section is a file here with its data and a `write` function, a field of
//! [`BenchReport`], a line in [`text`], and its measurement in [`measure`](super::measure).

mod agent;
mod flood;
mod kernel;
mod loss;
mod machine;
mod recording;
mod requests;
mod serve;
mod spread;
mod throughput;

use std::fmt::{self, Write as _};

pub use agent::{AgentCost, PeerToolCost};
pub use flood::{FloodCost, HalfOpenCost};
pub use kernel::{GrowthPoint, KernelCost, ProgramCost};
pub use loss::LossResult;
pub use machine::Machine;
pub use recording::{PairedCost, QuietRecording, RecordedLoss, RecordingCost, ReplaySpeed};
pub use requests::{RequestCost, RequestCosts, WatchedRequests};
use serde::Serialize;
pub use serve::{AgentUse, ServeCost};
pub use spread::Spread;
pub use throughput::Throughput;

/// The tool that the agent is compared with.
const TCPSTATES: &str = "tcpstates";

/// One run of the bench. The field names are those of the JSON output.
#[derive(Serialize)]
pub struct BenchReport {
    /// Where the bench ran.
    pub machine: Machine,
    /// Connections per second, by number of load threads.
    pub throughput: Vec<Throughput>,
    /// CPU time of one unwatched connection, both ends, nanoseconds.
    pub connection_ns: f64,
    /// Kernel time of each configuration; peer tools come last.
    pub kernel: Vec<KernelCost>,
    /// Kernel time in quiet mode as peers, ports and threads grow.
    pub growth: Vec<GrowthPoint>,
    /// Records lost at the highest rate.
    pub loss: LossResult,
    /// Cost under a SYN flood.
    pub flood: FloodCost,
    /// Cost with a million half-opens.
    pub half_opens: HalfOpenCost,
    /// Recordings and their replay.
    pub recording: RecordingCost,
    /// `serve` beside `watch --quiet`.
    pub serve: ServeCost,
    /// The share of all cycles in a load of requests.
    pub requests: RequestCosts,
    /// The agent's own cost.
    pub agent: AgentCost,
    /// Peer tools that are installed.
    pub peers: Vec<PeerToolCost>,
}

/// The section on recordings alone.
#[derive(Serialize)]
pub struct RecordingReport {
    /// Where the bench ran.
    pub machine: Machine,
    /// Recordings and their replay.
    pub recording: RecordingCost,
}

/// The section on `serve` alone.
#[derive(Serialize)]
pub struct ServeReport {
    /// Where the bench ran.
    pub machine: Machine,
    /// `serve` beside `watch --quiet`.
    pub serve: ServeCost,
}

/// The section on requests alone.
#[derive(Serialize)]
pub struct RequestReport {
    /// Where the bench ran.
    pub machine: Machine,
    /// The share of all cycles in a load of requests.
    pub requests: RequestCosts,
}

impl BenchReport {
    fn tcpstates(&self) -> Option<&PeerToolCost> {
        self.peers.iter().find(|peer| peer.name == TCPSTATES)
    }
}

/// Formats the report as tables.
pub fn text(report: &BenchReport) -> String {
    let mut out = String::new();
    let sections = [
        machine::write(&mut out, &report.machine),
        throughput::write(&mut out, &report.throughput),
        kernel::write(&mut out, report),
        kernel::write_growth(&mut out, &report.growth),
        loss::write(&mut out, &report.loss),
        flood::write(&mut out, "quiet mode", &report.flood),
        flood::write_half_opens(&mut out, &report.half_opens),
        agent::write(&mut out, report),
        recording::write(&mut out, &report.recording),
        serve::write(&mut out, &report.serve),
        requests::write(&mut out, &report.requests),
    ];
    checked(out, &sections)
}

/// Formats the section on recordings alone.
pub fn recording_text(report: &RecordingReport) -> String {
    let mut out = String::new();
    let sections = [
        machine::write(&mut out, &report.machine),
        recording::write(&mut out, &report.recording),
    ];
    checked(out, &sections)
}

/// Formats the section on `serve` alone.
pub fn serve_text(report: &ServeReport) -> String {
    let mut out = String::new();
    let sections = [
        machine::write(&mut out, &report.machine),
        serve::write(&mut out, &report.serve),
    ];
    checked(out, &sections)
}

/// Formats the section on requests alone.
pub fn requests_text(report: &RequestReport) -> String {
    let mut out = String::new();
    let sections = [
        machine::write(&mut out, &report.machine),
        requests::write(&mut out, &report.requests),
    ];
    checked(out, &sections)
}

fn checked(mut out: String, sections: &[fmt::Result]) -> String {
    if sections.iter().any(Result::is_err) {
        // Writing to a String does not fail.
        let _ = writeln!(out, "(a section could not be formatted)");
    }
    out
}

/// Bytes as mebibytes.
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
