//! A recording in place of the kernel, for every verb that takes `--replay`.

use std::{path::Path, time::Duration};

use super::{FAILED, Failure, USAGE};
use crate::{
    cli::SelectArgs,
    pipeline::{self, Recording, ReplayError, ReplayOptions, Replayed},
    sys::journal::{Priority, message},
    verdict::Mode,
    view::View,
};

/// What is asked of a recording.
pub(super) struct Asked<'a> {
    pub select: &'a SelectArgs,
    pub mode: Mode,
    pub duration: Option<Duration>,
    pub count: Option<u64>,
}

/// Replays `file` into `view`. What the recording does not hold, and what of it cannot be read, is one line on
/// standard error.
pub(super) fn replay(
    file: &Path,
    asked: &Asked<'_>,
    view: &mut dyn View,
) -> Result<Replayed, Failure> {
    let recording = Recording::open(file).map_err(failure)?;
    if let Some(line) = what_is_missing(&recording) {
        message(Priority::Warning, &line);
    }
    let options = ReplayOptions {
        file: file.to_owned(),
        selection: asked.select.selection(),
        netns: asked.select.netns.clone(),
        mode: asked.mode,
        duration: asked.duration,
        count: asked.count,
        tables: None,
    };
    let replayed = pipeline::replay(recording, &options, view).map_err(failure)?;
    if let Some(line) = &replayed.damage {
        let text = format!("{}: {line}", file.to_string_lossy());
        message(Priority::Warning, &text);
    }
    Ok(replayed)
}

/// What nobody can ask this recording for.
pub(super) fn what_is_missing(recording: &Recording) -> Option<String> {
    let config = &recording.config;
    let mut parts = Vec::new();
    if config.detail().slow_us().is_some() {
        parts.push("in quiet mode, so healthy handshakes are only counted".to_owned());
    }
    let filters: Vec<String> = config
        .selection()
        .describe()
        .iter()
        .map(|(name, value)| format!("--{} {value}", name.replace('_', "-")))
        .collect();
    if !filters.is_empty() {
        parts.push(format!(
            "with {}, so it holds nothing else",
            filters.join(" ")
        ));
    }
    (!parts.is_empty()).then(|| format!("this was recorded {}", parts.join(", and ")))
}

pub(super) fn failure(error: ReplayError) -> Failure {
    let code = match error {
        ReplayError::Output(_) | ReplayError::Thread(_) => FAILED,
        _ => USAGE,
    };
    Failure(error.to_string(), code)
}
