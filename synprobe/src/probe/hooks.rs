//! One table: every tracepoint that programs hang on, and what it must hand them.

/// A tracepoint as the programs expect it.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Its name, without the group.
    pub name: &'static str,
    /// The prototypes that are understood, as `TP_PROTO` gives them.
    pub args: &'static [&'static [&'static str]],
    /// Without it nothing can be measured.
    pub required: bool,
    /// The first kernel that has it.
    pub since: (u32, u32),
    /// What is lost without it; empty for a required one.
    pub feature: &'static str,
}

/// All of them. Every prototype from include/trace/events/{sock,tcp}.h.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "inet_sock_set_state",
        args: &[&["const struct sock *", "const int", "const int"]],
        required: true,
        since: (4, 16),
        feature: "",
    },
    Hook {
        name: "tcp_retransmit_skb",
        // 6.17 appended the result of the attempt, and raises it for failed ones too.
        args: &[
            &["const struct sock *", "const struct sk_buff *"],
            &["const struct sock *", "const struct sk_buff *", "int"],
        ],
        required: true,
        since: (4, 15),
        feature: "",
    },
    Hook {
        name: "tcp_retransmit_synack",
        args: &[&["const struct sock *", "const struct request_sock *"]],
        required: true,
        since: (4, 15),
        feature: "",
    },
    Hook {
        name: "tcp_receive_reset",
        args: &[&["struct sock *"]],
        required: true,
        since: (4, 15),
        feature: "",
    },
    Hook {
        name: "inet_sk_error_report",
        args: &[&["const struct sock *"]],
        required: false,
        since: (5, 15),
        feature: "ICMP errors that do not end a handshake",
    },
];
