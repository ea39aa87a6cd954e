//! Which BPF programs and maps this host accepts.

use synprobe_ebpf::config::Member;

use super::{refusal, remedy_of_refusal};
use crate::{
    preflight::{
        Attempt, Check, HostAccess, Status,
        privileges::{CAP_NET_ADMIN, CAP_SYS_ADMIN, Privileges},
    },
    probe::{
        btf::Btf,
        half_open_source::{HalfOpenSources, Refusal},
    },
    sys::kernel::KernelVersion,
};

/// The program type that every mode needs.
pub(in crate::preflight) fn raw_tracepoint(host: &impl HostAccess, caps: &Privileges) -> Check {
    let (id, title) = ("raw_tracepoint", "raw tracepoints");
    if !caps.may_probe() {
        return Check::new(
            id,
            title,
            Status::Untested,
            "loading needs CAP_BPF and CAP_PERFMON",
        );
    }
    match host.attempt(Attempt::RawTracepoint) {
        Ok(()) => Check::new(id, title, Status::Ok, "programs can be loaded"),
        Err(e) => Check::new(
            id,
            title,
            Status::Missing,
            refusal("raw tracepoint programs", &e),
        )
        .with_remedy(remedy_of_refusal(&e)),
    }
}

/// The ring buffer that carries records to the agent.
pub(in crate::preflight) fn ring_buffer(
    host: &impl HostAccess,
    caps: &Privileges,
    kernel: &KernelVersion,
) -> Check {
    let (id, title) = ("ring_buffer", "ring buffer");
    if !caps.may_probe() {
        return Check::new(id, title, Status::Untested, "creating one needs CAP_BPF");
    }
    match host.attempt(Attempt::RingBuffer) {
        Ok(()) => Check::new(id, title, Status::Ok, "can be created"),
        Err(e) => {
            // Until 5.11 BPF memory counted against RLIMIT_MEMLOCK.
            let locked = !kernel.at_least(5, 11) && e.raw_os_error() == Some(libc::EPERM);
            let remedy = if locked {
                "raise the limit: ulimit -l unlimited"
            } else {
                remedy_of_refusal(&e)
            };
            Check::new(id, title, Status::Missing, refusal("BPF ring buffers", &e))
                .with_remedy(remedy)
        }
    }
}

/// Traffic classifiers: the lab injects its faults with one.
pub(in crate::preflight) fn sched_cls(host: &impl HostAccess, caps: &Privileges) -> Check {
    let (id, title) = ("sched_cls", "classifiers");
    let missing = caps.missing(&[CAP_NET_ADMIN, CAP_SYS_ADMIN]);
    if !missing.is_empty() {
        let detail = format!("{} missing", missing.join(" and "));
        return Check::new(id, title, Status::Degraded, detail)
            .with_lost("the lab")
            .with_remedy(caps.remedy(&missing));
    }
    match host.attempt(Attempt::SchedCls) {
        Ok(()) => Check::new(
            id,
            title,
            Status::Ok,
            "programs can be loaded (only the lab needs them)",
        ),
        Err(e) => Check::new(
            id,
            title,
            Status::Degraded,
            refusal("classifier programs", &e),
        )
        .with_lost("the lab")
        .with_remedy(remedy_of_refusal(&e)),
    }
}

/// What can report the end of a half-open as it happens. Without it, the next sock_diag dump shows that
/// the half-open has gone.
pub(in crate::preflight) fn exact(
    host: &impl HostAccess,
    caps: &Privileges,
    btf: Option<&Btf>,
    missing: &[&'static Member],
) -> (Check, HalfOpenSources) {
    let check = |status, detail: String| Check::new("fentry", "exact mode", status, detail);
    let Some(btf) = btf else {
        let why = "there is no BTF".to_owned();
        let none = || Err(Refusal(why.clone()));
        let (fentry, timer) = (none(), none());
        return (
            check(Status::Note, format!("off: {why}")),
            HalfOpenSources::new(fentry, timer),
        );
    };
    // Any of the functions that the programs attach to.
    let fentry = match btf.function_id("tcp_conn_request") {
        _ if !caps.may_probe() => Err("loading needs CAP_BPF and CAP_PERFMON".to_owned()),
        Err(error) => Err(error.to_string()),
        Ok(id) => host
            .attempt(Attempt::Fentry(id))
            .map_err(|e| refusal("fentry programs", &e)),
    };
    let exact = HalfOpenSources::of(btf, missing, fentry);
    let check = match (&exact.fentry, &exact.timer) {
        _ if !caps.may_probe() => check(
            Status::Untested,
            "loading needs CAP_BPF and CAP_PERFMON; not needed".to_owned(),
        ),
        (Ok(parts), _) if parts.lost.is_empty() => {
            check(Status::Ok, "on, by fentry (--mode auto)".to_owned())
        }
        (Ok(parts), _) => check(
            Status::Ok,
            format!(
                "on, by fentry (--mode auto), without: {}",
                parts.lost.join(", ")
            ),
        ),
        (Err(Refusal(why)), timer) => {
            let check = check(Status::Note, format!("off: {why}; not needed"));
            match timer {
                Ok(_) => check.with_remedy(
                    "allow BPF_PROG_TYPE_TRACING (arm64 has it from 6.4 on), or use --mode exact: it then \
                     uses the timer tracepoints, which cost more",
                ),
                Err(_) => check,
            }
        }
    };
    (check, exact)
}

/// `--mode exact` was requested, and no source is available.
pub(in crate::preflight) fn not_exact(why: String) -> Check {
    let detail = format!("--mode exact: {why}");
    Check::new("fentry", "exact mode", Status::Missing, detail)
        .with_remedy("use --mode auto, or allow BPF_PROG_TYPE_TRACING")
}
