//! What the last line of a join has.

use serde::Serialize;

use crate::join::{pair::utc, survey::SideSurvey};

/// One side in the summary.
#[derive(Serialize)]
pub(super) struct JoinSideSummary {
    pub(super) file: String,
    pub(super) hostname: Option<String>,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) active_opens: u64,
    pub(super) passive_opens: u64,
    pub(super) lists_every_handshake: bool,
    pub(super) gaps: u64,
}

impl JoinSideSummary {
    pub(super) fn of(file: String, survey: &SideSurvey) -> Self {
        let coverage = &survey.coverage;
        let span = coverage.span();
        Self {
            file,
            hostname: coverage
                .runs
                .first()
                .and_then(|run| run.start.hostname.clone()),
            since: span.map(|(from, _)| utc(from)),
            until: span.map(|(_, to)| utc(to)),
            active_opens: survey.client.handshakes,
            passive_opens: survey.server.handshakes,
            lists_every_handshake: coverage.reports_all(),
            gaps: coverage.gaps.len() as u64,
        }
    }
}

/// What the `join` line has.
#[derive(Serialize)]
pub(super) struct JoinSummary {
    pub(super) client: JoinSideSummary,
    pub(super) server: JoinSideSummary,
    pub(super) swapped: bool,
    pub(super) joined: u64,
    pub(super) client_only: u64,
    pub(super) server_only: u64,
    pub(super) clock_offset_us: Option<i64>,
    pub(super) clock_error_us: Option<i64>,
    pub(super) clock_drift_ppm: Option<f64>,
}
