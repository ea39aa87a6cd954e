//! Asks the run for its status, at most once a second.

use std::{
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};

use super::{RunStatus, StatusRequest};

/// A status is used again for this time.
const FRESH: Duration = Duration::from_secs(1);
/// A run that does not answer within this time hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct StatusSource {
    requests: mpsc::Sender<StatusRequest>,
    last: Mutex<Option<(Instant, Arc<RunStatus>)>>,
    /// When the run last did not answer.
    failed: StdMutex<Option<Instant>>,
}

impl StatusSource {
    pub fn new(requests: mpsc::Sender<StatusRequest>) -> Self {
        Self {
            requests,
            last: Mutex::new(None),
            failed: StdMutex::default(),
        }
    }

    fn failed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status of the run; `None`: it does not answer, or is over. Requests that come together share one.
    pub async fn status(&self) -> Option<Arc<RunStatus>> {
        self.judging(0).await
    }

    /// The same, with handshakes in progress, judged as if they ended now: at most `judged`.
    pub async fn judging(&self, judged: usize) -> Option<Arc<RunStatus>> {
        let came = Instant::now();
        let mut last = self.last.lock().await;
        // Who waited behind one that waited in vain does not wait as long again.
        if self.failed().is_some_and(|failed| failed >= came) {
            return None;
        }
        if let Some((at, status)) = &*last
            && at.elapsed() < FRESH
            && (judged == 0 || status.judged.is_some())
        {
            return Some(Arc::clone(status));
        }
        let (request, answer) = StatusRequest::judging(judged);
        let asked = async {
            self.requests.send(request).await.ok()?;
            answer.await.ok()
        };
        let Some(status) = timeout(PATIENCE, asked).await.ok().flatten() else {
            *self.failed() = Some(Instant::now());
            return None;
        };
        *last = Some((Instant::now(), Arc::clone(&status)));
        Some(status)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::status::fixtures::status;

    #[tokio::test]
    async fn one_question_for_many_requests_and_none_to_a_run_that_is_over() {
        let (requests, mut asked) = mpsc::channel(1);
        let source = Arc::new(StatusSource::new(requests));
        let many: Vec<_> = (0..8)
            .map(|_| {
                let source = Arc::clone(&source);
                tokio::spawn(async move { source.status().await.is_some() })
            })
            .collect();
        asked.recv().await.unwrap().answer(Arc::new(status()));
        for one in many {
            assert!(one.await.unwrap());
        }
        assert!(asked.try_recv().is_err());
        *source.last.lock().await = None;
        // It hangs: all wait at the same time.
        let began = Instant::now();
        let many: Vec<_> = (0..8)
            .map(|_| {
                let source = Arc::clone(&source);
                tokio::spawn(async move { source.status().await.is_some() })
            })
            .collect();
        for one in many {
            assert!(!one.await.unwrap());
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{:?}", began.elapsed());
        drop(asked);
        *source.last.lock().await = None;
        assert!(source.status().await.is_none());
    }
}
