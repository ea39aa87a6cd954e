use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        metrics::{Metrics, family::Value, tests::crowded},
        sockets::ByState,
    },
    messages::{CUMULATIVE, MetricData, NumberValue, OneValue},
    *,
};
use crate::{
    model::{AcceptCounts, Body, Handshake, Line, Lost, Missed, Outcome, WallClock},
    status::fixtures::{problem, status},
    verdict::fixtures::active,
};

const TIMES: PointTimes = PointTimes { start: 1, now: 2 };

fn everything() -> RunStatus {
    let mut status = crowded(5, 2000);
    status.snapshot.host.syn_cookies_sent = Some(3);
    status.snapshot.host.listen_overflows = Some(4);
    status.snapshot.accept_counts = vec![AcceptCounts {
        port: 1,
        ..AcceptCounts::default()
    }];
    status
}

/// The sum of what an instrument or a family has.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    points: usize,
    whole: i64,
    histograms: u64,
}

#[test]
fn each_family_has_an_instrument_with_the_same_sums() {
    let output = OtlpOutput::new("http://c".parse().unwrap(), Duration::from_secs(1));
    let families =
        Metrics::new(Some(output.losses())).families(&everything(), Some(&ByState::default()));
    assert!(families.len() >= 25, "{}", families.len());
    let (metrics, points) = instruments::metrics(&families, TIMES);
    let mut names = BTreeSet::new();
    let mut all = 0;
    for (family, metric) in families.iter().zip(&metrics) {
        assert!(
            metric.name.contains('.') && !metric.unit.is_empty(),
            "{metric:?}"
        );
        assert!(names.insert(&metric.name), "twice: {}", metric.name);
        let mut wanted = Sums::default();
        for (_, value) in &family.samples {
            wanted.points += 1;
            match value {
                Value::Whole(n) => wanted.whole += *n as i64,
                Value::Real(_) => (),
                Value::Histogram { count, .. } => wanted.histograms += count,
            }
        }
        let mut found = Sums::default();
        let mut attributes = Vec::new();
        match metric.data.as_ref().unwrap() {
            MetricData::Gauge(gauge) => numbers(&gauge.data_points, &mut found, &mut attributes),
            MetricData::Sum(sum) => {
                assert_eq!(sum.aggregation_temporality, CUMULATIVE);
                numbers(&sum.data_points, &mut found, &mut attributes);
            }
            MetricData::Histogram(histogram) => {
                for point in &histogram.data_points {
                    found.points += 1;
                    found.histograms += point.count;
                    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    attributes.push(format!("{:?}", point.attributes));
                }
            }
        }
        assert_eq!(found, wanted, "{}", metric.name);
        all += found.points as u64;
        let different: BTreeSet<&String> = attributes.iter().collect();
        assert_eq!(different.len(), attributes.len(), "{attributes:?}");
    }
    assert_eq!(points, all);
}

fn numbers(points: &[messages::NumberPoint], found: &mut Sums, attributes: &mut Vec<String>) {
    for point in points {
        found.points += 1;
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        if let Some(NumberValue::AsInt(n)) = point.value {
            found.whole += n;
        }
        attributes.push(format!("{:?}", point.attributes));
    }
}

#[test]
fn a_completed_handshake_has_no_error_and_other_ports_have_none() {
    let families = Metrics::default().families(&crowded(3000, 90_000), None);
    let (metrics, _) = instruments::metrics(&families, TIMES);
    let ended = metrics
        .iter()
        .find(|metric| metric.name == "system.network.tcp.connections");
    let Some(MetricData::Sum(sum)) = ended.and_then(|metric| metric.data.as_ref()) else {
        panic!("no counter");
    };
    let key = |point: &messages::NumberPoint, key: &str| {
        let found = point.attributes.iter().find(|a| a.key == key);
        found.and_then(|a| a.value.clone()?.value)
    };
    let mut seen = BTreeMap::new();
    for point in &sum.data_points {
        let kind = (
            key(point, "error.type").is_some(),
            key(point, "server.port").is_some(),
        );
        *seen.entry(kind).or_insert(0) += 1;
        let transport = key(point, "network.transport");
        assert_eq!(transport, Some(OneValue::Text("tcp".to_owned())));
        assert!(key(point, "network.tcp.handshake.role").is_some());
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_line_is_a_record_with_its_fields() {
    let output = OtlpOutput::new("http://c".parse().unwrap(), Duration::from_secs(1));
    let mut view = output.output(false).view;
    let lost = Lost {
        events: 7,
        reason: "a test".to_owned(),
        of: Missed::Output,
    };
    let lines = [
        Body::Problem(Box::new(problem("a name"))),
        Body::Lost(lost),
        Body::Start(status().snapshot.start),
    ];
    let lines = lines.map(|body| Line { mono_ns: 5, body });
    view.show(&lines, WallClock::default()).unwrap();
    // What this output lost before is counted; `start` is none of its lines.
    assert_eq!(output.losses.kinds(), [("otlp", 7), ("otlp_points", 0)]);
    output.losses.records.close();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let batch = runtime
        .block_on(output.losses.records.next_batch())
        .unwrap();
    assert_eq!(batch.len(), 2);
    let record = messages::LogRecord::decode(batch[0].bytes.clone()).unwrap();
    assert_eq!(
        (record.event_name.as_str(), record.time_unix_nano),
        ("problem", 5)
    );
    let of = |key: &str| {
        let found = record.attributes.iter().find(|a| a.key == key);
        found.and_then(|a| a.value.clone()?.value)
    };
    let text = |text: &str| Some(OneValue::Text(text.to_owned()));
    assert_eq!(of("event.name"), text("problem"));
    assert_eq!(of("comm"), text("a name"));
    assert_eq!(of("v"), Some(OneValue::Int(1)));
    assert!(matches!(of("evidence"), Some(OneValue::Array(list)) if list.values.len() == 1));
    // null is absent.
    assert!(!record.attributes.iter().any(|a| a.value.is_none()));
}

#[test]
fn healthy_handshakes_are_no_records() {
    let line = |outcome, retransmits| Line {
        mono_ns: 1,
        body: Body::Handshake(Box::new(Handshake {
            retransmits,
            ..active(outcome)
        })),
    };
    let healthy = line(Outcome::Established, 0);
    assert!(!records::is_sent(&healthy, true));
    // It took longer than --slow: else it would have no line.
    assert!(records::is_sent(&healthy, false));
    assert!(records::is_sent(&line(Outcome::Established, 1), true));
    assert!(records::is_sent(&line(Outcome::TimedOut, 0), true));
}
