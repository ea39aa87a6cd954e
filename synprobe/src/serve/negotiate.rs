//! The format of `/metrics` by the request's `Accept` header (RFC 9110, section 12.5.1).

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextFormat {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl TextFormat {
    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The one that `accept` prefers. Without preference, and for any other header, it is the older one.
    pub fn preferred(accept: &str) -> Self {
        let (mut open_metrics, mut prometheus) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality = 1000;
            let mut version = None;
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = thousandths(value.trim()),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => (),
                }
            }
            let best = match media.as_str() {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                    &mut open_metrics
                }
                "text/plain" if matches!(version, None | Some("0.0.4")) => &mut prometheus,
                _ => continue,
            };
            *best = quality.max(*best);
        }
        match open_metrics > prometheus {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }
}

/// A weight of `0.123`, in thousandths; 0 for what is none.
fn thousandths(text: &str) -> u32 {
    let weight: f64 = text.parse().unwrap_or(0.0);
    (weight.clamp(0.0, 1.0) * 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_scrapers_ask() {
        let open = TextFormat::OpenMetrics;
        let text = TextFormat::Prometheus;
        let cases = [
            // Prometheus 2.53 and 3.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                 version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                open,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;\
                 escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
                 */*;q=0.2",
                open,
            ),
            (
                "text/plain;version=0.0.4;q=0.9, application/openmetrics-text; q=0.1",
                text,
            ),
            ("application/openmetrics-text; version=2.0.0", text),
            (
                "application/openmetrics-text; version=\"1.0.0\"; charset=utf-8",
                open,
            ),
            ("application/openmetrics-text;q=0", text),
            ("*/*", text),
            ("", text),
            (";;,=;q=x,,", text),
        ];
        for (accept, wanted) in cases {
            assert_eq!(TextFormat::preferred(accept), wanted, "{accept}");
        }
    }
}
