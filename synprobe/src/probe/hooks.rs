//! The one table of hooks: tracepoint, program, prototype, since when, required or optional.

use super::btf::Prototype;

/// One way to attach to a hook: a program, and the prototype it was written for.
#[derive(Debug)]
pub struct Variant {
    /// Its name in the object.
    pub program: &'static str,
    /// The tracepoint's arguments as BTF prints them.
    pub args: &'static [&'static str],
}

/// A tracepoint that is listened to.
#[derive(Debug)]
pub struct Hook {
    /// Its subsystem, for people.
    pub system: &'static str,
    /// Its name, for `bpf(BPF_RAW_TRACEPOINT_OPEN)`.
    pub name: &'static str,
    /// The programs that fit, by prototype.
    pub variants: &'static [Variant],
    /// Without it synprobe cannot run.
    pub required: bool,
    /// The first kernel that has it.
    pub since: (u32, u32),
    /// What it tells, and so what is lost without it.
    pub feature: &'static str,
}

impl Hook {
    /// The program for a prototype; `None` where the kernel's is not one that any was written for.
    pub fn choose(&'static self, prototype: &Prototype) -> Option<Chosen> {
        let fits = self
            .variants
            .iter()
            .find(|variant| prototype.takes(variant.args))?;
        Some(Chosen {
            hook: self,
            program: fits.program,
        })
    }
}

/// A hook with the program that fits the running kernel.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// The hook.
    pub hook: &'static Hook,
    /// The program's name in the object.
    pub program: &'static str,
}

const SOCK: &str = "const struct sock *";

/// Every hook, in the order in which they are attached.
pub const HOOKS: &[Hook] = &[
    Hook {
        system: "tcp",
        name: "tcp_retransmit_synack",
        variants: &[Variant {
            program: "retransmit_synack",
            args: &[SOCK, "const struct request_sock *"],
        }],
        required: true,
        since: (4, 15),
        feature: "SYN-ACK retransmissions, and when a half-open began",
    },
    Hook {
        system: "tcp",
        name: "tcp_retransmit_skb",
        variants: &[
            Variant {
                program: "retransmit_skb_err",
                args: &[SOCK, "const struct sk_buff *", "int"],
            },
            Variant {
                program: "retransmit_skb",
                args: &[SOCK, "const struct sk_buff *"],
            },
        ],
        required: true,
        since: (4, 15),
        feature: "SYN and data retransmissions",
    },
    Hook {
        system: "tcp",
        name: "tcp_receive_reset",
        variants: &[Variant {
            program: "receive_reset",
            args: &["struct sock *"],
        }],
        required: false,
        since: (4, 15),
        feature: "whether a refusal was a RST or an ICMP port-unreachable",
    },
    Hook {
        system: "sock",
        name: "inet_sk_error_report",
        variants: &[Variant {
            program: "error_report",
            args: &[SOCK],
        }],
        required: false,
        since: (5, 14),
        feature: "ICMP errors that do not end the handshake",
    },
    Hook {
        system: "sock",
        name: "inet_sock_set_state",
        variants: &[Variant {
            program: "set_state",
            args: &[SOCK, "const int", "const int"],
        }],
        required: true,
        since: (4, 16),
        feature: "every transition of a socket",
    },
];
