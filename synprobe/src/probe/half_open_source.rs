//! The exact mode: what tells of a half-open's end as it happens, and which of two sources does.
//!
//! Both give the same records ([`RequestRecord`](synprobe_ebpf::event::RequestRecord)): the functions
//! that make and end a half-open, by fentry and fexit, where the kernel allows BPF_PROG_TYPE_TRACING;
//! else, and only where it was asked for, the tracepoints of all timers, for the request's own is among
//! them.

use std::sync::OnceLock;

use synprobe_ebpf::config::{
    EXACT_BEGINS, EXACT_DROPPED, EXACT_FEATURE, EXACT_HANDLER, EXACT_RANGES, EXACT_WORDS,
    HOW_DROPPED, HOW_FUNCTIONS, Member, PLACES_EACH,
};

use super::{btf::Btf, kallsyms};
use crate::model::HalfOpenSource;

/// What was asked for (`--mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestedMode {
    /// Exact where fentry is allowed, else the tracepoints of TCP alone.
    #[default]
    Auto,
    /// The tracepoints of TCP alone.
    Tracepoints,
    /// Exact, by whichever source there is.
    Exact,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachType {
    /// To a raw tracepoint.
    Tracepoint,
    /// To a function's entry.
    Entry,
    /// To its return; what it returns is read behind so many arguments.
    Exit,
}

/// One program of a source.
#[derive(Debug)]
pub struct Program {
    /// Its name in the object.
    pub program: &'static str,
    /// How it is attached.
    pub way: AttachType,
    /// To which tracepoint or function.
    pub hook: &'static str,
    /// The prototypes that it was written for, as BTF prints them; what follows the arguments that it
    /// reads may differ.
    args: &'static [&'static str],
    /// What the function must return; empty: anything.
    returns: &'static str,
    /// It tells of beginnings, and is not wanted where those are not.
    pub begins: bool,
    /// What is not known without it; empty: without it the source is of no use.
    pub feature: &'static str,
}

const REQUEST: &[&str] = &["struct sock *", "struct request_sock *"];
const TIMER: &[&str] = &["struct timer_list *"];
const SYN: &[&str] = &[
    "struct request_sock_ops *",
    "struct tcp_request_sock_ops *",
    "struct sock *",
    "struct sk_buff *",
];
/// Only function hooks know it.
const REFUSED_SYNS: &str = "SYNs that a full queue refuses, by peer";

/// By the kernel's functions, in the order in which they are attached.
const FUNCTIONS: &[Program] = &[
    Program {
        program: "request_timer_begins",
        way: AttachType::Entry,
        hook: "reqsk_timer_handler",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    Program {
        program: "request_timer_ends",
        way: AttachType::Exit,
        hook: "reqsk_timer_handler",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    Program {
        program: "request_dropped",
        way: AttachType::Exit,
        hook: "inet_csk_reqsk_queue_drop",
        args: REQUEST,
        returns: "bool",
        begins: false,
        feature: "",
    },
    Program {
        program: "request_made",
        way: AttachType::Entry,
        hook: "inet_csk_reqsk_queue_hash_add",
        args: REQUEST,
        returns: "",
        begins: false,
        feature: "each SYN as it arrives",
    },
    Program {
        program: "syn_comes",
        way: AttachType::Entry,
        hook: "tcp_conn_request",
        args: SYN,
        returns: "",
        begins: false,
        feature: REFUSED_SYNS,
    },
    Program {
        program: "syn_done",
        way: AttachType::Exit,
        hook: "tcp_conn_request",
        args: SYN,
        returns: "",
        begins: false,
        feature: REFUSED_SYNS,
    },
];

/// By the request's timer. A child that is made must be known before its request is disarmed.
const TIMERS: &[Program] = &[
    Program {
        program: "request_child",
        way: AttachType::Tracepoint,
        hook: "inet_sock_set_state",
        args: &["struct sock *", "int", "int"],
        returns: "",
        begins: false,
        feature: "",
    },
    Program {
        program: "request_fires",
        way: AttachType::Tracepoint,
        hook: "timer_expire_entry",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    Program {
        program: "request_fired",
        way: AttachType::Tracepoint,
        hook: "timer_expire_exit",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    Program {
        program: "request_disarmed",
        way: AttachType::Tracepoint,
        hook: "timer_cancel",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    Program {
        program: "request_armed",
        way: AttachType::Tracepoint,
        hook: "timer_start",
        args: TIMER,
        returns: "",
        begins: true,
        feature: "each SYN as it arrives",
    },
];

impl Program {
    /// Whether this kernel has the hook, as the program expects it; else why not.
    fn fits(&self, btf: &Btf) -> Result<(), String> {
        let prototype = match self.way {
            AttachType::Tracepoint => btf.tracepoint_prototype(self.hook),
            AttachType::Entry | AttachType::Exit => btf.function_prototype(self.hook),
        };
        let prototype = prototype.map_err(|e| e.to_string())?;
        let fits = prototype.begins_with(self.args)
            && (self.returns.is_empty() || self.returns == prototype.returns);
        fits.then_some(())
            .ok_or_else(|| format!("{} is {prototype} here", self.hook))
    }
}

/// The programs of a source that this kernel has hooks for.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// In the order in which they are attached.
    pub parts: Vec<&'static Program>,
    /// What cannot be known for want of the others, each once.
    pub lost: Vec<&'static str>,
}

impl Parts {
    fn of(all: &'static [Program], btf: &Btf, missing: &[&Member]) -> Result<Self, String> {
        if let Some(member) = missing
            .iter()
            .find(|m| m.feature == EXACT_FEATURE && (m.path != "sk_drops.counter"))
        {
            return Err(format!(
                "this kernel has no {}.{}",
                member.container, member.path
            ));
        }
        let mut found = Self::default();
        let mut lose = |feature| {
            if !found.lost.contains(&feature) {
                found.lost.push(feature);
            }
        };
        let counts_drops = !missing.iter().any(|m| m.path == "sk_drops.counter");
        if !counts_drops {
            lose(REFUSED_SYNS);
        }
        for part in all {
            match part.fits(btf) {
                Ok(()) => found.parts.push(part),
                Err(why) if part.feature.is_empty() => return Err(why),
                Err(why) => {
                    log::info!("{}: {why}", part.program);
                    lose(part.feature);
                }
            }
        }
        Ok(found)
    }
}

/// Why a source is not there, in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// Both sources on this host, as far as can be told without loading them.
#[derive(Clone, Debug)]
pub struct Exact {
    /// By fentry.
    pub fentry: Result<Parts, Refusal>,
    /// By the timer.
    pub timer: Result<Parts, Refusal>,
    /// Where the kernel's functions lie: read when they are first needed, for the list is long.
    places: OnceLock<KernelParams>,
}

/// What is used.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// The source.
    pub source: HalfOpenSource,
    /// Its programs.
    pub parts: Parts,
    /// Why it is not fentry, where that was wanted.
    pub why: Option<String>,
    /// Whether another source may take its place without a word.
    pub may_fall_back: bool,
    /// What the programs need to know: the `EXACT_*` indices of `config`.
    pub words: KernelParams,
}

/// See [`Decision::words`].
#[derive(Clone, Copy, Debug)]
pub struct KernelParams(pub [u64; EXACT_WORDS]);

impl Default for KernelParams {
    fn default() -> Self {
        Self([0; EXACT_WORDS])
    }
}

impl Exact {
    /// By this kernel's type information; `fentry`: whether programs of that type may be loaded, else why
    /// not.
    pub fn of(btf: &Btf, missing: &[&Member], fentry: Result<(), String>) -> Self {
        let timer = Parts::of(TIMERS, btf, missing).map(|mut parts| {
            parts.lost.push(REFUSED_SYNS);
            parts
        });
        Self::new(
            fentry
                .and_then(|()| Parts::of(FUNCTIONS, btf, missing))
                .map_err(Refusal),
            timer.map_err(Refusal),
        )
    }

    /// Of what is known of each.
    pub fn new(fentry: Result<Parts, Refusal>, timer: Result<Parts, Refusal>) -> Self {
        Self {
            fentry,
            timer,
            places: OnceLock::new(),
        }
    }

    /// The source for a wish. `begins`: whether beginnings are to be told.
    ///
    /// # Errors
    /// Where it is to be exact and cannot be: why, with what was tried.
    pub fn choose(&self, wish: RequestedMode, begins: bool) -> Result<Decision, Refusal> {
        match (wish, &self.fentry) {
            (RequestedMode::Tracepoints, _) => Ok(Decision::default()),
            (_, Ok(parts)) => {
                let decided = self.decide(HalfOpenSource::Fentry, parts, begins, None);
                Ok(Decision {
                    may_fall_back: wish == RequestedMode::Auto,
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
                match decided.words.0[EXACT_HANDLER] {
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
        parts: &Parts,
        begins: bool,
        why: Option<String>,
    ) -> Decision {
        let mut parts = parts.clone();
        parts.parts.retain(|part| begins || !part.begins);
        let mut words = *self.places.get_or_init(KernelParams::of_kernel);
        words.0[EXACT_BEGINS] = begins.into();
        Decision {
            source,
            parts,
            why,
            may_fall_back: false,
            words,
        }
    }
}

impl KernelParams {
    /// Those that are addresses of the kernel's; 0 where it does not tell them.
    fn of_kernel() -> Self {
        let mut words = Self::default();
        // In one go: the list is long.
        match kallsyms::places(&[&HOW_FUNCTIONS[..], &[HOW_DROPPED]].concat()) {
            Ok(mut all) => {
                let begin = |places: Option<&Vec<(u64, u64)>>| {
                    let first = places.and_then(|places| places.first());
                    first.map_or(0, |(begin, _)| *begin)
                };
                words.0[EXACT_DROPPED] = begin(all.pop().as_ref());
                for (at, places) in all.iter().enumerate() {
                    for (n, (begin, end)) in places.iter().take(PLACES_EACH).enumerate() {
                        let word = EXACT_RANGES + (at * PLACES_EACH + n) * 2;
                        (words.0[word], words.0[word + 1]) = (*begin, *end);
                    }
                }
                words.0[EXACT_HANDLER] = begin(all.last());
            }
            Err(error) => log::info!("/proc/kallsyms: {error}: who ends a half-open is not told"),
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Result<Parts, Refusal> {
        Ok(Parts::default())
    }

    fn refused(why: &str) -> Result<Parts, Refusal> {
        Err(Refusal(why.to_owned()))
    }

    #[test]
    fn auto_takes_fentry_or_says_nothing() {
        let (fentry, timer) = (found(), found());
        let decided = Exact::new(fentry, timer)
            .choose(RequestedMode::Auto, true)
            .unwrap();
        assert_eq!(decided.source, HalfOpenSource::Fentry);
        assert!(decided.why.is_none() && decided.may_fall_back);

        let (fentry, timer) = (refused("EPERM"), found());
        let decided = Exact::new(fentry, timer)
            .choose(RequestedMode::Auto, true)
            .unwrap();
        assert_eq!(decided.source, HalfOpenSource::Tracepoints);
        assert_eq!(decided.why.as_deref(), Some("EPERM"));
        assert!(decided.parts.parts.is_empty());
    }

    #[test]
    fn exact_never_falls_back_and_says_why_it_cannot_be() {
        let (fentry, timer) = (found(), found());
        let decided = Exact::new(fentry, timer)
            .choose(RequestedMode::Exact, false)
            .unwrap();
        assert!(!decided.may_fall_back && decided.words.0[EXACT_BEGINS] == 0);

        let (fentry, timer) = (refused("EPERM"), refused("no timer_start"));
        let Refusal(why) = Exact::new(fentry, timer)
            .choose(RequestedMode::Exact, true)
            .unwrap_err();
        assert_eq!(why, "EPERM; the request's timer: no timer_start");
    }

    #[test]
    fn tracepoints_are_had_wherever_one_asks_for_them() {
        for fentry in [found(), refused("EPERM")] {
            let timer = found();
            let decided = Exact::new(fentry, timer)
                .choose(RequestedMode::Tracepoints, true)
                .unwrap();
            assert_eq!(decided.source, HalfOpenSource::Tracepoints);
            assert!(decided.why.is_none());
        }
    }

    #[test]
    fn the_programs_of_a_beginning_are_left_out_where_it_is_not_told() {
        let parts = Parts {
            parts: TIMERS.iter().collect(),
            lost: Vec::new(),
        };
        let exact = Exact::new(found(), found());
        let all = exact.decide(HalfOpenSource::Timer, &parts, true, None);
        let fewer = exact.decide(HalfOpenSource::Timer, &parts, false, None);
        assert_eq!(all.parts.parts.len(), fewer.parts.parts.len() + 1);
        assert_eq!(all.words.0[EXACT_BEGINS], 1);
    }
}
