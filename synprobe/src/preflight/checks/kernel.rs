//! The kernel: its version, its settings, its clock.

use crate::{
    preflight::{Check, HostAccess, Status, host::text},
    sys::kernel::{self, KernelVersion},
};

/// The first kernel with `BPF_MAP_TYPE_RINGBUF` and CAP_BPF.
const OLDEST: (u32, u32) = (5, 8);

/// Linux 5.8 or later.
pub(in crate::preflight) fn kernel(host: &impl HostAccess) -> (Check, Option<KernelVersion>) {
    let missing = |detail: String| {
        let (major, minor) = OLDEST;
        Check::new("kernel", "kernel", Status::Missing, detail)
            .with_remedy(format!("boot Linux {major}.{minor} or later"))
    };
    let release = match host.release() {
        Ok(release) => release,
        Err(e) => {
            return (
                missing(format!("cannot read the kernel release: {e}")),
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

/// Replaces all checks that need a kernel of [`OLDEST`] or later. BTF describes tracepoints since Linux
/// 5.5 (`btf_trace_` types): on an older kernel these checks would report things as missing that exist.
pub(in crate::preflight) fn not_checked() -> Check {
    let detail = "not checked: they do not apply to a kernel this old";
    Check::new("rest", "other checks", Status::Note, detail)
}

/// Confidentiality lockdown forbids bpf_probe_read_kernel() (LOCKDOWN_BPF_READ_KERNEL).
pub(in crate::preflight) fn lockdown(host: &impl HostAccess) -> Check {
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
        None => check(Status::Ok, "none visible"),
    }
}

/// Without the JIT, programs are interpreted.
pub(in crate::preflight) fn jit(host: &impl HostAccess) -> Check {
    let check = |status, detail: &str| Check::new("jit", "BPF JIT", status, detail);
    match text(host, "/proc/sys/net/core/bpf_jit_enable")
        .as_deref()
        .map(str::trim)
    {
        Some("0") => check(Status::Degraded, "off: programs are interpreted")
            .with_lost("low overhead")
            .with_remedy("sudo sysctl net.core.bpf_jit_enable=1"),
        Some(_) => check(Status::Ok, "on"),
        None => check(Status::Note, "net.core.bpf_jit_enable is not visible here"),
    }
}

/// The length of a jiffy. The kernel keeps time-outs and timers in jiffies: without it every prediction
/// would be a guess.
pub(in crate::preflight) fn hz(host: &impl HostAccess) -> (Check, Option<u32>) {
    let check = |status, detail: String| Check::new("hz", "HZ", status, detail);
    let release = host.release().unwrap_or_default();
    let hz = kernel::hz(host.tick_ns(), &release, |path| host.read(path));
    let check = match hz {
        Some(hz) => check(Status::Ok, format!("{hz} jiffies a second")),
        None => check(
            Status::Missing,
            "the length of a jiffy cannot be determined".to_owned(),
        )
        .with_remedy("run with sudo, or provide /boot/config-$(uname -r)"),
    };
    (check, hz)
}

/// `net.ipv4.ip_local_port_range` of this network namespace; every port where it cannot be read. A range
/// that is too wide loses nothing.
pub(in crate::preflight) fn ephemeral_ports(host: &impl HostAccess) -> (u16, u16) {
    let range = text(host, "/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = range.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => (first, last),
        _ => (0, u16::MAX),
    }
}
