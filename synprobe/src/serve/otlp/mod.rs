//! Metrics and log records for an OpenTelemetry collector, over OTLP/HTTP with protobuf (docs/serve.md).
//!
//! A thread of its own sends them. Metrics and log records have a queue each, bounded; what finds no room, is
//! refused, or is left at the end is counted, and a line says so. The run waits for neither.

mod client;
mod endpoint;
mod instruments;
mod lane;
pub(super) mod losses;
mod messages;
mod queue;
mod records;
mod report;

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use prost::Message;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use client::CollectorClient;
pub use endpoint::OtlpUrl;
use instruments::PointTimes;
use lane::Lane;
use losses::OtlpLosses;
use messages::{
    InstrumentationScope, KeyValue, LogsRequest, MetricsRequest, Resource, ResourceLogs,
    ResourceMetrics, ScopeLogs, ScopeMetrics,
};
use queue::{QueueLimits, Queued, SendQueue};
use records::LogRecords;
use report::LaneReport;

use super::{OtherOutput, RunStatus, reply::Replier};
use crate::{
    model::HostIdentity,
    sys::{
        host_identity,
        journal::{Priority, message},
    },
};

/// Log records: so many wait while the collector does not take them.
const RECORDS: QueueLimits = QueueLimits {
    entries: 16_384,
    bytes: 8 << 20,
    batch: 512,
    batch_bytes: 512 << 10,
    gather: Duration::from_secs(1),
};
/// Metrics: each entry is a whole request.
const POINTS: QueueLimits = QueueLimits {
    entries: 16,
    bytes: 8 << 20,
    batch: 1,
    batch_bytes: 8 << 20,
    gather: Duration::ZERO,
};
/// At the end of the run, what waits has this time.
const LAST_TIME: Duration = Duration::from_secs(3);
const NAME: &str = "synprobe";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What goes to a collector, before the thread that sends it.
pub struct OtlpOutput {
    target: Arc<OtlpUrl>,
    interval: Duration,
    exported: Exported,
    losses: OtlpLosses,
}

impl OtlpOutput {
    /// To `target`, metrics every `interval`. Counters begin now.
    pub fn new(target: OtlpUrl, interval: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            target: Arc::new(target),
            interval,
            exported: Exported {
                resource: resource(&host_identity::read()),
                start: now.map_or(0, |now| now.as_nanos() as u64),
            },
            losses: OtlpLosses::of(SendQueue::new(RECORDS), SendQueue::new(POINTS)),
        }
    }

    /// The output that takes the lines. `every`: they include those of healthy handshakes.
    pub fn output(&self, every: bool) -> OtherOutput {
        OtherOutput {
            view: Box::new(LogRecords {
                queue: Arc::clone(&self.losses.records),
                every,
            }),
            uses: Box::new(move |line| records::is_sent(line, every)),
        }
    }

    pub(super) fn losses(&self) -> OtlpLosses {
        self.losses.clone()
    }

    /// Begins the thread.
    ///
    /// # Errors
    ///
    /// The thread or its runtime cannot be created.
    pub fn begin(self, replier: Arc<Replier>) -> io::Result<OtlpSending> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build()?;
        let (close, closing) = watch::channel(false);
        let sending = OtlpSending {
            exported: self.exported.clone(),
            losses: self.losses.clone(),
            replier: Arc::clone(&replier),
            close,
            thread: None,
        };
        let thread = thread::Builder::new()
            .name("synprobe-otlp".into())
            .spawn(move || {
                runtime.block_on(self.send(&replier, closing));
                // A name that is being resolved is waited for by nobody.
                runtime.shutdown_background();
            })?;
        Ok(OtlpSending {
            thread: Some(thread),
            ..sending
        })
    }

    async fn send(self, replier: &Replier, mut closing: watch::Receiver<bool>) {
        let lane = |path, queue: &Arc<SendQueue>| Lane {
            client: CollectorClient::new(Arc::clone(&self.target), path),
            queue: Arc::clone(queue),
            report: LaneReport::default(),
            closing: closing.clone(),
        };
        let (records, points) = (&self.losses.records, &self.losses.points);
        let mut logs = lane(self.target.logs_path(), records);
        let mut metrics = lane(self.target.metrics_path(), points);
        let ends = async {
            // The sender goes with the run.
            let _ = closing.wait_for(|closing| *closing).await;
            tokio::time::sleep(LAST_TIME).await;
        };
        let exported = &self.exported;
        let both = async {
            tokio::join!(
                logs.run(|batch| exported.logs(batch)),
                metrics.run(|batch| batch
                    .into_iter()
                    .map(|entry| entry.bytes)
                    .next()
                    .unwrap_or_default()),
            );
        };
        let reading = read_metrics(replier, exported, points, self.interval);
        tokio::select! {
            () = both => (),
            () = ends => (),
            () = reading => (),
        }
        records.abandon();
        points.abandon();
    }
}

/// Reads the metrics again and again; never ends.
async fn read_metrics(replier: &Replier, exported: &Exported, queue: &SendQueue, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Without one the run hangs or is over: what is known then comes at the end.
        if let Some(status) = replier.source.status().await {
            let sockets = replier.sockets.read().await;
            let families = replier.metrics.families(&status, sockets.as_deref());
            queue.push(exported.metrics(&families, &status));
        }
    }
}

/// What all requests have in common.
#[derive(Clone)]
struct Exported {
    resource: Resource,
    /// When the counters began, nanoseconds since 1970.
    start: u64,
}

impl Exported {
    fn metrics(
        &self,
        families: &[super::metrics::family::MetricFamily],
        status: &RunStatus,
    ) -> Queued {
        let now = status.clock.realtime_ns(status.at_ns);
        let times = PointTimes {
            start: self.start,
            now: u64::try_from(now).unwrap_or(0).max(self.start),
        };
        let (metrics, items) = instruments::metrics(families, times);
        let request = MetricsRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope()),
                    metrics,
                }],
            }],
        };
        Queued {
            bytes: request.encode_to_vec().into(),
            items,
        }
    }

    fn logs(&self, batch: Vec<Queued>) -> Bytes {
        let request = LogsRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource.clone()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(scope()),
                    log_records: batch.into_iter().map(|entry| entry.bytes).collect(),
                }],
            }],
        };
        request.encode_to_vec().into()
    }
}

fn resource(host: &HostIdentity) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", NAME),
        KeyValue::new("service.version", VERSION),
    ];
    for (key, value) in [("host.name", &host.hostname), ("host.id", &host.machine_id)] {
        attributes.extend(value.as_deref().map(|value| KeyValue::new(key, value)));
    }
    Resource { attributes }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: NAME.to_owned(),
        version: VERSION.to_owned(),
    }
}

/// The thread that sends.
pub struct OtlpSending {
    exported: Exported,
    losses: OtlpLosses,
    replier: Arc<Replier>,
    close: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OtlpSending {
    /// Sends what is left, with the run's last status, for a few seconds at most. A line says what was not taken.
    pub fn finish(mut self, last: Option<&RunStatus>) {
        let before = self.losses.kinds();
        if let Some(status) = last {
            let families = self.replier.metrics.families(status, None);
            let request = self.exported.metrics(&families, status);
            self.losses.points.push(request);
        }
        self.losses.records.close();
        self.losses.points.close();
        let _ = self.close.send(true);
        if let Some(thread) = self.thread.take() {
            // It ends within its time.
            let _ = thread.join();
        }
        let after = self.losses.kinds();
        let [records, points] = [0, 1].map(|at| after[at].1 - before[at].1);
        if records + points > 0 {
            let text = format!(
                "OTLP: not delivered at the end: {records} log records, {points} data points"
            );
            message(Priority::Warning, &text);
        }
    }
}

#[cfg(test)]
mod tests;
