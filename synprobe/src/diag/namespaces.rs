//! Reads one network namespace, or every one that can be found, and collects what failed.

use std::{io, time::Instant};

use crate::sys::{
    fd_limit,
    netns::{self, NetNs},
};

/// Names of namespaces that one line lists.
const NAMES_LISTED: usize = 3;

/// Of processes that /proc does not show nothing can be counted, not even how many there are.
pub const HIDDEN: &str = "processes of other users are hidden (hidepid of /proc), and with them their namespaces and \
                          the owners of sockets: run as root, or with CAP_SYS_PTRACE";

/// Calls `read` for `only`, or else for every namespace that can be found. Returns one line for each kind
/// of failure, including the remedy.
pub(super) fn read_each(
    only: Option<NetNs>,
    read: impl FnMut(&NetNs) -> io::Result<()>,
) -> Vec<String> {
    read_each_until(only, None, read).0
}

/// The same, as long as there is time: `read` returns TimedOut where none is left. Also returns how many namespaces
/// were not read for that reason.
pub(super) fn read_each_until(
    only: Option<NetNs>,
    until: Option<Instant>,
    mut read: impl FnMut(&NetNs) -> io::Result<()>,
) -> (Vec<String>, usize) {
    let (mut failures, mut late) = (Vec::new(), 0);
    let is_late = || until.is_some_and(|until| until <= Instant::now());
    let namespaces = match only {
        Some(netns) => vec![netns],
        None => {
            let found = netns::discover();
            if found.exhausted {
                failures.push(fd_limit::advice());
            }
            if found.hidden_processes {
                failures.push(HIDDEN.to_owned());
            }
            if found.denied_names > 0 {
                failures.push(format!(
                    "cannot open {} named network namespaces: run as root",
                    found.denied_names
                ));
            }
            if found.denied_processes > 0 {
                failures.push(match found.denied_processes {
                    1 => "cannot open the network namespace of 1 process: run as root, or with CAP_SYS_ADMIN, \
                          CAP_SYS_PTRACE and every capability that this process has"
                        .to_owned(),
                    n => format!(
                        "cannot open the network namespaces of {n} processes: run as root, or with CAP_SYS_ADMIN, \
                         CAP_SYS_PTRACE and every capability that those processes have"
                    ),
                });
            }
            found.namespaces
        }
    };
    let mut denied: Vec<String> = Vec::new();
    for netns in namespaces {
        if is_late() {
            late += 1;
            continue;
        }
        match read(&netns) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::TimedOut && is_late() => late += 1,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                denied.push(netns.name().to_owned());
            }
            Err(error) => failures.push(format!("namespace {}: {error}", netns.name())),
        }
    }
    failures.extend(cannot_enter(&denied));
    (failures, late)
}

/// One line for all namespaces that could not be entered.
fn cannot_enter(names: &[String]) -> Option<String> {
    let listed = names.get(..NAMES_LISTED).unwrap_or(names).join(", ");
    let remedy = "run as root, or with CAP_SYS_ADMIN";
    match names.len() {
        0 => None,
        1 => Some(format!(
            "cannot enter the network namespace {listed}: {remedy}"
        )),
        n if n <= NAMES_LISTED => Some(format!(
            "cannot enter {n} network namespaces ({listed}): {remedy}"
        )),
        n => Some(format!(
            "cannot enter {n} network namespaces ({listed}, …): {remedy}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_that_cannot_be_entered_share_one_line() {
        let line = |n: usize| cannot_enter(&["a", "b", "c", "d"].map(str::to_owned)[..n]);
        assert_eq!(line(0), None);
        assert_eq!(
            line(1).as_deref(),
            Some("cannot enter the network namespace a: run as root, or with CAP_SYS_ADMIN")
        );
        assert!(
            line(3).is_some_and(
                |line| line.starts_with("cannot enter 3 network namespaces (a, b, c): ")
            )
        );
        assert!(line(4).is_some_and(|line| {
            line.starts_with("cannot enter 4 network namespaces (a, b, c, …): ")
        }));
    }
}
