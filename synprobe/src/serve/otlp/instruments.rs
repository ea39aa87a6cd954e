//! Metric families → OTLP. Names and attributes are those of OpenTelemetry's conventions where one exists: the
//! proposal for TCP (open-telemetry/semantic-conventions issue 3682), `system.network.connection.count` and
//! `process.*`. All others begin with `synprobe.`.

use super::{
    super::metrics::family::{Kind, Label, MetricFamily, Value},
    messages::{
        CUMULATIVE, GaugePoints, HistogramPoint, HistogramPoints, KeyValue, MetricData,
        NumberPoint, NumberValue, OtlpMetric, SumPoints,
    },
};

/// Family, instrument, unit (UCUM).
type Instrument = (&'static str, &'static str, &'static str);

const INSTRUMENTS: &[Instrument] = &[
    ("synprobe_build_info", "synprobe.build.info", "1"),
    (
        "synprobe_handshake_duration_seconds",
        "system.network.tcp.handshake.duration",
        "s",
    ),
    (
        "synprobe_handshakes",
        "system.network.tcp.connections",
        "{connection}",
    ),
    (
        "synprobe_handshake_verdicts",
        "synprobe.handshake.verdicts",
        "{connection}",
    ),
    (
        "synprobe_retransmits",
        "system.network.tcp.retransmits",
        "{segment}",
    ),
    ("synprobe_half_open", "synprobe.half_open", "{connection}"),
    (
        "synprobe_oldest_half_open_seconds",
        "synprobe.oldest_half_open",
        "s",
    ),
    ("synprobe_syn_sent", "synprobe.syn_sent", "{connection}"),
    (
        "synprobe_oldest_syn_sent_seconds",
        "synprobe.oldest_syn_sent",
        "s",
    ),
    (SOCKETS, "system.network.connection.count", "{connection}"),
    (
        "synprobe_listener_accept_queue",
        "synprobe.listener.accept_queue.length",
        "{connection}",
    ),
    (
        "synprobe_listener_accept_queue_limit",
        "synprobe.listener.accept_queue.limit",
        "{connection}",
    ),
    (
        "synprobe_listener_syn_queue",
        "synprobe.listener.syn_queue.length",
        "{connection}",
    ),
    (
        "synprobe_listener_syn_queue_limit",
        "synprobe.listener.syn_queue.limit",
        "{connection}",
    ),
    (
        "synprobe_listener_drops",
        "synprobe.listener.drops",
        "{packet}",
    ),
    (
        "synprobe_accept_wait_seconds",
        "synprobe.accept_wait.duration",
        "s",
    ),
    (
        "synprobe_syn_cookies_sent",
        "synprobe.syn_cookies.sent",
        "{packet}",
    ),
    (
        "synprobe_listen_overflows",
        "system.network.tcp.accept_queue.overflows",
        "{event}",
    ),
    (
        "synprobe_handshake_drops",
        "synprobe.handshake.drops",
        "{packet}",
    ),
    ("synprobe_problems", "synprobe.problems", "{problem}"),
    ("synprobe_lost_records", "synprobe.lost_records", "{record}"),
    (
        "synprobe_series_limited",
        "synprobe.series_limited",
        "{timeseries}",
    ),
    ("process_cpu_seconds", "process.cpu.time", "s"),
    (
        "process_start_time_seconds",
        "synprobe.process.start_time",
        "s",
    ),
    (
        "process_open_fds",
        "process.unix.file_descriptor.count",
        "{file_descriptor}",
    ),
    (
        "process_max_fds",
        "synprobe.process.file_descriptor.limit",
        "{file_descriptor}",
    ),
    (
        "process_virtual_memory_bytes",
        "process.memory.virtual",
        "By",
    ),
    (
        "process_resident_memory_bytes",
        "process.memory.usage",
        "By",
    ),
    ("process_threads", "process.thread.count", "{thread}"),
];

/// The family that OpenTelemetry has as an UpDownCounter.
const SOCKETS: &str = "synprobe_tcp_sockets";
/// Families of TCP, which have the attribute `network.transport`.
const OF_TCP: &str = "system.network.";

/// Nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct PointTimes {
    /// When the counters began.
    pub start: u64,
    pub now: u64,
}

/// The metrics of these families, and how many data points they have.
pub(super) fn metrics(families: &[MetricFamily], times: PointTimes) -> (Vec<OtlpMetric>, u64) {
    let points = families.iter().map(|family| family.samples.len() as u64);
    let metrics = families.iter().map(|family| metric(family, times));
    (metrics.collect(), points.sum())
}

fn metric(family: &MetricFamily, times: PointTimes) -> OtlpMetric {
    let known = INSTRUMENTS.iter().find(|(name, ..)| *name == family.name);
    // A test has all of them in the table.
    let (_, name, unit) = known.copied().unwrap_or((family.name, family.name, "1"));
    let numbers = || {
        let points = family.samples.iter().filter_map(|(labels, value)| {
            let value = match value {
                Value::Whole(n) => NumberValue::AsInt(i64::try_from(*n).unwrap_or(i64::MAX)),
                Value::Real(n) => NumberValue::AsDouble(*n),
                Value::Histogram { .. } => return None,
            };
            Some(NumberPoint {
                attributes: attributes(family.name, name, labels),
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                value: Some(value),
            })
        });
        points.collect()
    };
    let data = match family.kind {
        Kind::Gauge if family.name == SOCKETS => MetricData::Sum(SumPoints {
            data_points: numbers(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: false,
        }),
        Kind::Gauge => MetricData::Gauge(GaugePoints {
            data_points: numbers(),
        }),
        Kind::Counter => MetricData::Sum(SumPoints {
            data_points: numbers(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Kind::Histogram => MetricData::Histogram(HistogramPoints {
            data_points: histograms(family, name, times),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    OtlpMetric {
        name: name.to_owned(),
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
    }
}

fn histograms(family: &MetricFamily, name: &str, times: PointTimes) -> Vec<HistogramPoint> {
    let points = family.samples.iter().filter_map(|(labels, value)| {
        let Value::Histogram {
            sum,
            count,
            buckets,
        } = value
        else {
            return None;
        };
        let bounds = buckets.iter().map(|(bound, _)| *bound);
        Some(HistogramPoint {
            attributes: attributes(family.name, name, labels),
            start_time_unix_nano: times.start,
            time_unix_nano: times.now,
            count: *count,
            sum: Some(*sum),
            bucket_counts: buckets.iter().map(|(_, count)| *count).collect(),
            // The last bucket ends at infinity, which is not named.
            explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
        })
    });
    points.collect()
}

fn attributes(family: &str, name: &str, labels: &[Label]) -> Vec<KeyValue> {
    let of_tcp = name.starts_with(OF_TCP);
    let transport = of_tcp.then(|| KeyValue::new("network.transport", "tcp"));
    let of_labels = labels
        .iter()
        .filter_map(|(key, value)| of_label(family, key, value));
    transport.into_iter().chain(of_labels).collect()
}

/// The attribute of a label; `None` where its absence has the meaning.
fn of_label(family: &str, key: &str, value: &str) -> Option<KeyValue> {
    let text = |key: &str| Some(KeyValue::new(key, value));
    match (key, family) {
        // "other" is no port.
        ("port", _) => value
            .parse()
            .ok()
            .map(|port: i64| KeyValue::new("server.port", port)),
        // A handshake that completes has no error.
        ("outcome", _) if value == "established" => None,
        ("outcome", _) => text("error.type"),
        ("role", _) => text("network.tcp.handshake.role"),
        ("kind", "synprobe_retransmits") => {
            let kind = match value {
                "rto" => "timeout",
                "tlp" => "tail_loss_probe",
                other => other,
            };
            Some(KeyValue::new("network.tcp.retransmit.type", kind))
        }
        ("kind", _) => text("synprobe.lost.kind"),
        ("state", _) => Some(KeyValue::new("network.connection.state", state(value))),
        ("direction", _) => {
            let direction = match value {
                "in" => "receive",
                _ => "transmit",
            };
            Some(KeyValue::new("network.io.direction", direction))
        }
        ("reason", _) => text("synprobe.drop.reason"),
        (key, _) => Some(KeyValue::new(format!("synprobe.{key}"), value)),
    }
}

/// The kernel's state by OpenTelemetry's name (`network.connection.state`).
fn state(kernel: &str) -> &str {
    match kernel {
        "syn_recv" => "syn_received",
        "fin_wait1" => "fin_wait_1",
        "fin_wait2" => "fin_wait_2",
        "close" => "closed",
        same => same,
    }
}
