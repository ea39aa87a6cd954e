//! Families → text, by the Prometheus client library. It writes OpenMetrics; the older format differs in a few
//! comment lines.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    super::negotiate::TextFormat,
    family::{Kind, Label, MetricFamily, Value},
};

/// Families of one scrape.
#[derive(Debug)]
struct Scrape(Vec<MetricFamily>);

/// Labels as the library takes them.
#[derive(Debug)]
struct Labels<'a>(&'a [Label]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family_encoder =
                encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                let labels = Labels(labels);
                let mut sample = family_encoder.encode_family(&labels)?;
                match (family.kind, value) {
                    (Kind::Counter, Value::Whole(n)) => {
                        sample.encode_counter::<[Label; 0], u64, u64>(n, None)?
                    }
                    (Kind::Counter, Value::Real(n)) => {
                        sample.encode_counter::<[Label; 0], f64, u64>(n, None)?
                    }
                    (_, Value::Whole(n)) => sample.encode_gauge(n)?,
                    (_, Value::Real(n)) => sample.encode_gauge(n)?,
                    (
                        _,
                        Value::Histogram {
                            sum,
                            count,
                            buckets,
                        },
                    ) => {
                        sample.encode_histogram::<[Label; 0]>(*sum, *count, buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The text of these families.
pub(super) fn text(families: Vec<MetricFamily>, format: TextFormat) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(families)));
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    match format {
        TextFormat::OpenMetrics => text,
        TextFormat::Prometheus => as_prometheus(&text),
    }
}

/// OpenMetrics 1.0.0 as Prometheus text format 0.0.4: a counter's family has the name of its samples, and there
/// is no `# EOF`.
fn as_prometheus(text: &str) -> String {
    let counters: std::collections::HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut converted = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest))
                if counters.contains(name) =>
            {
                converted.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => converted.push_str(line),
        }
        converted.push('\n');
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<MetricFamily> {
        vec![
            MetricFamily::counter("a", "A counter").with([("x", "1\"\\\n".to_owned())], 7),
            MetricFamily::gauge("b", "A gauge").with([], 0.5),
        ]
    }

    #[test]
    fn both_formats() {
        let open = text(families(), TextFormat::OpenMetrics);
        assert_eq!(
            open,
            "# HELP a A counter.\n# TYPE a counter\na_total{x=\"1\\\"\\\\\\n\"} 7\n\
             # HELP b A gauge.\n# TYPE b gauge\nb 0.5\n# EOF\n"
                .replace("counter.\n", "counter\n")
                .replace("gauge.\n", "gauge\n")
        );
        let old = text(families(), TextFormat::Prometheus);
        assert_eq!(
            old,
            "# HELP a_total A counter\n# TYPE a_total counter\na_total{x=\"1\\\"\\\\\\n\"} 7\n\
             # HELP b A gauge\n# TYPE b gauge\nb 0.5\n"
        );
    }
}
