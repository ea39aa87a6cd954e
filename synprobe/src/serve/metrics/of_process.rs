//! Metrics of this process, named as the Prometheus client libraries name them.

use super::family::MetricFamily;
use crate::sys::process;

/// What can be read; the others are absent.
pub(super) fn families() -> Vec<MetricFamily> {
    let now = process::read();
    let gauge = |name, help, value: Option<u64>| {
        value.map(|value| MetricFamily::gauge(name, help).with([], value))
    };
    let cpu = now.cpu_seconds.map(|seconds| {
        MetricFamily::counter(
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds",
        )
        .with([], seconds)
    });
    let start = now.start_time_seconds.map(|seconds| {
        MetricFamily::gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds",
        )
        .with([], seconds)
    });
    [
        cpu,
        start,
        gauge(
            "process_open_fds",
            "Number of open file descriptors",
            now.open_fds,
        ),
        gauge(
            "process_max_fds",
            "Maximum number of open file descriptors",
            now.max_fds,
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes",
            now.virtual_memory_bytes,
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes",
            now.resident_memory_bytes,
        ),
        gauge(
            "process_threads",
            "Number of OS threads in the process",
            now.threads,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
