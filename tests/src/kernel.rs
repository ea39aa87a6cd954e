//! What kernels tell and others do not. Each difference has a name here, and a test holds a kernel
//! that does not tell to less, never to nothing. docs/kernels.md lists them.

use synprobe::{preflight::Ready, probe::hooks};

/// The running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Retransmissions that failed raise `tcp_retransmit_skb` too, with their error: from 6.17.
    pub failed_sends: bool,
    /// Packets that the host drops have a reason: from 5.17.
    pub drops: bool,
    /// And a receiving socket, so that a half-open within its first second is seen to die of a RST:
    /// from 6.11. Before, it is missed at a look, if it lives so long.
    pub half_open_deaths: bool,
    /// ICMP errors that end nothing raise `inet_sk_error_report`: from 5.14.
    pub soft_errors: bool,
}

impl Capabilities {
    /// By what the loader has found to attach to.
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
