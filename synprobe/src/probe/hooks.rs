//! The table of tracepoints: programs, prototypes, first kernel, required or optional. The hooks of the
//! exact mode are in [`half_open_source`](super::half_open_source).

use synprobe_ebpf::config::DROPS_FEATURE;

use crate::model::NO_RECEIVER;

use super::btf::Prototype;

/// A program for a hook, and the prototype that it expects.
#[derive(Debug)]
pub struct Variant {
    /// Its name in the object.
    pub program: &'static str,
    /// The tracepoint's arguments as BTF prints them.
    pub args: &'static [&'static str],
    /// What it cannot report, although the hook exists; empty: nothing.
    pub lost: &'static str,
}

/// A tracepoint that is used.
#[derive(Debug)]
pub struct Hook {
    /// Its subsystem, for display.
    pub system: &'static str,
    /// Its name, for `bpf(BPF_RAW_TRACEPOINT_OPEN)`.
    pub name: &'static str,
    /// The programs that fit, by prototype.
    pub variants: &'static [Variant],
    /// Whether synprobe cannot run without it.
    pub required: bool,
    /// The first kernel that has it.
    pub since: (u32, u32),
    /// What it reports, which is lost without it. The hook is not used where members with the same feature
    /// are missing.
    pub feature: &'static str,
    /// Prototypes from before [`Hook::since`]: the tracepoint existed, without these arguments.
    pub too_old: &'static [&'static [&'static str]],
}

impl Hook {
    /// The program for the kernel's prototype; `None`: no program fits.
    pub fn choose(&'static self, prototype: &Prototype) -> Option<Chosen> {
        let fits = self
            .variants
            .iter()
            .find(|variant| prototype.takes(variant.args))?;
        Some(Chosen {
            hook: self,
            program: fits.program,
            lost: fits.lost,
        })
    }

    /// Whether a prototype is one from before [`Hook::since`].
    pub fn is_too_old(&self, prototype: &Prototype) -> bool {
        self.too_old.iter().any(|args| prototype.takes(args))
    }
}

/// A hook with the program that fits the running kernel.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// The hook.
    pub hook: &'static Hook,
    /// The program's name in the object.
    pub program: &'static str,
    /// [`Variant::lost`].
    pub lost: &'static str,
}

/// The tracepoint of dropped packets.
pub const DROPS: &str = "kfree_skb";
/// The program for it that receives the socket too.
pub const DROPS_WITH_RECEIVER: &str = "drop_skb_rx";

/// The tracepoint of a RST that is about to take effect.
pub const RESETS: &str = "tcp_receive_reset";

/// The tracepoint of every state transition.
pub const STATES: &str = "inet_sock_set_state";
/// The program that takes the events for which the kernel skips the regular one.
pub const STAND_IN: &str = "set_state_stand_in";

const SOCK: &str = "const struct sock *";
const SK_BUFF: &str = "struct sk_buff *";
const REASON: &str = "enum skb_drop_reason";

/// Every hook, in the order of attaching.
pub const HOOKS: &[Hook] = &[
    Hook {
        system: "tcp",
        name: "tcp_retransmit_synack",
        variants: &[Variant {
            program: "retransmit_synack",
            args: &[SOCK, "const struct request_sock *"],
            lost: "",
        }],
        required: true,
        since: (4, 15),
        feature: "SYN-ACK retransmissions, and when a half-open began",
        too_old: &[],
    },
    Hook {
        system: "tcp",
        name: "tcp_retransmit_skb",
        variants: &[
            Variant {
                program: "retransmit_skb",
                args: &[SOCK, "const struct sk_buff *"],
                lost: "retransmissions that could not be sent (Linux 6.17)",
            },
            Variant {
                program: "retransmit_skb_err",
                args: &[SOCK, "const struct sk_buff *", "int"],
                lost: "",
            },
        ],
        required: true,
        since: (4, 15),
        feature: "SYN and data retransmissions",
        too_old: &[],
    },
    Hook {
        system: "tcp",
        name: RESETS,
        variants: &[Variant {
            program: "receive_reset",
            args: &["struct sock *"],
            lost: "",
        }],
        required: false,
        since: (4, 15),
        feature: "whether a refusal was a RST or an ICMP port-unreachable, and resets right after the handshake",
        too_old: &[],
    },
    Hook {
        system: "sock",
        name: "inet_sk_error_report",
        variants: &[Variant {
            program: "error_report",
            args: &[SOCK],
            lost: "",
        }],
        required: false,
        since: (5, 14),
        feature: "ICMP errors that do not end the handshake",
        too_old: &[],
    },
    Hook {
        system: "sock",
        name: STATES,
        variants: &[Variant {
            program: "set_state",
            args: &[SOCK, "const int", "const int"],
            lost: "",
        }],
        required: true,
        since: (4, 16),
        feature: "every transition of a socket",
        too_old: &[],
    },
    Hook {
        system: "skb",
        name: DROPS,
        variants: &[
            Variant {
                program: "drop_skb",
                args: &[SK_BUFF, "void *", REASON],
                lost: NO_RECEIVER,
            },
            Variant {
                program: DROPS_WITH_RECEIVER,
                args: &[SK_BUFF, "void *", REASON, "struct sock *"],
                lost: "",
            },
        ],
        required: false,
        since: (5, 17),
        feature: DROPS_FEATURE,
        too_old: &[&[SK_BUFF, "void *"]],
    },
];
