//! The table of `synprobe listeners`.

use std::{fmt::Write as _, net::SocketAddr};

use super::Style;
use crate::{
    model::{LimitedBy, Listener, ListenerTable, who},
    util::{fill::fill, format::safe},
};

fn is_full(l: &Listener) -> bool {
    l.accept_queue > l.accept_queue_max
}

fn unknown<T: ToString>(value: Option<T>) -> String {
    value.map_or("?".to_owned(), |value| value.to_string())
}

/// Whether something waits in a queue of it, or was dropped.
fn is_troubled(l: &Listener) -> bool {
    l.accept_queue != Some(0) || l.syn_queue != Some(0) || l.drops.is_some_and(|n| n > 0)
}

/// The least that is left of a cell, by column; `LIMITED BY` is left out as a whole.
const SHORTEST: [usize; 7] = [20, 8, 8, 9, 12, 0, 5];
/// The columns that give way where a line is too long, in this order.
const GIVING_WAY: [usize; 4] = [1, 2, 5, 0];

/// The table as text. `asked`: the ports that were requested, if any. `all`: also the listeners in whose queues
/// nothing waits, and that have dropped nothing.
pub fn text(table: &ListenerTable, asked: Option<&str>, all: bool, style: Style) -> String {
    let named = table
        .namespaces
        .iter()
        .any(|namespace| &*namespace.name != "host");
    let shown: Vec<&Listener> = table
        .listeners()
        .filter(|l| all || is_troubled(l))
        .collect();
    let more = table.listeners().count() - shown.len();
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
    rows.extend(shown.iter().map(|l| row(l)));
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max();
    let mut widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
    if !named {
        widths[2] = 0;
    }
    // Two columns between cells, and `FULL`.
    let is_any_full = shown.iter().any(|l| is_full(l));
    let end = if is_any_full { 4 } else { 0 };
    let total = |widths: &[usize; 7]| -> usize {
        let cells = widths.iter().filter(|width| **width > 0);
        cells.map(|width| width + 2).sum::<usize>() + end
    };
    let whole = widths;
    for column in GIVING_WAY {
        let too_long = total(&widths).saturating_sub(style.width);
        if too_long > 0 && widths[column] > SHORTEST[column] {
            widths[column] = match column {
                5 => 0,
                _ => widths[column]
                    .saturating_sub(too_long)
                    .max(SHORTEST[column]),
            };
        }
    }
    // A column that was left out may leave room for names.
    for column in [1, 2] {
        let room = style.width.saturating_sub(total(&widths));
        if widths[column] > 0 {
            widths[column] = (widths[column] + room).min(whole[column]);
        }
    }
    let push = |text: &mut String, line: &str| {
        for line in fill("", "  ", line, style.width) {
            let _ = writeln!(text, "{line}");
        }
    };
    let mut text = String::new();
    let full = std::iter::once(false).chain(shown.iter().map(|l| is_full(l)));
    // Below that no table fits: each listener has lines of its own, and no heading.
    let behind_the_last = if is_any_full { 0 } else { 2 };
    let is_narrow = total(&widths) > style.width + behind_the_last;
    if is_narrow || rows.len() == 1 {
        for (row, listener) in rows[1..].iter().zip(&shown) {
            narrow(&mut text, row, is_full(listener), style);
        }
    } else {
        for (row, full) in rows.iter().zip(full) {
            push_row(&mut text, row, &widths, full, style);
        }
    }
    match (rows.len(), more) {
        (1, 0) => {
            let _ = writeln!(text, "{}", no_listener(asked));
        }
        (_, 0) => (),
        (1, n) => push(&mut text, &nothing_waits(n, "")),
        (_, n) => push(&mut text, &nothing_waits(n, "more ")),
    }
    let mut is_first = true;
    let mut others = 0;
    for namespace in &table.namespaces {
        let is_shown = shown
            .iter()
            .any(|l| l.netns_name.as_deref().unwrap_or_default() == &*namespace.name);
        let has_overflows = namespace.overflows.is_none_or(|n| n > 0);
        let is_alone = table.namespaces.len() == 1;
        if !(all || is_alone || is_shown || has_overflows) {
            others += 1;
            continue;
        }
        if is_first {
            text.push('\n');
            is_first = false;
        }
        let settings = &namespace.settings;
        let line = format!(
            "{}: ListenOverflows {}, SyncookiesSent {}; somaxconn {}, tcp_max_syn_backlog {}, tcp_syncookies {}",
            safe(&namespace.name),
            unknown(namespace.overflows),
            unknown(namespace.syn_cookies),
            unknown(settings.somaxconn),
            unknown(settings.tcp_max_syn_backlog),
            unknown(settings.tcp_syncookies),
        );
        for line in fill("", "  ", &line, style.width) {
            let _ = writeln!(text, "{line}");
        }
        for shared in &namespace.shared {
            let line = format!(
                "{}: {} half-opens in the SYN queues of {} sockets (SO_REUSEPORT)",
                shared.local, shared.half_opens, shared.members,
            );
            for line in fill("  ", "    ", &line, style.width) {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    if others > 0 {
        let namespaces = if others == 1 {
            "namespace"
        } else {
            "namespaces"
        };
        let line = format!("{others} more {namespaces} without an overflow (--all)");
        push(&mut text, &line);
    }
    text
}

fn push_row(text: &mut String, row: &[String; 7], widths: &[usize; 7], full: bool, style: Style) {
    let mut line = String::new();
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let cell = match column {
            0 => shortened_addr(cell, width),
            _ => shortened(cell, width),
        };
        let _ = match column {
            _ if width == 0 => Ok(()),
            // Numbers are right-aligned.
            3 | 4 | 6 => write!(line, "{cell:>width$}  "),
            _ => write!(line, "{cell:<width$}  "),
        };
    }
    if full {
        line.push_str("FULL");
    }
    let code = if full { "31" } else { "" };
    let _ = writeln!(text, "{}", style.paint(code, line.trim_end()));
}

/// A listener on a narrow terminal: who it is, and below it its numbers.
fn narrow(text: &mut String, row: &[String; 7], full: bool, style: Style) {
    let [addr, process, netns, syn, accept, limit, drops] = row;
    let addr = shortened_addr(addr, style.width);
    let who = format!("{addr}  {process} {netns}");
    let mark = if full { " FULL" } else { "" };
    let numbers = format!("SYN-Q {syn}, ACCEPT-Q {accept}{mark}, by {limit}, DROPS {drops}");
    let code = if full { "31" } else { "" };
    let lines = fill("", "  ", who.trim_end(), style.width);
    let numbers = fill("  ", "  ", &numbers, style.width);
    for line in lines.iter().chain(&numbers) {
        let _ = writeln!(text, "{}", style.paint(code, line));
    }
}

/// `nothing waits at 3 more listeners (--all lists them)`
pub(super) fn nothing_waits(n: usize, more: &str) -> String {
    let listeners = if n == 1 { "listener" } else { "listeners" };
    format!("nothing waits at {n} {more}{listeners} (--all lists them)")
}

/// The same for an address; its port stays.
pub(super) fn shortened_addr(cell: &str, width: usize) -> String {
    match cell.rsplit_once(':') {
        Some((addr, port)) if cell.len() > width => {
            let addr = shortened(addr, width.saturating_sub(port.len() + 1));
            format!("{addr}:{port}")
        }
        _ => cell.to_owned(),
    }
}

/// With an ellipsis in place of its end, where it is too long.
pub(super) fn shortened(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
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
        let list = || list.clone();
        let shown = text(&table(list()), None, true, Style::default());
        let expected = "\
LISTENER    PROCESS  SYN-Q/MAX  ACCEPT-Q/MAX  LIMITED BY      DROPS
0.0.0.0:82  app/77       0/128       129/128  listen backlog    129  FULL
0.0.0.0:81  app/77       0/128       128/128  listen backlog    128
0.0.0.0:83  app/77      90/128         3/128  listen backlog      3
0.0.0.0:80  app/77       0/128         0/128  listen backlog      0

host: ListenOverflows 7, SyncookiesSent ?; somaxconn 4096, tcp_max_syn_backlog 512, tcp_syncookies 1
";
        assert_eq!(shown, expected);
        // Nothing waits at the last one.
        let shown = text(&table(list()), None, false, Style::plain(80));
        let more = "nothing waits at 1 more listener (--all lists them)\n\nhost: ";
        assert!(
            !shown.contains("0.0.0.0:80 ") && shown.contains(more),
            "{shown}"
        );
    }

    /// Names give way, then what limits a queue; the numbers never.
    #[test]
    fn a_table_fits_eighty_columns() {
        let long = Listener {
            local_addr: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
            comm: Some("a-name-of-a-program".into()),
            netns_name: Some("a-namespace-with-a-long-name".into()),
            limited_by: Some(LimitedBy::TcpMaxSynBacklog),
            drops: Some(1_234_567),
            ..listener(200, 17)
        };
        let mut shown = table(vec![long]);
        shown.namespaces[0].name = "a-namespace-with-a-long-name".into();
        let shown = text(&shown, None, false, Style::plain(80));
        let row = shown.lines().nth(1).unwrap();
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{shown}"
        );
        assert!(row.starts_with("[2001:db8:1111…:8080 "), "{shown}");
        assert!(row.contains("17/128") && row.contains("200/128"), "{shown}");
        assert!(row.contains("1234567") && row.ends_with("FULL"), "{shown}");
    }

    #[test]
    fn on_forty_columns_a_listener_has_lines_of_its_own() {
        let elsewhere = Listener {
            netns_name: Some("web".into()),
            limited_by: Some(LimitedBy::TcpMaxSynBacklog),
            drops: Some(24),
            ..listener(200, 17)
        };
        let mut shown = table(vec![elsewhere]);
        shown.namespaces[0].name = "web".into();
        let shown = text(&shown, None, false, Style::plain(40));
        let expected = "\
0.0.0.0:8080  app/77 web
  SYN-Q 17/128, ACCEPT-Q 200/128 FULL,
  by tcp_max_syn_backlog, DROPS 24
";
        assert!(shown.starts_with(expected), "{shown}");
        assert!(
            shown.lines().all(|line| line.chars().count() <= 40),
            "{shown}"
        );
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
        let text = text(&shown, None, true, Style::default());
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
        let coloured = Style {
            colour: true,
            ..Style::plain(100)
        };
        let text = text(&table(vec![full]), None, true, coloured);
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
        let text = text(&both, None, true, Style::default());
        assert!(text.contains("NETNS") && text.contains("blue"), "{text}");
        assert!(
            !text.contains('\x1b'),
            "a name is no escape sequence: {text:?}"
        );
    }

    #[test]
    fn an_empty_table_names_the_ports() {
        let nothing = ListenerTable::default();
        let text = text(&nothing, Some("8080,9000-9010"), false, Style::default());
        assert_eq!(text, "no listener on 8080,9000-9010\n");
    }
}
