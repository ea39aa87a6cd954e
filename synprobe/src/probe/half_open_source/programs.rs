//! The programs of each source, and which of them fit the running kernel.

use synprobe_ebpf::config::{ACCEPT_FEATURE, EXACT_FEATURE, Member};

use crate::probe::btf::Btf;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachType {
    /// To a raw tracepoint.
    Tracepoint,
    /// To a function's entry.
    Entry,
    /// To a function's return.
    Exit,
}

/// One program of a source.
#[derive(Debug)]
pub struct HookProgram {
    /// Its name in the object.
    pub program: &'static str,
    /// How it is attached.
    pub attach: AttachType,
    /// The tracepoint or function.
    pub hook: &'static str,
    /// The leading arguments that it reads, as BTF prints them; any that follow may differ.
    args: &'static [&'static str],
    /// The function's return type; empty: any.
    returns: &'static str,
    /// It reports beginnings, and is left out where they are not wanted.
    pub begins: bool,
    /// What is not known without it; empty: the source cannot work without it.
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
/// Only the function hooks report it.
pub(super) const REFUSED_SYNS: &str = "SYNs that a full queue refuses, by peer";

/// The function that takes a connection out of the accept queue.
pub(in crate::probe) const ACCEPT: &str = "inet_csk_accept";

/// Programs on the kernel's functions, in the order of attaching.
pub(super) const FUNCTIONS: &[HookProgram] = &[
    HookProgram {
        program: "request_timer_begins",
        attach: AttachType::Entry,
        hook: "reqsk_timer_handler",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    HookProgram {
        program: "request_timer_ends",
        attach: AttachType::Exit,
        hook: "reqsk_timer_handler",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    HookProgram {
        program: "request_dropped",
        attach: AttachType::Exit,
        hook: "inet_csk_reqsk_queue_drop",
        args: REQUEST,
        returns: "bool",
        begins: false,
        feature: "",
    },
    HookProgram {
        program: "request_made",
        attach: AttachType::Entry,
        hook: "inet_csk_reqsk_queue_hash_add",
        args: REQUEST,
        returns: "",
        begins: false,
        feature: "each SYN as it arrives",
    },
    HookProgram {
        program: "syn_comes",
        attach: AttachType::Entry,
        hook: "tcp_conn_request",
        args: SYN,
        returns: "",
        begins: false,
        feature: REFUSED_SYNS,
    },
    HookProgram {
        program: "syn_done",
        attach: AttachType::Exit,
        hook: "tcp_conn_request",
        args: SYN,
        returns: "",
        begins: false,
        feature: REFUSED_SYNS,
    },
    HookProgram {
        program: "accepted",
        attach: AttachType::Exit,
        hook: ACCEPT,
        args: &["struct sock *", "struct proto_accept_arg *"],
        returns: "struct sock *",
        begins: false,
        feature: ACCEPT_FEATURE,
    },
    HookProgram {
        program: "accepted_with_flags",
        attach: AttachType::Exit,
        hook: ACCEPT,
        args: &["struct sock *", "int", "int *", "bool"],
        returns: "struct sock *",
        begins: false,
        feature: ACCEPT_FEATURE,
    },
];

/// Programs on the timer tracepoints. A child socket must be known before its request's timer is
/// cancelled, so that program is attached first.
pub(super) const TIMERS: &[HookProgram] = &[
    HookProgram {
        program: "request_child",
        attach: AttachType::Tracepoint,
        hook: "inet_sock_set_state",
        args: &["struct sock *", "int", "int"],
        returns: "",
        begins: false,
        feature: "",
    },
    HookProgram {
        program: "request_fires",
        attach: AttachType::Tracepoint,
        hook: "timer_expire_entry",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    HookProgram {
        program: "request_fired",
        attach: AttachType::Tracepoint,
        hook: "timer_expire_exit",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    HookProgram {
        program: "request_disarmed",
        attach: AttachType::Tracepoint,
        hook: "timer_cancel",
        args: TIMER,
        returns: "",
        begins: false,
        feature: "",
    },
    HookProgram {
        program: "request_armed",
        attach: AttachType::Tracepoint,
        hook: "timer_start",
        args: TIMER,
        returns: "",
        begins: true,
        feature: "each SYN as it arrives",
    },
];

impl HookProgram {
    /// Whether this kernel has the hook with the expected prototype, else why not.
    fn fits(&self, btf: &Btf) -> Result<(), String> {
        let prototype = match self.attach {
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
pub struct SourcePrograms {
    /// In the order of attaching.
    pub programs: Vec<&'static HookProgram>,
    /// What is not known without the others, each once.
    pub lost: Vec<&'static str>,
}

impl SourcePrograms {
    pub(super) fn of(
        all: &'static [HookProgram],
        btf: &Btf,
        missing: &[&Member],
    ) -> Result<Self, String> {
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
        for program in all {
            // A prototype that changed has a program for each form.
            let other = |p: &&HookProgram| {
                (p.hook, p.attach) == (program.hook, program.attach) && p.program != program.program
            };
            let replaced = || all.iter().filter(other).any(|p| p.fits(btf).is_ok());
            match program.fits(btf) {
                Ok(()) => found.programs.push(program),
                Err(_) if replaced() => (),
                Err(why) if program.feature.is_empty() => return Err(why),
                Err(why) => {
                    log::info!("{}: {why}", program.program);
                    lose(program.feature);
                }
            }
        }
        Ok(found)
    }
}
