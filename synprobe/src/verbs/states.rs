//! `synprobe states`: sockets by TCP state, per network namespace and per listening port.

use super::{FAILED, Failure, no_netns, print, print_json};
use crate::{
    cli::{Format, StatesArgs},
    diag::state_counts::count,
    sys::{
        journal::{Priority, message},
        netns::NetNs,
    },
    view::states,
};

pub(super) fn run(args: &StatesArgs) -> Result<(), Failure> {
    let only = args.netns.as_deref().map(NetNs::resolve).transpose();
    let counted = count(only.map_err(|e| no_netns(&e))?);
    for failure in &counted.failures {
        message(Priority::Warning, failure);
    }
    if counted.namespaces.is_empty() && !counted.failures.is_empty() {
        return Err(Failure("no namespace could be read".to_owned(), FAILED));
    }
    match args.format {
        Format::Text => print(&states::text(&counted)),
        Format::Json => counted.namespaces.iter().try_for_each(print_json),
    }
}
