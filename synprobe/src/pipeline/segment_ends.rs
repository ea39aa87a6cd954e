//! When a segment of a rolling recording is to be closed.

use super::recorder::RecordTo;

/// SIGUSR1 closes the segment of a rolling recording.
pub(super) struct SegmentEnds(Option<tokio::signal::unix::Signal>);

impl SegmentEnds {
    pub fn new(record: Option<&RecordTo>) -> Self {
        let rolling = matches!(record, Some(RecordTo::Rolling { .. }));
        let kind = tokio::signal::unix::SignalKind::user_defined1();
        Self(
            rolling
                .then(|| tokio::signal::unix::signal(kind).ok())
                .flatten(),
        )
    }

    pub async fn wanted(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}
