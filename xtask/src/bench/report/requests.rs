//! Section: the share of all cycles in a load of requests.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use serde::Serialize;

use super::Spread;

/// The agent's share of all cycles, at most.
const SHARE: f64 = 0.004;

/// All loads.
#[derive(Serialize)]
pub struct RequestCosts {
    /// Requests a second that were asked for.
    pub rate: u32,
    /// By load.
    pub costs: Vec<RequestCost>,
    /// Tools that were not measured, and why.
    pub left_out: BTreeMap<String, String>,
}

/// One load.
#[derive(Serialize)]
pub struct RequestCost {
    /// Requests a connection.
    pub per_connection: u32,
    /// What watched it.
    pub watched: Vec<WatchedRequests>,
}

/// One load with one watcher.
#[derive(Serialize)]
pub struct WatchedRequests {
    /// Name of the watcher.
    pub watched: String,
    /// Requests answered a second.
    pub requests_per_second: f64,
    /// New connections a second.
    pub connections_per_second: f64,
    /// Cores that the load kept busy, the kernel's work and the watcher's programs included.
    pub load_cores: f64,
    /// Cores that the watcher's process kept busy.
    pub process_cores: f64,
    /// Cores that its programs kept busy.
    pub programs_cores: f64,
    /// Process and programs, of the cycles of load and watcher together.
    pub share_of_busy: Spread,
    /// The same of what all CPUs could do.
    pub share_of_machine: Spread,
}

pub(super) fn write(out: &mut String, requests: &RequestCosts) -> fmt::Result {
    writeln!(
        out,
        "\nRequests and answers, {} a second: the watcher's share of all cycles, kernel side included",
        requests.rate
    )?;
    writeln!(
        out,
        "(aim: {:.1} % of the cycles that are spent. Nothing is computed for a request: a real server spends more)",
        SHARE * 100.0
    )?;
    for cost in &requests.costs {
        match cost.per_connection {
            1 => writeln!(out, "  each request on a new connection")?,
            n => writeln!(
                out,
                "  keep-alive, {n} requests a connection: {} % of them on new ones",
                100 / n
            )?,
        }
        writeln!(
            out,
            "    {:<16} {:>10} {:>8} {:>11} {:>11} {:>12} {:>24} {:>15}",
            "watched by",
            "requests/s",
            "new/s",
            "load cores",
            "its process",
            "its programs",
            "of cycles spent",
            "of the machine"
        )?;
        for w in &cost.watched {
            let s = &w.share_of_busy;
            let share = format!(
                "{:.3} % ({:.3} to {:.3})",
                s.median * 100.0,
                s.min * 100.0,
                s.max * 100.0
            );
            writeln!(
                out,
                "    {:<16} {:>10.0} {:>8.0} {:>11.4} {:>11.5} {:>12.5} {share:>24} {:>13.3} %",
                w.watched,
                w.requests_per_second,
                w.connections_per_second,
                w.load_cores,
                w.process_cores,
                w.programs_cores,
                w.share_of_machine.median * 100.0
            )?;
        }
    }
    for (tool, reason) in &requests.left_out {
        writeln!(out, "  {tool} did not run: {reason}")?;
    }
    Ok(())
}
