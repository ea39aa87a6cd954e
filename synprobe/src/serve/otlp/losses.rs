//! What was not delivered, for the metrics.

use std::sync::Arc;

use super::queue::SendQueue;

/// What was not delivered, and never will be: both queues count their own.
#[derive(Clone)]
pub struct OtlpLosses {
    /// Log records.
    pub(super) records: Arc<SendQueue>,
    /// Data points of metrics.
    pub(super) points: Arc<SendQueue>,
}

impl OtlpLosses {
    /// Of these queues, of which none has lost anything yet.
    pub(super) fn of(records: SendQueue, points: SendQueue) -> Self {
        Self {
            records: Arc::new(records),
            points: Arc::new(points),
        }
    }

    /// By the kinds of `synprobe_lost_records`: log records, and data points of metrics.
    pub fn kinds(&self) -> [(&'static str, u64); 2] {
        [
            ("otlp", self.records.lost()),
            ("otlp_points", self.points.lost()),
        ]
    }
}
