//! The sockets that the agent opens.

use super::{refusal, remedy_of_refusal};
use crate::preflight::{
    Attempt, Check, HostAccess, Status,
    privileges::{CAP_NET_RAW, Privileges},
};

/// sock_diag shows the half-opens from before the start, and those that ended without an event.
pub(in crate::preflight) fn sock_diag(host: &impl HostAccess) -> Check {
    let check = |status, detail: String| Check::new("sock_diag", "sock_diag", status, detail);
    match host.attempt(Attempt::SockDiag) {
        Ok(()) => check(Status::Ok, "answers for TCP".to_owned()),
        Err(e) => check(Status::Degraded, refusal("sock_diag for TCP", &e))
            .with_lost("half-opens from before the start, and those that end without an event")
            .with_remedy("sudo modprobe -a inet_diag tcp_diag"),
    }
}

/// Raw sockets for ICMP. `sk_err` shows that there was an ICMP error, not who sent it.
pub(in crate::preflight) fn icmp(host: &impl HostAccess, caps: &Privileges) -> Check {
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
        Ok(()) => check(Status::Ok, "can be received".to_owned()),
        Err(e) => {
            let check = less(refusal("raw sockets for ICMP", &e));
            match e.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => check.with_remedy(remedy_of_refusal(&e)),
                _ => check,
            }
        }
    }
}
