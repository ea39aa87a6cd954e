//! `synprobe states`: sockets by TCP state, per network namespace and per listening port.

use super::{FAILED, Failure, no_netns, not_seen, print, print_json, terminal};
use crate::{
    cli::{Format, StatesArgs},
    diag::state_counts::count,
    sys::netns::NetNs,
    view::states,
};

pub(super) fn run(args: &StatesArgs) -> Result<(), Failure> {
    let only = args.netns.as_deref().map(NetNs::resolve).transpose();
    let mut counted = count(only.map_err(|e| no_netns(&e))?);
    not_seen(&counted.failures);
    if counted.namespaces.is_empty() && !counted.failures.is_empty() {
        return Err(Failure("no namespace could be read".to_owned(), FAILED));
    }
    let ports = args.ports();
    if !ports.is_empty() {
        for netns in &mut counted.namespaces {
            netns.listeners.retain(|l| ports.contains(l.local_port));
        }
        counted.namespaces.retain(|n| !n.listeners.is_empty());
    }
    let shown = states::Shown {
        totals: ports.is_empty(),
        all: args.all || args.netns.is_some() || !ports.is_empty(),
    };
    match args.format {
        Format::Text => print(&states::text(&counted, shown, terminal::style())),
        Format::Json => counted.namespaces.iter().try_for_each(print_json),
    }
}
