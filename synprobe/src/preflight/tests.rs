//! The checks on fake hosts.

use std::{cell::RefCell, collections::HashMap, io, path::Path};

use super::*;
use crate::probe::{
    btf::{KERNEL_BTF, blob::Blob},
    hooks::HOOKS,
};

/// A host made of files.
struct FakeHost {
    release: &'static str,
    files: HashMap<&'static str, Vec<u8>>,
    tick_ns: Option<u64>,
    refused: Vec<(Attempt, i32)>,
    tried: RefCell<Vec<Attempt>>,
}

const STATUS: &str = "/proc/self/status";
const ALL_CAPS: u64 = (1 << 41) - 1;

fn status(uid: u32, caps: u64) -> Vec<u8> {
    format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapEff:\t{caps:016x}\n").into_bytes()
}

fn caps(bits: &[u32]) -> u64 {
    bits.iter().fold(0, |set, bit| set | 1 << bit)
}

impl FakeHost {
    /// One on which everything is as it should be.
    fn good() -> Self {
        let mounts = "proc /proc proc rw 0 0\nnone /sys/fs/my\\040cgroup cgroup2 rw 0 0\n";
        Self {
            release: "6.18.1",
            files: HashMap::from([
                (STATUS, status(0, ALL_CAPS)),
                (KERNEL_BTF, Blob::kernel(|_| false, HOOKS).bytes()),
                ("/proc/sys/net/core/bpf_jit_enable", b"1\n".to_vec()),
                (
                    "/sys/kernel/security/lockdown",
                    b"none [integrity] confidentiality\n".to_vec(),
                ),
                ("/proc/self/mounts", mounts.into()),
                (
                    "/proc/sys/net/ipv4/ip_local_port_range",
                    b"32768\t60999\n".to_vec(),
                ),
            ]),
            tick_ns: Some(4_000_000),
            refused: Vec::new(),
            tried: RefCell::default(),
        }
    }

    fn file(mut self, path: &'static str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path, contents.into());
        self
    }

    fn without(mut self, path: &str) -> Self {
        self.files.remove(path);
        self
    }

    fn refusing(mut self, attempt: Attempt, errno: i32) -> Self {
        self.refused.push((attempt, errno));
        self
    }

    fn report(&self) -> PreflightReport {
        report_on(self, HOOKS)
    }

    /// Both ways of asking must agree on what is fatal; gives the one line.
    fn fatal(&self, id: &str) -> String {
        let report = self.report();
        assert_eq!(report.verdict(), Readiness::CannotRun, "{report}");
        let error = require_on(self, HOOKS).unwrap_err();
        assert_eq!(error.0.id, id);
        assert!(report.checks.contains(&*error.0), "{report}");
        let line = error.to_string();
        assert!(!line.contains('\n') && error.0.remedy.is_some(), "{line}");
        line
    }

    /// What is lost, on a host that runs with less.
    fn less(&self, id: &str) -> Check {
        let report = self.report();
        assert_eq!(report.verdict(), Readiness::CanRunWithLess, "{report}");
        let check = report.checks.iter().find(|c| c.id == id).unwrap().clone();
        assert_eq!(check.status, Status::Degraded, "{check:?}");
        assert!(check.lost.is_some(), "{check:?}");
        require_on(self, HOOKS).unwrap();
        check
    }
}

impl HostAccess for FakeHost {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = path.to_str().unwrap();
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn release(&self) -> io::Result<String> {
        Ok(self.release.to_owned())
    }

    fn tick_ns(&self) -> Option<u64> {
        self.tick_ns
    }

    fn attempt(&self, attempt: Attempt) -> io::Result<()> {
        self.tried.borrow_mut().push(attempt);
        match self.refused.iter().find(|(refused, _)| *refused == attempt) {
            Some((_, errno)) => Err(io::Error::from_raw_os_error(*errno)),
            None => Ok(()),
        }
    }
}

#[test]
fn a_good_host_can_run() {
    let host = FakeHost::good();
    let report = host.report();
    assert_eq!(report.verdict(), Readiness::CanRun, "{report}");
    let ready = require_on(&host, HOOKS).unwrap();
    assert_eq!((ready.hz, ready.kernel.major), (250, 6));
    assert_eq!(ready.ephemeral_ports, (32768, 60999));
    assert!(ready.missing.is_empty());
    // The made-up kernel has each hook's last prototype.
    for (hook, chosen) in HOOKS.iter().zip(&ready.hooks) {
        assert_eq!(chosen.hook.name, hook.name);
        assert_eq!(
            chosen.program,
            hook.variants[hook.variants.len() - 1].program
        );
    }
    assert_eq!(ready.hooks.len(), HOOKS.len());
    assert!(
        host.report()
            .to_string()
            .contains("mounted on /sys/fs/my cgroup")
    );
}

/// All hooks but one.
fn other_than(name: &str) -> impl Iterator<Item = &'static Hook> {
    HOOKS.iter().filter(move |hook| hook.name != name)
}

/// The program that is taken for a hook.
fn program(host: &FakeHost, hook: &str) -> Option<&'static str> {
    let ready = require_on(host, HOOKS).unwrap();
    ready
        .hooks
        .iter()
        .find(|chosen| chosen.hook.name == hook)
        .map(|chosen| chosen.program)
}

#[test]
fn an_old_kernel() {
    let host = FakeHost {
        release: "5.4.0-42-generic",
        ..FakeHost::good()
    };
    assert_eq!(
        host.fatal("kernel"),
        "Linux 5.4.0-42-generic has no BPF ring buffer, which came with 5.8: \
         boot Linux 5.8 or later"
    );
    // Its BTF has no tracepoints (they came in 5.5), which says nothing of the kernel.
    let said = host
        .file(KERNEL_BTF, Blob::kernel(|_| false, &[]).bytes())
        .report();
    assert!(!said.to_string().contains("has no tracepoint"), "{said}");
    assert!(
        FakeHost {
            release: "strange",
            ..FakeHost::good()
        }
        .fatal("kernel")
        .contains("`strange`")
    );
}

#[test]
fn no_btf() {
    let line = FakeHost::good().without(KERNEL_BTF).fatal("btf");
    assert!(
        line.contains("built without CONFIG_DEBUG_INFO_BTF"),
        "{line}"
    );
    assert!(
        FakeHost::good()
            .file(KERNEL_BTF, *b"junk")
            .fatal("btf")
            .contains("BTF")
    );
}

#[test]
fn missing_capabilities_are_named() {
    let line = FakeHost::good()
        .file(STATUS, status(1000, 0))
        .fatal("privileges");
    assert!(
        line.starts_with("CAP_BPF and CAP_PERFMON are missing (uid 1000): run with sudo"),
        "{line}"
    );
    assert!(line.contains("setcap cap_bpf,cap_perfmon,"), "{line}");
    let line = FakeHost::good()
        .file(STATUS, status(0, caps(&[39])))
        .fatal("privileges");
    assert!(line.starts_with("CAP_PERFMON is missing (uid 0)"), "{line}");
    assert!(line.contains("--cap-add PERFMON"), "{line}");
    FakeHost::good().without(STATUS).fatal("privileges");
    let host = FakeHost::good().file("/proc/self/uid_map", *b"         0       1000          1\n");
    assert!(host.fatal("privileges").contains("user namespace"));
    let host = FakeHost::good().file("/proc/self/uid_map", *b"         0          0 4294967295\n");
    require_on(&host, HOOKS).unwrap();
}

#[test]
fn without_privileges_the_rest_is_untested_and_untried() {
    let host = FakeHost::good().file(STATUS, status(1000, 0));
    let report = host.report();
    assert_eq!(*host.tried.borrow(), [Attempt::SockDiag]);
    let untested: Vec<_> = report.with(Status::Untested).map(|c| &*c.id).collect();
    assert_eq!(untested, ["raw_tracepoint", "ring_buffer", "fentry"]);
    let text = report.to_string();
    assert!(
        text.lines()
            .last()
            .unwrap()
            .contains("not tested without privileges"),
        "{text}"
    );
}

#[test]
fn the_least_privileges_run_with_less() {
    let host = FakeHost::good().file(STATUS, status(1000, caps(&[38, 39])));
    assert_eq!(host.less("sched_cls").lost.as_deref(), Some("the lab"));
    host.less("namespaces");
    let check = host.less("icmp");
    assert_eq!(check.detail, "CAP_NET_RAW is missing");
    assert!(check.remedy.is_some_and(|r| r.contains("cap_net_raw")));
    // What may not be tried is not tried.
    assert!(!host.tried.borrow().contains(&Attempt::Icmp));
    assert!(
        host.less("processes")
            .detail
            .contains("CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH")
    );
    assert_eq!(host.less("rules").detail, "CAP_NET_ADMIN is missing");
    // What stood for both before 5.8, and does still.
    require_on(
        &FakeHost::good().file(STATUS, status(0, caps(&[21]))),
        HOOKS,
    )
    .unwrap();
}

#[test]
fn a_prototype_that_grew_is_refused_in_words() {
    let mut blob = Blob::kernel(|_| false, other_than("inet_sock_set_state"));
    blob.tracepoint(
        "inet_sock_set_state",
        &["const struct sock *", "int", "int", "int"],
    );
    let line = FakeHost::good()
        .file(KERNEL_BTF, blob.bytes())
        .fatal("tracepoint.inet_sock_set_state");
    assert!(
        line.starts_with(
            "this kernel's tracepoint inet_sock_set_state passes \
             (const struct sock *, int, int, int), expected \
             (const struct sock *, const int, const int): "
        ),
        "{line}"
    );
}

#[test]
fn hooks_that_are_not_there() {
    let blob = Blob::kernel(|_| false, other_than("inet_sock_set_state")).bytes();
    let line = FakeHost::good()
        .file(KERNEL_BTF, blob)
        .fatal("tracepoint.inet_sock_set_state");
    assert!(
        line.contains("no tracepoint inet_sock_set_state (since Linux 4.16)"),
        "{line}"
    );

    let required = HOOKS.iter().filter(|hook| hook.required);
    let host = FakeHost::good().file(KERNEL_BTF, Blob::kernel(|_| false, required).bytes());
    for hook in HOOKS.iter().filter(|hook| !hook.required) {
        host.less(&format!("tracepoint.{}", hook.name));
        assert_eq!(program(&host, hook.name), None);
    }
}

#[test]
fn the_prototypes_before_and_after_6_17_are_distinguished() {
    let (hook, sock, skb) = (
        "tcp_retransmit_skb",
        "const struct sock *",
        "const struct sk_buff *",
    );
    for (args, wanted) in [
        (&[sock, skb][..], "retransmit_skb"),
        (&[sock, skb, "int"], "retransmit_skb_err"),
    ] {
        let mut blob = Blob::kernel(|_| false, other_than(hook));
        blob.tracepoint(hook, args);
        let host = FakeHost::good().file(KERNEL_BTF, blob.bytes());
        assert_eq!(program(&host, hook), Some(wanted));
        if wanted == "retransmit_skb" {
            let lost = host.less("tracepoint.tcp_retransmit_skb").lost;
            assert!(lost.is_some_and(|lost| lost.contains("could not be sent")));
        } else {
            assert_eq!(host.report().verdict(), Readiness::CanRun);
        }
    }
}

#[test]
fn missing_reason_receiver_or_members_of_drops_are_reported() {
    let id = "tracepoint.kfree_skb";
    let with = |args: &[&str]| {
        let mut blob = Blob::kernel(|_| false, other_than("kfree_skb"));
        blob.tracepoint("kfree_skb", args);
        FakeHost::good().file(KERNEL_BTF, blob.bytes())
    };
    let (skb, reason) = ("struct sk_buff *", "enum skb_drop_reason");

    let host = with(&[skb, "void *", reason, "struct sock *"]);
    assert_eq!(host.report().verdict(), Readiness::CanRun);
    assert_eq!(program(&host, "kfree_skb"), Some("drop_skb_rx"));

    let host = with(&[skb, "void *", reason]);
    let lost = host.less(id).lost;
    assert!(lost.is_some_and(|lost| lost.contains("half-open")));
    assert_eq!(program(&host, "kfree_skb"), Some("drop_skb"));

    let host = with(&[skb, "void *"]);
    let check = host.less(id);
    assert_eq!(program(&host, "kfree_skb"), None);
    assert_eq!(
        check.detail,
        "this kernel's tracepoint kfree_skb passes (struct sk_buff *, void *), without the arguments \
         that Linux 5.17 added"
    );
    assert_eq!(check.remedy.as_deref(), Some("boot Linux 5.17 or later"));
    let lost = "packets that this host itself drops, and why";
    assert_eq!(check.lost.as_deref(), Some(lost));

    let blob = Blob::kernel(|m| m.path == "skb_iif", HOOKS);
    let host = FakeHost::good().file(KERNEL_BTF, blob.bytes());
    let check = host.less(id);
    assert_eq!(program(&host, "kfree_skb"), None);
    assert_eq!(
        check.detail,
        "this kernel's BTF has no struct sk_buff member skb_iif"
    );
    assert_eq!(check.lost.as_deref(), Some(lost));
    assert_eq!(require_on(&host, HOOKS).unwrap().missing, [lost]);
}

#[test]
fn members_that_are_not_there() {
    let blob = Blob::kernel(|m| m.path == "snt_synack", HOOKS).bytes();
    let line = FakeHost::good().file(KERNEL_BTF, blob).fatal("members");
    assert_eq!(
        line,
        format!(
            "this kernel's BTF has no struct tcp_request_sock member snt_synack: {}",
            crate::probe::offsets::OffsetsError::REMEDY
        )
    );
    let blob = Blob::kernel(|m| !m.required, HOOKS).bytes();
    FakeHost::good().file(KERNEL_BTF, blob).less("members");
}

#[test]
fn refused_program_types() {
    let host = FakeHost::good().refusing(Attempt::RawTracepoint, libc::EPERM);
    let line = host.fatal("raw_tracepoint");
    assert!(
        line.starts_with("raw tracepoint programs: refused by this host (EPERM)"),
        "{line}"
    );
    let host = FakeHost::good().refusing(Attempt::RingBuffer, libc::EPERM);
    assert!(host.fatal("ring_buffer").contains("namespace"));
    let host = FakeHost {
        release: "5.10.0",
        ..FakeHost::good()
    }
    .refusing(Attempt::RingBuffer, libc::EPERM);
    assert!(host.fatal("ring_buffer").contains("ulimit"));
    FakeHost::good()
        .refusing(Attempt::SchedCls, libc::EPERM)
        .less("sched_cls");
    FakeHost::good()
        .refusing(Attempt::SockDiag, libc::ENOENT)
        .less("sock_diag");
    let check = FakeHost::good()
        .refusing(Attempt::Icmp, libc::EPERM)
        .less("icmp");
    assert_eq!(
        check.detail,
        "raw sockets for ICMP: refused by this host (EPERM)"
    );
    assert_eq!(
        check.lost.as_deref(),
        Some("which router or host sent an ICMP error")
    );
}

#[test]
fn refused_fentry_is_only_a_note() {
    let mut blob = Blob::kernel(|_| false, HOOKS);
    let proto = blob.proto(0, &[]);
    let id = blob.link(12, "tcp_conn_request", proto);
    let bytes = blob.bytes();
    for (errno, words) in [
        (libc::EPERM, "refused by this host (EPERM); not needed"),
        (524, "cannot attach them (ENOTSUPP); not needed"),
    ] {
        let host = FakeHost::good()
            .file(KERNEL_BTF, bytes.clone())
            .refusing(Attempt::Fentry(id), errno);
        let report = host.report();
        assert_eq!(report.verdict(), Readiness::CanRun);
        let text = report.to_string();
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn settings_of_the_host() {
    let lockdown = "/sys/kernel/security/lockdown";
    let line = FakeHost::good()
        .file(lockdown, *b"none integrity [confidentiality]")
        .fatal("lockdown");
    assert!(line.contains("lockdown=confidentiality"), "{line}");
    FakeHost::good()
        .file("/proc/sys/net/core/bpf_jit_enable", *b"0\n")
        .less("jit");
    FakeHost::good()
        .without("/proc/self/mounts")
        .less("cgroup2");
    let host = FakeHost {
        tick_ns: None,
        ..FakeHost::good()
    };
    assert!(host.fatal("hz").contains("length of a jiffy"));
    let ports = "/proc/sys/net/ipv4/ip_local_port_range";
    for bad in ["", "5", "9 5", "1 99999", "a b"] {
        let ready = require_on(&FakeHost::good().file(ports, bad), HOOKS).unwrap();
        assert_eq!(ready.ephemeral_ports, (0, u16::MAX), "{bad}");
    }
    let report = FakeHost::good()
        .without(lockdown)
        .without("/proc/sys/net/core/bpf_jit_enable")
        .report();
    assert_eq!(report.verdict(), Readiness::CanRun);
}

#[test]
fn the_report_is_aligned_and_ends_with_the_verdict() {
    let report = PreflightReport::new(vec![
        Check::new("a", "short", Status::Ok, "fine"),
        Check::new("b", "a longer title", Status::Degraded, "gone")
            .with_lost("much")
            .with_remedy("do this"),
    ]);
    assert_eq!(
        report.to_string(),
        "ok        short           fine\n\
         degraded  a longer title  gone; lost: much\n\
         \x20                         do this\n\
         synprobe can run here, degraded: a longer title\n"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["verdict"], "can_run_with_less");
    assert_eq!(json["checks"][1]["status"], "degraded");
    assert_eq!(json["checks"][0]["remedy"], serde_json::Value::Null);
}

#[test]
fn this_host_gives_a_report() {
    let report = report();
    match require() {
        Ok(_) => assert_ne!(report.verdict(), Readiness::CannotRun, "{report}"),
        Err(e) => assert!(report.checks.contains(&*e.0), "{e}\n{report}"),
    }
}
