//! The table of `synprobe listeners`.

use std::{fmt::Write as _, net::SocketAddr};

use crate::{
    model::{LimitedBy, Listener, ListenerTable, who},
    util::format::safe,
};

fn is_full(l: &Listener) -> bool {
    l.accept_queue > l.accept_queue_max
}

fn unknown<T: ToString>(value: Option<T>) -> String {
    value.map_or("?".to_owned(), |value| value.to_string())
}

/// The table as text. `asked`: the ports that were requested, if any.
pub fn text(table: &ListenerTable, asked: Option<&str>, colour: bool) -> String {
    let named = table
        .namespaces
        .iter()
        .any(|namespace| &*namespace.name != "host");
    let mut rows = vec![
        [
            "LISTENER",
            "PROCESS",
            "NETNS",
            "SYN-Q/MAX",
            "ACCEPT-Q/MAX",
            "LIMITED BY",
            "DROPS",
        ]
        .map(str::to_owned),
    ];
    rows.extend(table.listeners().map(row));
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max();
    let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    let full = std::iter::once(false).chain(table.listeners().map(is_full));
    for (row, full) in rows.iter().zip(full) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = match column {
                2 if !named => Ok(()),
                // Numbers are right-aligned.
                3 | 4 | 6 => write!(line, "{cell:>width$}  "),
                _ => write!(line, "{cell:<width$}  "),
            };
        }
        if full {
            line.push_str("FULL");
        }
        let line = line.trim_end();
        let _ = match full && colour {
            true => writeln!(text, "\x1b[31m{line}\x1b[0m"),
            false => writeln!(text, "{line}"),
        };
    }
    if rows.len() == 1 {
        let _ = writeln!(text, "{}", no_listener(asked));
    }
    for (n, namespace) in table.namespaces.iter().enumerate() {
        let gap = if n == 0 { "\n" } else { "" };
        let settings = &namespace.settings;
        let _ = writeln!(
            text,
            "{gap}{}: ListenOverflows {}, SyncookiesSent {}; somaxconn {}, tcp_max_syn_backlog {}, tcp_syncookies {}",
            safe(&namespace.name),
            unknown(namespace.overflows),
            unknown(namespace.syn_cookies),
            unknown(settings.somaxconn),
            unknown(settings.tcp_max_syn_backlog),
            unknown(settings.tcp_syncookies),
        );
        for shared in &namespace.shared {
            let _ = writeln!(
                text,
                "  {}: {} half-opens in the SYN queues of {} sockets (SO_REUSEPORT)",
                shared.local, shared.half_opens, shared.members,
            );
        }
    }
    text
}

/// The line for an empty table.
pub fn no_listener(asked: Option<&str>) -> String {
    match asked {
        Some(ports) => format!("no listener on {ports}"),
        None => "no listener on any port".to_owned(),
    }
}

fn row(l: &Listener) -> [String; 7] {
    let process = match &*who(l.comm.as_deref(), l.pid, &l.workload) {
        "" => "?".to_owned(),
        who => who.to_owned(),
    };
    let netns = match l.netns_name.as_deref() {
        Some("host") => String::new(),
        Some(name) => safe(name).into_owned(),
        None => l.netns.to_string(),
    };
    let limited_by = match l.limited_by {
        Some(LimitedBy::ListenBacklog) => "listen backlog",
        Some(LimitedBy::Somaxconn) => "somaxconn",
        Some(LimitedBy::TcpMaxSynBacklog) => "tcp_max_syn_backlog",
        None => "?",
    };
    let queue = |now, max| format!("{}/{}", unknown::<u32>(now), unknown::<u32>(max));
    [
        SocketAddr::new(l.local_addr, l.local_port).to_string(),
        process,
        netns,
        queue(l.syn_queue, l.syn_queue_max),
        queue(l.accept_queue, l.accept_queue_max),
        limited_by.to_owned(),
        unknown(l.drops),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, Line, ListenerNamespace, QueueSettings, SharedSynQueue},
        verdict::fixtures::listener,
    };

    fn table(listeners: Vec<Listener>) -> ListenerTable {
        let line = |l| Line {
            mono_ns: 1,
            body: Body::Listener(Box::new(l)),
        };
        let lines = listeners.into_iter().map(line).collect();
        ListenerTable {
            namespaces: vec![ListenerNamespace {
                name: "host".into(),
                settings: QueueSettings {
                    somaxconn: Some(4096),
                    tcp_max_syn_backlog: Some(512),
                    tcp_syncookies: Some(1),
                    full_at_backlog: false,
                },
                overflows: Some(7),
                syn_cookies: None,
                shared: Vec::new(),
            }],
            lines,
            ..ListenerTable::default()
        }
    }

    #[test]
    fn rows_keep_their_order_and_a_full_listener_is_marked() {
        let at = |accept, syn, port| Listener {
            local_port: port,
            limited_by: Some(LimitedBy::ListenBacklog),
            drops: Some(u64::from(accept)),
            ..listener(accept, syn)
        };
        // A queue at its limit takes one more: it is not full yet.
        let list = vec![at(129, 0, 82), at(128, 0, 81), at(3, 90, 83), at(0, 0, 80)];
        let text = text(&table(list), None, false);
        let expected = "\
LISTENER    PROCESS  SYN-Q/MAX  ACCEPT-Q/MAX  LIMITED BY      DROPS
0.0.0.0:82  app/77       0/128       129/128  listen backlog    129  FULL
0.0.0.0:81  app/77       0/128       128/128  listen backlog    128
0.0.0.0:83  app/77      90/128         3/128  listen backlog      3
0.0.0.0:80  app/77       0/128         0/128  listen backlog      0

host: ListenOverflows 7, SyncookiesSent ?; somaxconn 4096, tcp_max_syn_backlog 512, tcp_syncookies 1
";
        assert_eq!(text, expected);
    }

    #[test]
    fn shared_syn_queues_are_printed_below_the_table() {
        let member = || Listener {
            syn_queue: None,
            ..listener(0, 0)
        };
        let mut shown = table(vec![member(), member()]);
        shown.namespaces[0].shared = vec![SharedSynQueue {
            local: "0.0.0.0:8080".parse().unwrap(),
            members: 2,
            half_opens: 307,
        }];
        let text = text(&shown, None, false);
        assert_eq!(text.matches("?/128").count(), 2, "{text}");
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "  0.0.0.0:8080: 307 half-opens in the SYN queues of 2 sockets (SO_REUSEPORT)"
        );
    }

    #[test]
    fn a_full_listener_is_red_on_a_terminal_and_unknown_is_a_question_mark() {
        let full = Listener {
            syn_queue: None,
            pid: None,
            comm: None,
            ..listener(200, 0)
        };
        let text = text(&table(vec![full]), None, true);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("\x1b[31m0.0.0.0:8080  ?"), "{line:?}");
        assert!(
            line.contains("?/128") && line.ends_with("FULL\x1b[0m"),
            "{line:?}"
        );
    }

    #[test]
    fn a_namespace_is_named_unless_it_is_the_host() {
        let elsewhere = Listener {
            netns_name: Some("blue\x1b[0m".into()),
            ..listener(0, 0)
        };
        let mut both = table(vec![listener(5, 0), elsewhere]);
        both.namespaces[0].name = "blue\x1b[0m".into();
        let text = text(&both, None, false);
        assert!(text.contains("NETNS") && text.contains("blue"), "{text}");
        assert!(
            !text.contains('\x1b'),
            "a name is no escape sequence: {text:?}"
        );
    }

    #[test]
    fn an_empty_table_names_the_ports() {
        let nothing = ListenerTable::default();
        let text = text(&nothing, Some("8080,9000-9010"), false);
        assert!(text.starts_with("LISTENER"), "{text}");
        assert!(text.ends_with("no listener on 8080,9000-9010\n"), "{text}");
    }
}
