//! `synprobe listeners`: every listener with its two queues, the fullest first, and what limits them.

use std::{cmp::Reverse, fmt::Write as _, io, net::SocketAddr, sync::Arc};

use crate::{
    descriptors,
    diag::{
        counters::{CounterReader, Counters},
        listeners::Listeners,
        monotonic_ns,
        owner::{Bounds, OwnerCache},
        queues::{Look, Settings, Who, syn_queues},
        sock_diag::SockDiag,
    },
    filter::{PortSet, printable},
    human::safe,
    model::{Body, LimitedBy, Line, Listener},
    netns::{self, NetNs},
};

/// One network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// How people call it.
    pub name: Arc<str>,
    /// What limits its queues.
    pub settings: Settings,
    /// Its `ListenOverflows` and `SyncookiesSent`, all listeners together.
    pub overflows: Option<u64>,
    /// See there.
    pub syn_cookies: Option<u64>,
    /// Listeners that share an address (SO_REUSEPORT), and what waits in their SYN queues together.
    pub shared: Vec<Shared>,
}

/// Sockets whose SYN queues cannot be told apart.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where they listen.
    pub local: SocketAddr,
    /// How many there are.
    pub members: usize,
    /// What they have together.
    pub half_opens: u32,
}

/// What was seen, and which namespaces could not be looked into.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Those with a listener that was asked for.
    pub namespaces: Vec<Namespace>,
    /// The fullest queue first.
    pub lines: Vec<Line>,
    /// One line each.
    pub failures: Vec<String>,
    /// No namespace could be looked into.
    pub nothing: bool,
}

impl Looked {
    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.lines.iter().filter_map(|line| match &line.body {
            Body::Listener(listener) => Some(&**listener),
            _ => None,
        })
    }
}

/// Looks into one namespace, or every one that can be found; at the listeners on these ports, or all
/// where `ports` is empty.
pub fn look(only: Option<NetNs>, ports: &PortSet) -> Looked {
    let mut looked = Looked {
        nothing: true,
        ..Looked::default()
    };
    let found = match only {
        Some(netns) => vec![netns],
        None => {
            let found = netns::discover();
            if found.exhausted {
                looked.failures.push(descriptors::advice());
            }
            if found.denied > 0 {
                looked.failures.push(format!(
                    "{} namespaces may not be entered: run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE",
                    found.denied
                ));
            }
            found.namespaces
        }
    };
    let mut owners = Ownership::default();
    for netns in found {
        match look_into(&netns, ports, &mut owners) {
            Ok((namespace, lines)) => {
                looked.nothing = false;
                if !lines.is_empty() {
                    looked.namespaces.push(namespace);
                    looked.lines.extend(lines);
                }
            }
            Err(error) => looked
                .failures
                .push(format!("namespace {}: {error}", netns.name())),
        }
    }
    if owners.denied && looked.listeners().any(|l| l.pid.is_none()) {
        looked.failures.push(
            "whose listeners some are may not be seen: run as root, or with CAP_SYS_PTRACE"
                .to_owned(),
        );
    }
    looked.lines.sort_by_key(order);
    looked
}

#[derive(Default)]
struct Ownership {
    cache: OwnerCache,
    denied: bool,
}

fn look_into(
    netns: &NetNs,
    ports: &PortSet,
    owners: &mut Ownership,
) -> io::Result<(Namespace, Vec<Line>)> {
    let mut sock_diag = SockDiag::open(netns)?;
    let half_opens = sock_diag.half_opens()?;
    let listeners = Listeners::read(&mut sock_diag)?;
    let counters = CounterReader::open(netns).and_then(|mut reader| reader.read());
    let counters: Option<Counters> = counters.ok();
    let settings = Settings::read(netns).unwrap_or_default();
    let mono_ns = monotonic_ns();
    let wanted = |port| ports.is_empty() || ports.contains(port);
    let inodes: Vec<u32> = listeners
        .iter()
        .filter(|l| wanted(l.local_port))
        .map(|l| l.inode)
        .collect();
    let found = owners.cache.find(&inodes, Bounds::default());
    owners.denied |= found.denied > 0;
    let name: Arc<str> = netns.name().into();
    let look = Look {
        listeners: &listeners,
        half_opens: &half_opens.rows,
        counters: counters.as_ref(),
        settings: &settings,
    };
    let lines = look.lines(&name, |inode| {
        found.by_inode.get(&inode).cloned().map(Who::of)
    });
    let counter = |name| counters.as_ref().and_then(|c| c.get(name));
    let groups = syn_queues(&listeners, &half_opens.rows).shared;
    let shared = groups.into_iter().filter_map(|group| {
        let one = listeners
            .iter()
            .find(|l| group.members.contains(&l.inode))?;
        wanted(one.local_port).then(|| Shared {
            local: SocketAddr::new(printable(one.local_addr), one.local_port),
            members: group.members.len(),
            half_opens: group.half_opens,
        })
    });
    let namespace = Namespace {
        shared: shared.collect(),
        name,
        settings,
        overflows: counter("ListenOverflows"),
        syn_cookies: counter("SyncookiesSent"),
    };
    let lines = lines
        .into_iter()
        .filter(|l| wanted(l.local_port))
        .map(|l| Line {
            mono_ns,
            body: Body::Listener(Box::new(l)),
        });
    Ok((namespace, lines.collect()))
}

/// How much of what fits is taken, in parts of a million: one more than the limit fits.
fn fill(queue: Option<u32>, max: Option<u32>) -> u64 {
    let parts = |(now, max): (u32, u32)| u64::from(now) * 1_000_000 / (u64::from(max) + 1);
    queue.zip(max).map_or(0, parts)
}

/// The fullest first, then who discarded most.
fn order(line: &Line) -> impl Ord + use<> {
    let Body::Listener(l) = &line.body else {
        return None;
    };
    let fullest = fill(l.accept_queue, l.accept_queue_max).max(fill(l.syn_queue, l.syn_queue_max));
    let place = (l.local_port, l.local_addr, l.netns);
    Some((Reverse((fullest, l.drops)), place))
}

fn is_full(l: &Listener) -> bool {
    l.accept_queue > l.accept_queue_max
}

fn unknown<T: ToString>(value: Option<T>) -> String {
    value.map_or("?".to_owned(), |value| value.to_string())
}

/// For eyes. `asked` says which ports were asked for, where any were.
pub fn text(looked: &Looked, asked: Option<&str>, colour: bool) -> String {
    let named = looked
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
    rows.extend(looked.listeners().map(row));
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max();
    let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    let full = std::iter::once(false).chain(looked.listeners().map(is_full));
    for (row, full) in rows.iter().zip(full) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = match column {
                2 if !named => Ok(()),
                // Numbers end in one column.
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
        let _ = writeln!(text, "{}", nobody(asked));
    }
    for (n, namespace) in looked.namespaces.iter().enumerate() {
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
                "  {}: {} half-opens in the SYN queues of {} sockets together (SO_REUSEPORT)",
                shared.local, shared.half_opens, shared.members,
            );
        }
    }
    text
}

/// What an empty table means.
pub fn nobody(asked: Option<&str>) -> String {
    match asked {
        Some(ports) => format!("nobody listens on {ports}"),
        None => "nobody listens on any port".to_owned(),
    }
}

fn row(l: &Listener) -> [String; 7] {
    let process = match (&l.comm, l.pid) {
        (Some(comm), Some(pid)) => format!("{}/{pid}", safe(comm)),
        _ => "?".to_owned(),
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
    use crate::verdict::testbed::listener;

    fn looked(listeners: Vec<Listener>) -> Looked {
        let line = |l| Line {
            mono_ns: 1,
            body: Body::Listener(Box::new(l)),
        };
        let mut lines: Vec<Line> = listeners.into_iter().map(line).collect();
        lines.sort_by_key(order);
        Looked {
            namespaces: vec![Namespace {
                name: "host".into(),
                settings: Settings {
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
            ..Looked::default()
        }
    }

    #[test]
    fn the_fullest_comes_first_and_a_full_one_is_marked() {
        let at = |accept, syn, port| Listener {
            local_port: port,
            limited_by: Some(LimitedBy::ListenBacklog),
            drops: Some(u64::from(accept)),
            ..listener(accept, syn)
        };
        // At the limit a queue is not full yet: one more fits.
        let list = vec![at(0, 0, 80), at(128, 0, 81), at(129, 0, 82), at(3, 90, 83)];
        let text = text(&looked(list), None, false);
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
    fn what_a_group_has_together_is_told_below_the_table() {
        let member = || Listener {
            syn_queue: None,
            ..listener(0, 0)
        };
        let mut looked = looked(vec![member(), member()]);
        looked.namespaces[0].shared = vec![Shared {
            local: "0.0.0.0:8080".parse().unwrap(),
            members: 2,
            half_opens: 307,
        }];
        let text = text(&looked, None, false);
        assert_eq!(text.matches("?/128").count(), 2, "{text}");
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "  0.0.0.0:8080: 307 half-opens in the SYN queues of 2 sockets together (SO_REUSEPORT)"
        );
    }

    #[test]
    fn a_full_one_is_red_on_a_terminal_and_what_is_unknown_is_said() {
        let full = Listener {
            syn_queue: None,
            pid: None,
            comm: None,
            ..listener(200, 0)
        };
        let text = text(&looked(vec![full]), None, true);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("\x1b[31m0.0.0.0:8080  ?"), "{line:?}");
        assert!(
            line.contains("?/128") && line.ends_with("FULL\x1b[0m"),
            "{line:?}"
        );
    }

    #[test]
    fn a_namespace_is_named_unless_it_is_the_hosts() {
        let elsewhere = Listener {
            netns_name: Some("blue\x1b[0m".into()),
            ..listener(0, 0)
        };
        let mut both = looked(vec![listener(5, 0), elsewhere]);
        both.namespaces[0].name = "blue\x1b[0m".into();
        let text = text(&both, None, false);
        assert!(text.contains("NETNS") && text.contains("blue"), "{text}");
        assert!(
            !text.contains('\x1b'),
            "a name is no escape sequence: {text:?}"
        );
    }

    #[test]
    fn an_empty_table_says_what_nobody_listens_on() {
        let nothing = Looked::default();
        let text = text(&nothing, Some("8080,9000-9010"), false);
        assert!(text.starts_with("LISTENER"), "{text}");
        assert!(
            text.ends_with("nobody listens on 8080,9000-9010\n"),
            "{text}"
        );
    }
}
