//! Metric families as the encoder takes them.

/// The value of a sample.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::serve) enum Value {
    /// A whole number.
    Whole(u64),
    /// Any number.
    Real(f64),
    /// A histogram: the sum, and for each bucket its upper bound and how many are in it alone.
    Histogram {
        sum: f64,
        count: u64,
        buckets: Vec<(f64, u64)>,
    },
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::serve) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A name and a value.
pub(in crate::serve) type Label = (&'static str, String);

/// All samples of one name.
#[derive(Clone, Debug)]
pub(in crate::serve) struct MetricFamily {
    /// Without the suffix `_total` of a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<(Vec<Label>, Value)>,
}

impl MetricFamily {
    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// A counter; its samples have the suffix `_total`.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    /// A gauge.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    /// A histogram.
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Histogram)
    }

    /// With one more sample.
    pub fn with<const N: usize>(mut self, labels: [Label; N], value: impl Into<Value>) -> Self {
        self.add(labels, value);
        self
    }

    /// One more sample.
    pub fn add<const N: usize>(&mut self, labels: [Label; N], value: impl Into<Value>) {
        self.samples.push((labels.into(), value.into()));
    }

    /// Series of a scraper's database.
    #[cfg(test)]
    pub fn series(&self) -> usize {
        let of = |value: &Value| match value {
            Value::Histogram { buckets, .. } => buckets.len() + 2,
            _ => 1,
        };
        self.samples.iter().map(|(_, value)| of(value)).sum()
    }
}
