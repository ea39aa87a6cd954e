//! The exact mode: which source reports the end of a half-open as it happens.
//!
//! There are two sources. Both give the same records
//! ([`RequestRecord`](synprobe_ebpf::event::RequestRecord)):
//!
//! - fentry and fexit on the functions that create and end a half-open, where the kernel allows
//!   BPF_PROG_TYPE_TRACING;
//! - the tracepoints of all timers, which include the SYN-ACK timer. They cost more, and are used only
//!   on request (`--mode exact`).

mod kernel_params;
mod programs;

use std::sync::OnceLock;

use synprobe_ebpf::config::{ACCEPT_FEATURE, EXACT_BEGINS, EXACT_HANDLER, Member};

pub use kernel_params::KernelParams;
pub(super) use programs::ACCEPT;
pub use programs::{AttachType, HookProgram, SourcePrograms};
use programs::{FUNCTIONS, REFUSED_SYNS, TIMERS};

use crate::model::HalfOpenSource;

use super::btf::Btf;

/// What the user asked for (`--mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestedMode {
    /// Exact where fentry is allowed, else the tracepoints of TCP alone.
    #[default]
    Auto,
    /// The tracepoints of TCP alone.
    Tracepoints,
    /// Exact, by whichever source this host has.
    Exact,
}

/// Why a source is not available, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// Both sources on this host, as far as is known without loading them.
#[derive(Clone, Debug)]
pub struct HalfOpenSources {
    /// By fentry.
    pub fentry: Result<SourcePrograms, Refusal>,
    /// By the timer.
    pub timer: Result<SourcePrograms, Refusal>,
    /// Read when first needed: `/proc/kallsyms` is long.
    params: OnceLock<KernelParams>,
}

/// The source that a run uses.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// The source.
    pub source: HalfOpenSource,
    /// Its programs.
    pub parts: SourcePrograms,
    /// Why it is not fentry, where fentry was preferred.
    pub why: Option<String>,
    /// Whether the tracepoints may silently replace it.
    pub may_fall_back: bool,
    /// What the programs need to know about this kernel.
    pub params: KernelParams,
}

impl HalfOpenSources {
    /// From this kernel's type information. `fentry`: whether BPF_PROG_TYPE_TRACING may be loaded, else
    /// why not.
    pub fn of(btf: &Btf, missing: &[&Member], fentry: Result<(), String>) -> Self {
        let timer = SourcePrograms::of(TIMERS, btf, missing).map(|mut parts| {
            parts.lost.extend([REFUSED_SYNS, ACCEPT_FEATURE]);
            parts
        });
        Self::new(
            fentry
                .and_then(|()| SourcePrograms::of(FUNCTIONS, btf, missing))
                .map_err(Refusal),
            timer.map_err(Refusal),
        )
    }

    /// From what is known about each source.
    pub fn new(
        fentry: Result<SourcePrograms, Refusal>,
        timer: Result<SourcePrograms, Refusal>,
    ) -> Self {
        Self {
            fentry,
            timer,
            params: OnceLock::new(),
        }
    }

    /// The source for the requested mode. `begins`: whether the beginning of each half-open is wanted.
    ///
    /// # Errors
    /// Exact was requested and no source is available: the reason for each.
    pub fn choose(&self, requested: RequestedMode, begins: bool) -> Result<Decision, Refusal> {
        match (requested, &self.fentry) {
            (RequestedMode::Tracepoints, _) => Ok(Decision::default()),
            (_, Ok(parts)) => {
                let decided = self.decide(HalfOpenSource::Fentry, parts, begins, None);
                Ok(Decision {
                    may_fall_back: requested == RequestedMode::Auto,
                    ..decided
                })
            }
            (RequestedMode::Auto, Err(Refusal(why))) => Ok(Decision {
                why: Some(why.clone()),
                ..Decision::default()
            }),
            (RequestedMode::Exact, Err(Refusal(why))) => {
                let refusal = |timer: &str| Refusal(format!("{why}; the request's timer: {timer}"));
                let parts = self
                    .timer
                    .as_ref()
                    .map_err(|Refusal(timer)| refusal(timer))?;
                let decided = self.decide(HalfOpenSource::Timer, parts, begins, Some(why.clone()));
                match decided.params.0[EXACT_HANDLER] {
                    0 => Err(refusal(
                        "/proc/kallsyms hides addresses (kernel.kptr_restrict)",
                    )),
                    _ => Ok(decided),
                }
            }
        }
    }

    fn decide(
        &self,
        source: HalfOpenSource,
        parts: &SourcePrograms,
        begins: bool,
        why: Option<String>,
    ) -> Decision {
        let mut parts = parts.clone();
        parts.programs.retain(|part| begins || !part.begins);
        let mut params = *self.params.get_or_init(KernelParams::of_kernel);
        params.0[EXACT_BEGINS] = begins.into();
        Decision {
            source,
            parts,
            why,
            may_fall_back: false,
            params,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Result<SourcePrograms, Refusal> {
        Ok(SourcePrograms::default())
    }

    fn refused(why: &str) -> Result<SourcePrograms, Refusal> {
        Err(Refusal(why.to_owned()))
    }

    #[test]
    fn auto_uses_fentry_or_silently_the_tracepoints() {
        let (fentry, timer) = (found(), found());
        let decided = HalfOpenSources::new(fentry, timer)
            .choose(RequestedMode::Auto, true)
            .unwrap();
        assert_eq!(decided.source, HalfOpenSource::Fentry);
        assert!(decided.why.is_none() && decided.may_fall_back);

        let (fentry, timer) = (refused("EPERM"), found());
        let decided = HalfOpenSources::new(fentry, timer)
            .choose(RequestedMode::Auto, true)
            .unwrap();
        assert_eq!(decided.source, HalfOpenSource::Tracepoints);
        assert_eq!(decided.why.as_deref(), Some("EPERM"));
        assert!(decided.parts.programs.is_empty());
    }

    #[test]
    fn exact_never_falls_back_and_names_the_reason() {
        let (fentry, timer) = (found(), found());
        let decided = HalfOpenSources::new(fentry, timer)
            .choose(RequestedMode::Exact, false)
            .unwrap();
        assert!(!decided.may_fall_back && decided.params.0[EXACT_BEGINS] == 0);

        let (fentry, timer) = (refused("EPERM"), refused("no timer_start"));
        let Refusal(why) = HalfOpenSources::new(fentry, timer)
            .choose(RequestedMode::Exact, true)
            .unwrap_err();
        assert_eq!(why, "EPERM; the request's timer: no timer_start");
    }

    #[test]
    fn tracepoints_are_available_everywhere() {
        for fentry in [found(), refused("EPERM")] {
            let timer = found();
            let decided = HalfOpenSources::new(fentry, timer)
                .choose(RequestedMode::Tracepoints, true)
                .unwrap();
            assert_eq!(decided.source, HalfOpenSource::Tracepoints);
            assert!(decided.why.is_none());
        }
    }

    #[test]
    fn programs_that_report_beginnings_are_left_out_where_not_wanted() {
        let parts = SourcePrograms {
            programs: TIMERS.iter().collect(),
            lost: Vec::new(),
        };
        let exact = HalfOpenSources::new(found(), found());
        let all = exact.decide(HalfOpenSource::Timer, &parts, true, None);
        let fewer = exact.decide(HalfOpenSource::Timer, &parts, false, None);
        assert_eq!(all.parts.programs.len(), fewer.parts.programs.len() + 1);
        assert_eq!(all.params.0[EXACT_BEGINS], 1);
    }
}
