//! Lines → log records: handshakes in trouble, problems, and what was lost. An output as every other: it runs
//! on its subscriber's thread, and never waits for the collector.

use std::{
    io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;
use serde_json::Value;

use super::{
    messages::{AnyValue, KeyValue, KeyValueList, LogRecord, OneValue, ValueList},
    queue::{Queued, SendQueue},
};
use crate::{
    model::{Body, Handshake, Line, Missed, Outcome, ProblemState, WallClock},
    view::{self, View},
};

/// `SEVERITY_NUMBER_INFO` and `SEVERITY_NUMBER_WARN`
const INFO: (i32, &str) = (9, "INFO");
const WARN: (i32, &str) = (13, "WARN");

/// See the module.
pub(super) struct LogRecords {
    pub queue: Arc<SendQueue>,
    /// Every handshake has a line, also the healthy ones.
    pub every: bool,
}

/// Whether a line becomes a log record. `every`: as in [`LogRecords`].
pub(super) fn is_sent(line: &Line, every: bool) -> bool {
    match &line.body {
        Body::Handshake(h) => !every || in_trouble(h),
        Body::Problem(_) | Body::Lost(_) => true,
        _ => false,
    }
}

impl View for LogRecords {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        for line in lines.iter().filter(|line| is_sent(line, self.every)) {
            // Lines that this very output lost.
            if let Body::Lost(lost) = &line.body
                && lost.of == Missed::Output
            {
                self.queue.lose(lost.events);
            }
            let record = record(line, clock)?;
            self.queue.push(Queued {
                bytes: record.encode_to_vec().into(),
                items: 1,
            });
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn in_trouble(h: &Handshake) -> bool {
    h.outcome != Outcome::Established || h.verdict.is_some() || h.retransmits > 0
}

/// The line with its fields as attributes.
fn record(line: &Line, clock: WallClock) -> io::Result<LogRecord> {
    let json = view::line_to_json(line, clock)?;
    let fields: Value = serde_json::from_slice(&json).map_err(io::Error::other)?;
    let Value::Object(fields) = fields else {
        return Err(io::Error::other("a line is an object"));
    };
    let kind = fields.get("type").and_then(Value::as_str);
    let kind = kind.unwrap_or_default().to_owned();
    let (severity_number, severity_text) = severity(&line.body);
    let fields = fields.into_iter().filter_map(attribute);
    let event = KeyValue::new("event.name", kind.as_str());
    let observed = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(LogRecord {
        time_unix_nano: u64::try_from(clock.realtime_ns(line.mono_ns)).unwrap_or(0),
        observed_time_unix_nano: observed.map_or(0, |time| time.as_nanos() as u64),
        severity_number,
        severity_text: severity_text.to_owned(),
        body: Some(summary(&line.body).into()),
        attributes: fields.chain([event]).collect(),
        event_name: kind,
    })
}

fn severity(body: &Body) -> (i32, &'static str) {
    match body {
        Body::Problem(p) if p.life.state == ProblemState::Closed => INFO,
        Body::Handshake(h) if h.outcome == Outcome::Established => INFO,
        _ => WARN,
    }
}

/// For people: the body of the record.
fn summary(body: &Body) -> String {
    match body {
        Body::Handshake(h) => match h.verdict {
            Some(verdict) => format!("handshake {}: {}", h.outcome.name(), verdict.name()),
            None => format!("handshake {}", h.outcome.name()),
        },
        Body::Problem(p) => {
            let (state, verdict) = (p.life.state.name(), p.verdict_name());
            format!("problem {state}: {verdict} ({})", p.confidence.name())
        }
        Body::Lost(lost) => format!("{} lost: {}", lost.events, lost.reason),
        _ => String::new(),
    }
}

/// `None`: null, which is an absent attribute.
fn attribute((key, value): (String, Value)) -> Option<KeyValue> {
    Some(KeyValue {
        key,
        value: Some(any(value)?),
    })
}

fn any(value: Value) -> Option<AnyValue> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(value) => OneValue::Bool(value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => OneValue::Int(number),
            // OTLP has no unsigned numbers.
            (None, _) if number.is_u64() => OneValue::Text(number.to_string()),
            (None, Some(number)) => OneValue::Double(number),
            (None, None) => return None,
        },
        Value::String(text) => OneValue::Text(text),
        Value::Array(values) => OneValue::Array(ValueList {
            values: values.into_iter().filter_map(any).collect(),
        }),
        Value::Object(fields) => OneValue::Object(KeyValueList {
            values: fields.into_iter().filter_map(attribute).collect(),
        }),
    };
    Some(value.into())
}
