//! The capabilities of this process, and what each one allows.

use super::{Check, HostAccess, Status, host::text};
use crate::sys::privileges as cap;

/// The capabilities of this process.
pub(super) struct Privileges {
    uid: Option<u32>,
    /// The effective set; `None` where it cannot be read.
    effective: Option<u64>,
    /// Whether the set counts in a user namespace only: BPF ignores it then.
    only_in_namespace: bool,
}

/// A capability: its name and its bit (include/uapi/linux/capability.h).
pub(super) type Cap = (&'static str, u32);
const CAP_DAC_OVERRIDE: Cap = ("CAP_DAC_OVERRIDE", cap::DAC_OVERRIDE);
const CAP_DAC_READ_SEARCH: Cap = ("CAP_DAC_READ_SEARCH", cap::DAC_READ_SEARCH);
pub(super) const CAP_NET_ADMIN: Cap = ("CAP_NET_ADMIN", cap::NET_ADMIN);
pub(super) const CAP_NET_RAW: Cap = ("CAP_NET_RAW", cap::NET_RAW);
const CAP_SYS_PTRACE: Cap = ("CAP_SYS_PTRACE", cap::SYS_PTRACE);
pub(super) const CAP_SYS_ADMIN: Cap = ("CAP_SYS_ADMIN", cap::SYS_ADMIN);
const CAP_PERFMON: Cap = ("CAP_PERFMON", cap::PERFMON);
const CAP_BPF: Cap = ("CAP_BPF", cap::BPF);

/// All capabilities at once: setcap replaces those set before.
const SETCAP: &str = "run with sudo, or: sudo setcap cap_bpf,cap_perfmon,cap_net_admin,\
    cap_net_raw,cap_sys_admin,cap_sys_ptrace,cap_dac_read_search,cap_syslog=ep \"$(command -v synprobe)\"";

impl Privileges {
    /// From /proc/self/status.
    pub(super) fn of(host: &impl HostAccess) -> Self {
        let status = text(host, "/proc/self/status").unwrap_or_default();
        // The host's own user namespace maps every id to itself.
        let mapped = text(host, "/proc/self/uid_map")
            .is_some_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]));
        let field = |name| status.lines().find_map(|l| l.strip_prefix(name));
        Self {
            // Real, effective, saved, of the file system.
            uid: field("Uid:").and_then(|l| l.split_whitespace().nth(1)?.parse().ok()),
            effective: field("CapEff:").and_then(|l| u64::from_str_radix(l.trim(), 16).ok()),
            only_in_namespace: mapped,
        }
    }

    fn has(&self, cap: Cap) -> bool {
        !self.only_in_namespace && self.effective.is_some_and(|set| set >> cap.1 & 1 == 1)
    }

    /// Whether programs may be loaded. CAP_SYS_ADMIN includes both capabilities (bpf_capable(),
    /// perfmon_capable()).
    pub(super) fn may_probe(&self) -> bool {
        self.has(CAP_SYS_ADMIN) || self.has(CAP_BPF) && self.has(CAP_PERFMON)
    }

    pub(super) fn missing(&self, caps: &[Cap]) -> Vec<&'static str> {
        caps.iter()
            .filter(|cap| !self.has(**cap))
            .map(|cap| cap.0)
            .collect()
    }

    pub(super) fn remedy(&self, missing: &[&str]) -> String {
        if self.only_in_namespace {
            return "this is a user namespace, and its capabilities do not count for BPF: run outside it"
                .to_owned();
        }
        if self.uid != Some(0) {
            return SETCAP.to_owned();
        }
        // Root, but of a container or a stripped service.
        let flags: Vec<_> = missing
            .iter()
            .map(|cap| format!("--cap-add {}", cap.trim_start_matches("CAP_")))
            .collect();
        format!(
            "root does not have them here: run on the host, or start the container with {}",
            flags.join(" ")
        )
    }
}

/// CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN.
pub(super) fn privileges(caps: &Privileges) -> Check {
    let check = |status, detail: String| Check::new("privileges", "privileges", status, detail);
    if caps.may_probe() {
        let held = [CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN]
            .into_iter()
            .filter(|c| caps.has(*c));
        let held: Vec<_> = held.map(|c| c.0).collect();
        return check(Status::Ok, held.join(", "));
    }
    let missing = caps.missing(&[CAP_BPF, CAP_PERFMON]);
    let uid = caps
        .uid
        .map_or_else(|| "an unknown user".to_owned(), |uid| format!("uid {uid}"));
    let verb = if missing.len() == 1 { "is" } else { "are" };
    check(
        Status::Missing,
        format!("{} {verb} missing ({uid})", missing.join(" and ")),
    )
    .with_remedy(caps.remedy(&missing))
}

/// Entering another network namespace (setns(2)).
pub(super) fn namespaces(caps: &Privileges) -> Check {
    let (id, title) = ("namespaces", "namespaces");
    let missing = caps.missing(&[CAP_SYS_ADMIN]);
    if missing.is_empty() {
        return Check::new(
            id,
            title,
            Status::Ok,
            "other network namespaces can be entered",
        );
    }
    Check::new(
        id,
        title,
        Status::Degraded,
        format!("{} is missing", missing.join(", ")),
    )
    .with_lost("names, settings and existing half-opens of other network namespaces; --netns")
    .with_remedy(caps.remedy(&missing))
}

/// Rules of the packet filter (`netlink_net_capable()`, `do_ipt_get_ctl()`).
pub(super) fn rules(caps: &Privileges) -> Check {
    let (id, title) = ("rules", "packet filter");
    let missing = caps.missing(&[CAP_NET_ADMIN]);
    if missing.is_empty() {
        return Check::new(id, title, Status::Ok, "its rules can be read");
    }
    Check::new(
        id,
        title,
        Status::Degraded,
        format!("{} is missing", missing.join(", ")),
    )
    .with_lost("which rule of the packet filter dropped a packet")
    .with_remedy(caps.remedy(&missing))
}

/// Finding a socket's owner reads /proc/<pid>/fd of every process: proc_fd_permission(), and
/// PTRACE_MODE_READ_FSCREDS for the links in it.
pub(super) fn processes(caps: &Privileges) -> Check {
    let (id, title) = ("processes", "processes");
    let mut missing = caps.missing(&[CAP_SYS_PTRACE]);
    if !caps.has(CAP_DAC_READ_SEARCH) && !caps.has(CAP_DAC_OVERRIDE) {
        missing.push(CAP_DAC_READ_SEARCH.0);
    }
    if missing.is_empty() {
        return Check::new(id, title, Status::Ok, "sockets can be mapped to processes");
    }
    Check::new(
        id,
        title,
        Status::Degraded,
        format!("{} missing", missing.join(" and ")),
    )
    .with_lost("the process that owns a listener of another user")
    .with_remedy(caps.remedy(&missing))
}
