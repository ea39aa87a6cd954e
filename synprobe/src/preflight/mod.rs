//! What this host allows, what is missing, and the remedy.
//!
//! [`report`] makes every check and tells about each of them; [`require`] makes those without which
//! nothing can be watched, stops at the first that fails, and hands over what they found.

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
};

/// The exit code of a host that cannot run it (docs/events.md).
pub const EXIT_HOST: u8 = 3;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It runs, with less: see [`Check::lost`].
    Degraded,
    /// It cannot run.
    Missing,
    /// Nothing depends on it; good to know.
    Note,
    /// It could not be tested without more privileges.
    Untested,
}

impl Status {
    /// As [`PreflightReport`] prints it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "less",
            Self::Missing => "MISSING",
            Self::Note => "note",
            Self::Untested => "untested",
        }
    }
}

/// One thing about this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name, for scripts.
    pub id: String,
    /// Its name, for eyes.
    pub title: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// What cannot be told without it.
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

/// All checks taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Everything is there.
    CanRun,
    /// Something can not be told here.
    CanRunWithLess,
    /// Something is missing without which nothing can be watched.
    CannotRun,
}

/// What this host allows. Displayed: a line a check, the remedy on the line below, at the end the
/// verdict.
#[derive(Clone, Debug, Serialize)]
pub struct PreflightReport {
    verdict: Readiness,
    /// In the order in which they depend on each other.
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

    /// All checks taken together.
    pub fn verdict(&self) -> Readiness {
        self.verdict
    }

    fn with(&self, status: Status) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |c| c.status == status)
    }
}

impl fmt::Display for PreflightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LABEL: usize = "untested".len();
        let width = self
            .checks
            .iter()
            .map(|c| c.title.chars().count())
            .max()
            .unwrap_or(0);
        let mut told = None;
        for Check {
            title,
            status,
            detail,
            remedy,
            lost,
            ..
        } in &self.checks
        {
            write!(f, "{:LABEL$}  {title:width$}  {detail}", status.label())?;
            if let Some(lost) = lost {
                write!(f, "; lost: {lost}")?;
            }
            writeln!(f)?;
            if let Some(remedy) = remedy {
                // One step often mends several things: it is told in full the first time.
                let first = told.replace(remedy).is_none_or(|t| t != remedy);
                let remedy = if first { remedy } else { "(remedy: as above)" };
                writeln!(f, "{:indent$}{remedy}", "", indent = LABEL + 2 + width + 2)?;
            }
        }
        let named = |status| {
            self.with(status)
                .map(|c| &*c.title)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self.verdict {
            Readiness::CanRun => write!(f, "synprobe can run here")?,
            Readiness::CanRunWithLess => {
                write!(
                    f,
                    "synprobe can run here, with less: {}",
                    named(Status::Degraded)
                )?;
            }
            Readiness::CannotRun => {
                write!(f, "synprobe cannot run here: {}", named(Status::Missing))?;
            }
        }
        match self.with(Status::Untested).count() {
            0 => writeln!(f),
            _ => writeln!(
                f,
                "; not tested for want of privileges: {}",
                named(Status::Untested)
            ),
        }
    }
}

/// What the fatal checks found, for those who come after.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The running kernel.
    pub kernel: KernelVersion,
    /// Its jiffies a second.
    pub hz: u32,
    /// Where it keeps its members, in the order of [`MEMBERS`].
    pub places: [u32; MEMBERS.len()],
    /// What its lack of optional members costs.
    pub missing: Vec<&'static str>,
    /// Each hook that this kernel has, with the program that fits its prototype.
    pub hooks: Vec<Chosen>,
    /// What can tell of a half-open's end.
    pub exact: HalfOpenSources,
    /// Its names for why it drops packets.
    pub reasons: Arc<Reasons>,
    /// The range that local ports are chosen from in this network namespace; all ports where it
    /// cannot be told.
    pub ephemeral_ports: (u16, u16),
}

impl Ready {
    /// What tells of a half-open's end, as it was asked for. Beginnings are told where every handshake is.
    ///
    /// # Errors
    /// Where it is to be exact and this host does not let it.
    pub fn exact_by(&self, wish: RequestedMode, detail: Detail) -> Result<Decision, HostError> {
        let begins = detail.slow_us().is_none();
        self.exact
            .choose(wish, begins)
            .map_err(|Refusal(why)| HostError(Box::new(checks::not_exact(why))))
    }
}

/// Why nothing can be watched on this host: one line, the remedy included. Exit code [`EXIT_HOST`].
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

/// Makes the checks without which nothing can be watched.
///
/// # Errors
/// The first that fails.
pub fn require() -> Result<Ready, HostError> {
    require_on(&ThisHost, HOOKS)
}

/// [`require`], of any host.
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

/// Stops at a check that says that nothing can be watched.
fn fatal(check: Check) -> Result<(), HostError> {
    found((check, Some(())))
}

/// What a check found; its failure where it is fatal, or found nothing.
fn found<T>((check, found): (Check, Option<T>)) -> Result<T, HostError> {
    match found {
        Some(found) if check.status != Status::Missing => Ok(found),
        _ => Err(HostError(Box::new(check))),
    }
}

/// Makes every check. Without root too: what could not be tested is said.
pub fn report() -> PreflightReport {
    report_on(&ThisHost, HOOKS)
}

/// [`report`], of any host.
pub fn report_on(host: &impl HostAccess, hooks: &'static [Hook]) -> PreflightReport {
    let caps = Privileges::of(host);
    let (check, kernel) = checks::kernel(host);
    let too_old = check.status == Status::Missing && kernel.is_some();
    let mut list = vec![check, privileges::privileges(&caps), checks::lockdown(host)];
    if too_old {
        list.push(checks::not_looked_at());
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
        checks::cgroup2(host),
        checks::hz(host).0,
        checks::tracefs(host),
    ]);
    PreflightReport::new(list)
}
