//! Differences between kernels. Each has a name here. A test expects less of a kernel that lacks a
//! capability, but never nothing. docs/kernels.md lists them.

use synprobe::{preflight::Ready, probe::hooks};

/// Capabilities of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Failed retransmissions raise `tcp_retransmit_skb` too, with their error: from 6.17.
    pub failed_sends: bool,
    /// Dropped packets have a reason: from 5.17.
    pub drops: bool,
    /// Dropped packets have a receiving socket: from 6.11. A RST is then seen to end a half-open within its
    /// first second. Before, only a later poll notices that it is gone.
    pub half_open_deaths: bool,
    /// Soft ICMP errors raise `inet_sk_error_report`: from 5.14.
    pub soft_errors: bool,
}

impl Capabilities {
    /// The capabilities, from the hooks that the loader found.
    pub fn of(host: &Ready) -> Self {
        let program = |name: &str| host.hooks.iter().any(|chosen| chosen.program == name);
        let hook = |name: &str| host.hooks.iter().any(|chosen| chosen.hook.name == name);
        Self {
            failed_sends: program("retransmit_skb_err"),
            drops: hook(hooks::DROPS),
            half_open_deaths: program(hooks::DROPS_WITH_RECEIVER),
            soft_errors: hook("inet_sk_error_report"),
        }
    }
}
