//! The metrics: names, labels and values (docs/serve.md). Labels come from bounded sets: never an address, a
//! pid or a command.

mod buckets;
mod exposition;
pub(super) mod family;
mod of_host;
mod of_ports;
mod of_process;
mod ports;

use std::sync::Mutex;

use family::MetricFamily;
use ports::PortLabels;

use super::{RunStatus, negotiate::TextFormat, otlp::losses::OtlpLosses, sockets::ByState};

/// Series in one answer, at most.
#[cfg(test)]
const MOST_SERIES: usize = 2000;

/// What has to be the same from one scrape to the next: which ports have a label of their own.
#[derive(Default)]
pub(super) struct Metrics {
    ports: Mutex<PortLabels>,
    /// `None`: there is no collector.
    otlp: Option<OtlpLosses>,
}

impl Metrics {
    /// `otlp`: what the sending to a collector loses.
    pub fn new(otlp: Option<OtlpLosses>) -> Self {
        Self {
            ports: Mutex::default(),
            otlp,
        }
    }

    /// The answer to a scrape.
    pub fn text(
        &self,
        status: &RunStatus,
        sockets: Option<&ByState>,
        format: TextFormat,
    ) -> String {
        exposition::text(self.families(status, sockets), format)
    }

    /// All of them.
    pub fn families(&self, status: &RunStatus, sockets: Option<&ByState>) -> Vec<MetricFamily> {
        let mut labels = self
            .ports
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let snapshot = &status.snapshot;
        let ports = snapshot.stats.all_ports();
        labels.admit(&ports, snapshot);
        let mut families = vec![of_host::build_info(&snapshot.start)];
        families.extend(of_ports::handshakes(&ports, &mut labels));
        families.extend(of_ports::under_way(status, &labels));
        families.extend(of_ports::listeners(snapshot, &labels));
        families.push(of_ports::accept_waits(snapshot, &labels));
        families.extend(of_host::counts(status, sockets, self.otlp.as_ref()));
        families.push(of_host::problems(snapshot));
        families.push(
            MetricFamily::counter(
                "synprobe_series_limited",
                "Roles and ports that have no label of their own: they are in port=\"other\"",
            )
            .with([], labels.limited_total()),
        );
        families.extend(of_process::families());
        // A family without a sample would be a name without a value.
        families.retain(|family| !family.samples.is_empty());
        families
    }
}

#[cfg(test)]
pub(super) mod tests;
