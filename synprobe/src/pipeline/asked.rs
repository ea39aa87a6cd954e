//! Who asks the run for its status: `synprobe serve` at a scrape, `synprobe top` for a frame.

use std::{sync::Arc, time::Instant};

use crate::status::{RunStatus, StatusQueries, StatusRequest, StatusRequests};

/// Requests for the status of a run.
pub(super) struct StatusAnswers {
    /// `None`: nobody asks, or nobody will any more.
    requests: Option<StatusRequests>,
    pub(super) most_open: Option<usize>,
    /// The last one, and until when it is used again.
    pub(super) last: Option<(Arc<RunStatus>, Instant)>,
}

impl StatusAnswers {
    pub fn new(queries: Option<StatusQueries>) -> Self {
        let most_open = queries.as_ref().and_then(|queries| queries.most_open);
        Self {
            requests: queries.map(|queries| queries.requests),
            most_open,
            last: None,
        }
    }

    /// Other problems are open than those of the last status.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// The next request; never, if nobody asks.
    pub async fn next(&mut self) -> StatusRequest {
        if let Some(requests) = &mut self.requests {
            match requests.recv().await {
                Some(request) => return request,
                None => self.requests = None,
            }
        }
        std::future::pending().await
    }
}
