//! `synprobe listeners`: every listener with its two queues, the fullest first, and what limits them.

use std::io;

use super::{FAILED, Failure, failure, no_netns, not_seen, print, terminal, view};
use crate::{
    cli::{Format, ListenersArgs},
    diag::listener_table::read_listeners,
    pipeline::WatchError,
    sys::{
        clock::wall_clock,
        journal::{Priority, message},
        netns::NetNs,
    },
    view::listeners,
};

pub(super) fn run(args: &ListenersArgs) -> Result<(), Failure> {
    let only = args.netns.as_deref().map(NetNs::resolve).transpose();
    let selection = args.selection();
    let table = read_listeners(only.map_err(|e| no_netns(&e))?, &selection.local_ports);
    not_seen(&table.failures);
    if table.nothing {
        return Err(Failure("no namespace could be read".to_owned(), FAILED));
    }
    let described = selection.describe();
    let asked = described.get("local_port").map(String::as_str);
    if args.format == Format::Text {
        let all = args.all || asked.is_some() || args.netns.is_some();
        return print(&listeners::text(&table, asked, all, terminal::style()));
    }
    if table.lines.is_empty() {
        // Standard output carries JSON only.
        message(Priority::Info, &listeners::no_listener(asked));
    }
    let mut view = view(Format::Json, true);
    let shown = view.show(&table.lines, wall_clock());
    match shown.and_then(|()| view.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failure(WatchError::Output(error)))
        }
        _ => Ok(()),
    }
}
