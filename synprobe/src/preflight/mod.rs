//! What this host allows, what is missing, and the remedy.
//!
//! [`report`] makes every check and lists all results. [`require`] makes only the checks that a run
//! depends on, stops at the first failure, and returns what they found.

mod attempt;
mod checks;
mod host;
mod privileges;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use serde::Serialize;
use synprobe_ebpf::config::MEMBERS;
use thiserror::Error;

pub use host::{Attempt, HostAccess, ThisHost};
use privileges::Privileges;

use crate::{
    filter::Detail,
    probe::{
        drop_reasons::Reasons,
        half_open_source::{Decision, HalfOpenSources, Refusal, RequestedMode},
        hooks::{Chosen, HOOKS, Hook},
    },
    sys::kernel::KernelVersion,
    util::fill::fill,
};

/// The exit code where the host cannot run synprobe (docs/events.md).
pub const EXIT_HOST: u8 = 3;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Available.
    Ok,
    /// synprobe runs without it: see [`Check::lost`].
    Degraded,
    /// synprobe cannot run without it.
    Missing,
    /// For information: nothing depends on it.
    Note,
    /// Testing it needs more privileges.
    Untested,
}

impl Status {
    /// The label in the text of [`PreflightReport`].
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "MISSING",
            Self::Note => "note",
            Self::Untested => "untested",
        }
    }
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name, for scripts.
    pub id: String,
    /// Its name in the text.
    pub title: String,
    /// The result.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// What synprobe cannot report without it.
    pub lost: Option<String>,
}

impl Check {
    fn new(id: &str, title: &str, status: Status, detail: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            remedy: None,
            lost: None,
        }
    }

    fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn with_lost(mut self, lost: impl Into<String>) -> Self {
        self.lost = Some(lost.into());
        self
    }
}

/// The summary of all checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Everything is available.
    CanRun,
    /// Some features are not available here.
    CanRunWithLess,
    /// Something is missing that every run needs.
    CannotRun,
}

/// What this host allows. The text has one line a check, with the remedy on the line below, and ends with
/// the summary.
#[derive(Clone, Debug, Serialize)]
pub struct PreflightReport {
    verdict: Readiness,
    /// In the order of their dependencies.
    pub checks: Vec<Check>,
}

impl PreflightReport {
    fn new(checks: Vec<Check>) -> Self {
        let any = |status| checks.iter().any(|c| c.status == status);
        let verdict = if any(Status::Missing) {
            Readiness::CannotRun
        } else if any(Status::Degraded) {
            Readiness::CanRunWithLess
        } else {
            Readiness::CanRun
        };
        Self { verdict, checks }
    }

    /// The summary of all checks.
    pub fn verdict(&self) -> Readiness {
        self.verdict
    }

    fn with(&self, status: Status) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |c| c.status == status)
    }
}

impl PreflightReport {
    /// The report in lines of at most `columns`.
    pub fn text(&self, columns: usize) -> String {
        const LABEL: usize = "untested".len();
        let titles = self.checks.iter().map(|c| c.title.chars().count());
        let width = titles.max().unwrap_or(0);
        // On a narrow terminal the detail stands below its title.
        let is_narrow = columns < 2 * (LABEL + width);
        let indent = if is_narrow { 4 } else { LABEL + 2 + width + 2 };
        let next = " ".repeat(indent);
        let mut text = String::new();
        let mut push = |first: &str, body: &str| {
            for line in fill(first, &next, body, columns) {
                text.push_str(&line);
                text.push('\n');
            }
        };
        let mut last_remedy = None;
        for check in &self.checks {
            let mut detail = check.detail.clone();
            if let Some(lost) = &check.lost {
                detail.push_str(&format!("; lost: {lost}"));
            }
            let (title, label) = (&check.title, check.status.label());
            let head = format!("{label:LABEL$}  {title:width$}  ");
            if is_narrow {
                push("", head.trim_end());
                push(&next, &detail);
            } else {
                push(&head, &detail);
            }
            if let Some(remedy) = &check.remedy {
                // One step often repairs several things: it is printed in full the first time.
                let first = last_remedy.replace(remedy).is_none_or(|t| t != remedy);
                push(&next, if first { remedy } else { "(remedy: as above)" });
            }
        }
        let conclusion = self.conclusion();
        for line in fill("", "  ", &conclusion, columns) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// What follows from all checks.
    fn conclusion(&self) -> String {
        let named = |status| {
            self.with(status)
                .map(|c| &*c.title)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mut text = match self.verdict {
            Readiness::CanRun => "synprobe can run here".to_owned(),
            Readiness::CanRunWithLess => {
                format!(
                    "synprobe can run here, degraded: {}",
                    named(Status::Degraded)
                )
            }
            Readiness::CannotRun => {
                format!("synprobe cannot run here: {}", named(Status::Missing))
            }
        };
        if self.with(Status::Untested).count() > 0 {
            text.push_str("; not tested without privileges: ");
            text.push_str(&named(Status::Untested));
        }
        text
    }
}

impl fmt::Display for PreflightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(usize::MAX))
    }
}

/// What the required checks found: the input of a run.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The running kernel.
    pub kernel: KernelVersion,
    /// Its HZ: jiffies a second.
    pub hz: u32,
    /// Offsets of its structure members, in the order of [`MEMBERS`].
    pub places: [u32; MEMBERS.len()],
    /// Features lost because optional members are missing.
    pub missing: Vec<&'static str>,
    /// The hooks of this kernel, each with the program that fits its prototype.
    pub hooks: Vec<Chosen>,
    /// What can report the end of a half-open.
    pub exact: HalfOpenSources,
    /// Its drop reasons.
    pub reasons: Arc<Reasons>,
    /// The range of local ports in this network namespace; all ports where it cannot be read.
    pub ephemeral_ports: (u16, u16),
}

impl Ready {
    /// The source of half-open ends for a requested mode. It reports beginnings too, unless the run is
    /// quiet.
    ///
    /// # Errors
    /// Exact was requested, and this host does not allow it.
    pub fn exact_by(
        &self,
        requested_mode: RequestedMode,
        detail: Detail,
    ) -> Result<Decision, HostError> {
        let begins = detail.slow_us().is_none();
        self.exact
            .choose(requested_mode, begins)
            .map_err(|Refusal(why)| HostError(Box::new(checks::not_exact(why))))
    }
}

/// Why this host cannot run synprobe: one line, including the remedy. Exit code [`EXIT_HOST`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct HostError(pub Box<Check>);

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)?;
        match &self.0.remedy {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

/// Makes the checks that a run depends on.
///
/// # Errors
/// The first check that fails.
pub fn require() -> Result<Ready, HostError> {
    require_on(&ThisHost, HOOKS)
}

/// As [`require`], for any host.
///
/// # Errors
/// The first check that fails.
pub fn require_on(host: &impl HostAccess, hooks: &'static [Hook]) -> Result<Ready, HostError> {
    let kernel = found(checks::kernel(host))?;
    let caps = Privileges::of(host);
    fatal(privileges::privileges(&caps))?;
    fatal(checks::lockdown(host))?;
    let btf = found(checks::btf(host))?;
    let resolved = found(checks::members(&btf))?;
    let mut chosen = Vec::with_capacity(hooks.len());
    for hook in hooks {
        let (check, fits) = checks::hook(&btf, hook, &resolved.missing);
        fatal(check)?;
        chosen.extend(fits);
    }
    fatal(checks::raw_tracepoint(host, &caps))?;
    fatal(checks::ring_buffer(host, &caps, &kernel))?;
    let exact = checks::exact(host, &caps, Some(&btf), &resolved.missing).1;
    Ok(Ready {
        exact,
        hz: found(checks::hz(host))?,
        kernel,
        places: resolved.places,
        missing: resolved.missing_features(),
        reasons: Arc::new(Reasons::from_btf(&btf)),
        hooks: chosen,
        ephemeral_ports: checks::ephemeral_ports(host),
    })
}

/// Stops at a required check that failed.
fn fatal(check: Check) -> Result<(), HostError> {
    found((check, Some(())))
}

/// What a check found; an error where it failed or found nothing.
fn found<T>((check, found): (Check, Option<T>)) -> Result<T, HostError> {
    match found {
        Some(found) if check.status != Status::Missing => Ok(found),
        _ => Err(HostError(Box::new(check))),
    }
}

/// Makes every check, also without root: the report names those that could not be made.
pub fn report() -> PreflightReport {
    report_on(&ThisHost, HOOKS)
}

/// As [`report`], for any host.
pub fn report_on(host: &impl HostAccess, hooks: &'static [Hook]) -> PreflightReport {
    let caps = Privileges::of(host);
    let (check, kernel) = checks::kernel(host);
    let too_old = check.status == Status::Missing && kernel.is_some();
    let mut list = vec![check, privileges::privileges(&caps), checks::lockdown(host)];
    if too_old {
        list.push(checks::not_checked());
        return PreflightReport::new(list);
    }
    let (check, btf) = checks::btf(host);
    list.push(check);
    let mut missing = Vec::new();
    if let Some(btf) = &btf {
        let (check, resolved) = checks::members(btf);
        list.push(check);
        missing = resolved.map(|r| r.missing).unwrap_or_default();
        list.extend(hooks.iter().map(|hook| checks::hook(btf, hook, &missing).0));
    }
    list.push(checks::raw_tracepoint(host, &caps));
    if let Some(kernel) = &kernel {
        list.push(checks::ring_buffer(host, &caps, kernel));
    }
    list.extend([
        checks::sched_cls(host, &caps),
        checks::exact(host, &caps, btf.as_ref(), &missing).0,
        checks::jit(host),
        checks::sock_diag(host),
        checks::icmp(host, &caps),
        privileges::namespaces(&caps),
        privileges::processes(&caps),
        privileges::rules(&caps),
        checks::cgroup2(host),
        checks::hz(host).0,
        checks::tracefs(host),
    ]);
    PreflightReport::new(list)
}
