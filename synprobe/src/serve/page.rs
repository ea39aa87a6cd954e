//! The page at `/`: the report of the last minutes. It is drawn when somebody asks, on a thread beside the one that
//! answers, and is used again for a few seconds: however many ask, it takes a bounded share of a core.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use tokio::sync::Mutex as AsyncMutex;

use super::{OtherOutput, RunStatus, source::StatusSource};
use crate::{
    lang::Lang,
    model::Counted,
    report::{LiveOutput, LiveReport},
    sys::clock::CpuTimer,
};

/// Handshakes in progress that are judged for the page; of more, the oldest of each kind. The run does that between
/// two batches of the ring.
const JUDGED: usize = 1000;
/// A page is used again for this time.
const FRESH: Duration = Duration::from_secs(5);
/// And for this many times the CPU time that it took.
const PAUSE: u32 = 50;
/// A browser asks again after this time, seconds.
const REFRESH_S: u32 = 15;

/// See the module.
pub struct LivePage {
    live: Arc<Mutex<LiveReport>>,
    /// That which asks again by itself, and that which does not.
    drawn: [AsyncMutex<Option<Drawn>>; 2],
}

struct Drawn {
    until: Instant,
    html: Bytes,
}

impl LivePage {
    /// A page that takes about `memory` bytes at most.
    pub fn within(memory: u64, lang: Lang) -> Self {
        Self {
            live: Arc::new(Mutex::new(LiveReport::within(memory, lang))),
            drawn: [AsyncMutex::new(None), AsyncMutex::new(None)],
        }
    }

    /// The output that fills it.
    pub fn output(&self) -> OtherOutput {
        OtherOutput {
            view: Box::new(LiveOutput(Arc::clone(&self.live))),
            uses: Box::new(LiveReport::uses),
        }
    }

    /// Takes in a status that somebody asked for.
    pub(super) fn observe(&self, status: &RunStatus) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.observe(status);
    }

    /// The page. `None`: the run does not answer, or is over. Requests that come together share one.
    pub(super) async fn html(&self, source: &StatusSource, is_still: bool) -> Option<Bytes> {
        let mut drawn = self.drawn[usize::from(is_still)].lock().await;
        if let Some(drawn) = &*drawn
            && Instant::now() < drawn.until
        {
            return Some(drawn.html.clone());
        }
        let status = source.judging(JUDGED).await?;
        self.observe(&status);
        let live = Arc::clone(&self.live);
        let refresh_s = (!is_still).then_some(REFRESH_S);
        let task = tokio::task::spawn_blocking(move || {
            let timer = CpuTimer::begin();
            // Only its copy is made while the output waits.
            let report = live
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .at(&status, refresh_s);
            (
                report.map(|report| report.html(&Counted::default())),
                timer.took(),
            )
        });
        // It panicked, or the runtime ends; or the first line of the run has not come yet.
        let (html, took) = task.await.ok()?;
        let html = Bytes::from(html?);
        *drawn = Some(Drawn {
            until: Instant::now() + FRESH.max(took * PAUSE),
            html: html.clone(),
        });
        Some(html)
    }
}
