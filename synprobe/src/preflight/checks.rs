//! One small function for each check.

use std::{
    io,
    path::{Path, PathBuf},
};

use synprobe_ebpf::config::Member;

use super::{
    Attempt, Check, HostAccess, Status,
    host::text,
    privileges::{CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, Privileges},
};
use crate::{
    probe::{
        btf::{Btf, BtfError, KERNEL_BTF, Prototype},
        half_open_source::{HalfOpenSources, Refusal},
        hooks::{Chosen, Hook},
        offsets::{MemberOffsets, OffsetsError, resolve},
    },
    sys::kernel::{self, KernelVersion},
};

/// `BPF_MAP_TYPE_RINGBUF` and CAP_BPF came with it.
const OLDEST: (u32, u32) = (5, 8);

/// Linux 5.8 or later.
pub(super) fn kernel(host: &impl HostAccess) -> (Check, Option<KernelVersion>) {
    let missing = |detail: String| {
        let (major, minor) = OLDEST;
        Check::new("kernel", "kernel", Status::Missing, detail)
            .with_remedy(format!("boot Linux {major}.{minor} or later"))
    };
    let release = match host.release() {
        Ok(release) => release,
        Err(e) => {
            return (
                missing(format!("the kernel does not tell its release: {e}")),
                None,
            );
        }
    };
    match KernelVersion::parse(&release) {
        Ok(v) if v.at_least(OLDEST.0, OLDEST.1) => (
            Check::new("kernel", "kernel", Status::Ok, format!("Linux {v}")),
            Some(v),
        ),
        Ok(v) => {
            let detail = format!("Linux {v} has no BPF ring buffer, which came with 5.8");
            (missing(detail), Some(v))
        }
        Err(e) => (missing(e.to_string()), None),
    }
}

/// In place of all that presumes a kernel of [`OLDEST`] at least: BTF tells of tracepoints from 5.5 on
/// (`btf_trace_` types), and what an older kernel seems to lack would mostly be there.
pub(super) fn not_looked_at() -> Check {
    let detail = "not looked at: the rest tells nothing of a kernel this old";
    Check::new("rest", "the rest", Status::Note, detail)
}

/// Confidentiality lockdown forbids bpf_probe_read_kernel() (LOCKDOWN_BPF_READ_KERNEL).
pub(super) fn lockdown(host: &impl HostAccess) -> Check {
    let check = |status, detail: &str| Check::new("lockdown", "lockdown", status, detail);
    match text(host, "/sys/kernel/security/lockdown") {
        Some(modes) if modes.contains("[confidentiality]") => check(
            Status::Missing,
            "kernel lockdown forbids BPF to read kernel memory",
        )
        .with_remedy("boot without lockdown=confidentiality (integrity is fine)"),
        Some(modes) if modes.contains("[integrity]") => {
            check(Status::Ok, "integrity: BPF may read kernel memory")
        }
        Some(_) => check(Status::Ok, "none"),
        None => check(Status::Ok, "none that can be seen"),
    }
}

/// The kernel's type information.
pub(super) fn btf(host: &impl HostAccess) -> (Check, Option<Btf>) {
    let check = |status, detail: String| Check::new("btf", "BTF", status, detail);
    match Btf::from_read(host.read(Path::new(KERNEL_BTF))) {
        Ok(btf) => (check(Status::Ok, KERNEL_BTF.to_owned()), Some(btf)),
        Err(e) => {
            let remedy = match e {
                BtfError::Absent => {
                    "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build them; \
                     in a container, mount the host's /sys"
                }
                BtfError::Denied => "run with sudo",
                _ => OffsetsError::REMEDY,
            };
            (
                check(Status::Missing, e.to_string()).with_remedy(remedy),
                None,
            )
        }
    }
}

/// Every member that the programs read.
pub(super) fn members(btf: &Btf) -> (Check, Option<MemberOffsets>) {
    let check = |status, detail: String| Check::new("members", "kernel members", status, detail);
    match resolve(btf) {
        Ok(resolved) if resolved.missing.is_empty() => {
            let detail = format!("all {} found", resolved.places.len());
            (check(Status::Ok, detail), Some(resolved))
        }
        Ok(resolved) => {
            let missing: Vec<_> = resolved
                .missing
                .iter()
                .map(|m| format!("{}.{}", m.container, m.path))
                .collect();
            let check = check(
                Status::Degraded,
                format!("this kernel has no {}", missing.join(", ")),
            )
            .with_lost(resolved.missing_features().join("; "));
            (check, Some(resolved))
        }
        Err(e) => (
            check(Status::Missing, e.to_string()).with_remedy(OffsetsError::REMEDY),
            None,
        ),
    }
}

/// A tracepoint with a prototype that is understood, and all that its program reads; gives the program
/// for it. `missing`: the members that this kernel lacks.
pub(super) fn hook(
    btf: &Btf,
    hook: &'static Hook,
    missing: &[&'static Member],
) -> (Check, Option<Chosen>) {
    let id = format!("tracepoint.{}", hook.name);
    let check = |status, detail: String| Check::new(&id, hook.name, status, detail);
    let lacking = |detail: String, remedy: Option<&str>| {
        let mut check = match hook.required {
            true => check(Status::Missing, detail),
            false => check(Status::Degraded, detail).with_lost(hook.feature),
        };
        check.remedy = remedy.map(str::to_owned);
        (check, None)
    };
    let (major, minor) = hook.since;
    let newer = format!("boot Linux {major}.{minor} or later");
    if let Some(member) = missing.iter().find(|m| m.feature == hook.feature) {
        let Member {
            container, path, ..
        } = member;
        let detail = format!("this kernel's BTF has no struct {container} member {path}");
        return lacking(detail, Some(OffsetsError::REMEDY));
    }
    match btf.tracepoint_prototype(hook.name) {
        Ok(prototype) => match hook.choose(&prototype) {
            Some(chosen) if chosen.lost.is_empty() => {
                (check(Status::Ok, prototype.to_string()), Some(chosen))
            }
            Some(chosen) => {
                let less = check(Status::Degraded, prototype.to_string()).with_lost(chosen.lost);
                (less, Some(chosen))
            }
            None if hook.is_too_old(&prototype) => {
                let detail = format!(
                    "this kernel's tracepoint {} hands over {prototype}, without what Linux \
                     {major}.{minor} added",
                    hook.name
                );
                lacking(detail, Some(&newer))
            }
            None => {
                let known: Vec<_> = hook.variants.iter().map(|v| wanted(v.args)).collect();
                let name = hook.name;
                let detail = format!(
                    "this kernel's tracepoint {name} hands over {prototype}, where {} is understood",
                    known.join(" or ")
                );
                lacking(detail, Some(OffsetsError::REMEDY))
            }
        },
        Err(BtfError::NoTracepoint(name)) => {
            let detail =
                format!("this kernel has no tracepoint {name} (since Linux {major}.{minor})");
            lacking(detail, Some(&newer))
        }
        Err(e) => lacking(
            format!("tracepoint {}: {e}", hook.name),
            Some(OffsetsError::REMEDY),
        ),
    }
}

fn wanted(args: &[&str]) -> String {
    let args = args.iter().map(|a| (*a).to_owned()).collect();
    Prototype {
        args,
        returns: String::new(),
    }
    .to_string()
}

/// The program type that everything hangs on.
pub(super) fn raw_tracepoint(host: &impl HostAccess, caps: &Privileges) -> Check {
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
        Ok(()) => Check::new(id, title, Status::Ok, "programs may be loaded"),
        Err(e) => Check::new(
            id,
            title,
            Status::Missing,
            refusal("raw tracepoint programs", &e),
        )
        .with_remedy(remedy_of_refusal(&e)),
    }
}

/// The way from the kernel to the agent.
pub(super) fn ring_buffer(
    host: &impl HostAccess,
    caps: &Privileges,
    kernel: &KernelVersion,
) -> Check {
    let (id, title) = ("ring_buffer", "ring buffer");
    if !caps.may_probe() {
        return Check::new(id, title, Status::Untested, "creating one needs CAP_BPF");
    }
    match host.attempt(Attempt::RingBuffer) {
        Ok(()) => Check::new(id, title, Status::Ok, "may be created"),
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

/// Classifiers: the lab puts its faults in with one.
pub(super) fn sched_cls(host: &impl HostAccess, caps: &Privileges) -> Check {
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
            "programs may be loaded (the lab needs them)",
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

/// What can tell of a half-open's end as it happens. Without, it is missed at a look at sock_diag.
pub(super) fn exact(
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
    // Any function that the programs are for will do.
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
                    "allow BPF_PROG_TYPE_TRACING; or ask for it: --mode exact then takes the \
                     timers' tracepoints, which cost more",
                ),
                Err(_) => check,
            }
        }
    };
    (check, exact)
}

/// `--mode exact`, and nothing tells.
pub(super) fn not_exact(why: String) -> Check {
    let detail = format!("--mode exact: {why}");
    Check::new("fentry", "exact mode", Status::Missing, detail)
        .with_remedy("use --mode auto, or allow BPF_PROG_TYPE_TRACING")
}

/// Without the JIT, programs are interpreted.
pub(super) fn jit(host: &impl HostAccess) -> Check {
    let check = |status, detail: &str| Check::new("jit", "BPF JIT", status, detail);
    match text(host, "/proc/sys/net/core/bpf_jit_enable")
        .as_deref()
        .map(str::trim)
    {
        Some("0") => check(Status::Degraded, "off: programs are interpreted")
            .with_lost("low overhead")
            .with_remedy("sudo sysctl net.core.bpf_jit_enable=1"),
        Some(_) => check(Status::Ok, "on"),
        None => check(
            Status::Note,
            "net.core.bpf_jit_enable cannot be seen from here",
        ),
    }
}

/// What was there before the agent, and what ended unseen.
pub(super) fn sock_diag(host: &impl HostAccess) -> Check {
    let check = |status, detail: String| Check::new("sock_diag", "sock_diag", status, detail);
    match host.attempt(Attempt::SockDiag) {
        Ok(()) => check(Status::Ok, "answers for TCP".to_owned()),
        Err(e) => check(Status::Degraded, refusal("sock_diag for TCP", &e))
            .with_lost("half-opens from before the start, and those that end without an event")
            .with_remedy("sudo modprobe -a inet_diag tcp_diag"),
    }
}

/// Raw sockets: `sk_err` tells that there was an ICMP error, not whose.
pub(super) fn icmp(host: &impl HostAccess, caps: &Privileges) -> Check {
    let check = |status, detail: String| Check::new("icmp", "ICMP errors", status, detail);
    let less = |detail| {
        check(Status::Degraded, detail).with_lost("which router or host sent an ICMP error")
    };
    let missing = caps.missing(&[CAP_NET_RAW]);
    if !missing.is_empty() {
        return less(format!("{} is missing", missing.join(", ")))
            .with_remedy(caps.remedy(&missing));
    }
    match host.attempt(Attempt::Icmp) {
        Ok(()) => check(Status::Ok, "may be listened to".to_owned()),
        Err(e) => {
            let check = less(refusal("raw sockets for ICMP", &e));
            match e.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => check.with_remedy(remedy_of_refusal(&e)),
                _ => check,
            }
        }
    }
}

/// Paths of cgroups.
pub(super) fn cgroup2(host: &impl HostAccess) -> Check {
    let check = |status, detail: String| Check::new("cgroup2", "cgroup v2", status, detail);
    match mount_of(host, "cgroup2") {
        Some(path) => check(Status::Ok, format!("mounted on {}", path.display())),
        None => check(Status::Degraded, "not mounted".to_owned())
            .with_lost("the cgroup of a connection")
            .with_remedy("sudo mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

/// The length of a jiffy: time-outs and timers are kept in jiffies, so without it every prediction
/// would be a guess.
pub(super) fn hz(host: &impl HostAccess) -> (Check, Option<u32>) {
    let check = |status, detail: String| Check::new("hz", "HZ", status, detail);
    let release = host.release().unwrap_or_default();
    let hz = kernel::hz(host.tick_ns(), &release, |path| host.read(path));
    let check = match hz {
        Some(hz) => check(Status::Ok, format!("{hz} jiffies a second")),
        None => check(
            Status::Missing,
            "this kernel does not tell the length of a jiffy".to_owned(),
        )
        .with_remedy("run with sudo, or provide /boot/config-$(uname -r)"),
    };
    (check, hz)
}

/// `net.ipv4.ip_local_port_range` of this network namespace; every port where it cannot be told,
/// because taking too many ports for ephemeral ones loses nothing.
pub(super) fn ephemeral_ports(host: &impl HostAccess) -> (u16, u16) {
    let range = text(host, "/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = range.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => (first, last),
        _ => (0, u16::MAX),
    }
}

/// Raw tracepoints are attached by bpf(2) alone.
pub(super) fn tracefs(host: &impl HostAccess) -> Check {
    let mounted = if mount_of(host, "tracefs").is_some() {
        "mounted"
    } else {
        "not mounted"
    };
    Check::new(
        "tracefs",
        "tracefs",
        Status::Note,
        format!("{mounted}; not needed"),
    )
}

/// The first mount point of this type, from /proc/self/mounts.
fn mount_of(host: &impl HostAccess, fs: &str) -> Option<PathBuf> {
    text(host, "/proc/self/mounts")?.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == fs).then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

fn refusal(what: &str, e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EPERM) => format!("{what}: refused by this host (EPERM)"),
        Some(libc::ENOSYS) => format!("{what}: not built into this kernel (ENOSYS)"),
        Some(libc::EINVAL) => format!("{what}: not known to this kernel (EINVAL)"),
        _ => format!("{what}: {e}"),
    }
}

fn remedy_of_refusal(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "a container, a user namespace, seccomp or a security module is in the way: run in the \
             host's own namespaces, as its root"
        }
        _ => "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_BPF_EVENTS=y",
    }
}
