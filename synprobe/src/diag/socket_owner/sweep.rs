//! The order in which processes are read, and where a search goes on that was cut short.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt};

use super::link_inode;

/// Steps from a process to its ancestors, at most.
const MOST_ANCESTORS: usize = 8;
/// A process with more descriptors than this is read late.
const LARGE: u64 = 4096;
/// Descriptors of an ancestor that are read, at most.
const MOST_FDS: usize = 4096;

/// One pass over the processes.
#[derive(Debug)]
pub(super) struct Sweep {
    /// What it looks for.
    wanted: HashSet<u32>,
    /// Still to be read, the next one last; and the first descriptor.
    left: Vec<(u32, u32)>,
    ascending: bool,
    /// Processes that could not be read.
    pub denied: usize,
}

impl Sweep {
    /// By ascending pid, an init last.
    pub fn ascending(pids: Vec<u32>, comm_of_1: Option<&str>, wanted: &HashSet<u32>) -> Self {
        let ordered = init_last(pids, comm_of_1);
        Self::of(ordered, true, wanted)
    }

    /// Processes that `held` sockets before, then those of the namespaces `near`, then the newest. An init
    /// comes last, and before it whatever has very many descriptors: a few such processes hide nobody else.
    pub fn likeliest_first(
        pids: Vec<u32>,
        comm_of_1: Option<&str>,
        held: &HashSet<u32>,
        near: &HashSet<u32>,
        wanted: &HashSet<u32>,
    ) -> Self {
        let is_near =
            |pid: &u32| !near.is_empty() && netns_of(*pid).is_some_and(|n| near.contains(&n));
        let mut ordered = init_last(pids, comm_of_1);
        let init = ordered.pop_if(|pid| *pid == 1);
        ordered.sort_by_cached_key(|pid| {
            let rank = match (held.contains(pid), is_near(pid)) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            (is_large(*pid), rank, std::cmp::Reverse(*pid))
        });
        ordered.extend(init);
        Self::of(ordered, false, wanted)
    }

    fn of(ordered: Vec<u32>, ascending: bool, wanted: &HashSet<u32>) -> Self {
        Self {
            wanted: wanted.clone(),
            left: ordered.into_iter().rev().map(|pid| (pid, 0)).collect(),
            ascending,
            denied: 0,
        }
    }

    /// Whether it looks for all of these.
    pub fn covers(&self, wanted: &HashSet<u32>) -> bool {
        wanted.is_subset(&self.wanted)
    }

    /// Whether the lowest pid comes first.
    pub fn is_ascending(&self) -> bool {
        self.ascending
    }

    /// The next process, and its first descriptor that is to be read.
    pub fn next(&mut self) -> Option<(u32, u32)> {
        self.left.pop()
    }

    /// The pass goes on there.
    pub fn resume_at(&mut self, pid: u32, fd: u32) {
        self.left.push((pid, fd));
    }
}

/// Whether a process has very many descriptors. Before Linux 6.2 the size of the folder is 0.
fn is_large(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}/fd")).is_ok_and(|meta| meta.size() > LARGE)
}

/// Ascending, with an init last.
fn init_last(mut pids: Vec<u32>, comm_of_1: Option<&str>) -> Vec<u32> {
    if pids.first() == Some(&1) && matches!(comm_of_1, Some("systemd" | "init")) {
        pids.rotate_left(1);
    }
    pids
}

fn netns_of(pid: u32) -> Option<u32> {
    let inode = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
    u32::try_from(inode).ok()
}

/// The eldest ancestor that holds the same socket: of a pre-forked server, the parent.
pub(super) fn eldest_holder(pid: u32, fd: u32, inode: u32) -> (u32, u32) {
    let mut eldest = (pid, fd);
    for _ in 0..MOST_ANCESTORS {
        let parent = parent_of(eldest.0).filter(|parent| *parent > 1);
        let Some(held) =
            parent.and_then(|parent| Some((parent, held_as(parent, eldest.1, inode)?)))
        else {
            break;
        };
        eldest = held;
    }
    eldest
}

/// Whether its parent comes after it in ascending order: pids begin anew at `pid_max`.
pub(super) fn parent_comes_later(pid: u32) -> bool {
    parent_of(pid).is_some_and(|parent| parent > pid)
}

/// The descriptor by which a process holds a socket; an inherited one has mostly kept its number.
fn held_as(pid: u32, fd: u32, inode: u32) -> Option<u32> {
    if link_inode(pid, fd) == Some(inode) {
        return Some(fd);
    }
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    entries
        .flatten()
        .take(MOST_FDS)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|fd| link_inode(pid, *fd) == Some(inode))
}

fn parent_of(pid: u32) -> Option<u32> {
    parse_parent(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The fourth field. The second, the command in parentheses, may contain any byte.
fn parse_parent(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(mut sweep: Sweep) -> Vec<u32> {
        std::iter::from_fn(|| sweep.next())
            .map(|(pid, _)| pid)
            .collect()
    }

    #[test]
    fn an_init_is_asked_last_and_a_containers_pid_1_first() {
        let none = HashSet::new();
        let ascending = |pids, init| order(Sweep::ascending(pids, Some(init), &none));
        assert_eq!(ascending(vec![1, 7, 9], "systemd"), [7, 9, 1]);
        assert_eq!(ascending(vec![1, 7, 9], "nginx"), [1, 7, 9]);
        assert_eq!(ascending(vec![7, 9], "systemd"), [7, 9]);
    }

    #[test]
    fn with_a_bound_the_likeliest_come_first() {
        let (held, none) = (HashSet::from([8]), HashSet::new());
        let all = vec![1, 7, 8, 9];
        let sweep = Sweep::likeliest_first(all, Some("systemd"), &held, &none, &none);
        assert_eq!(order(sweep), [8, 9, 7, 1]);
    }

    #[test]
    fn the_parent_stands_behind_the_command() {
        assert_eq!(parse_parent(b"12 (a) S 7 12 12 0"), Some(7));
        assert_eq!(parse_parent(b"12 (a) R 9 (b) S 7 12"), Some(7));
        for cut in [&b""[..], b"12 (a", b"12 (a)", b"12 (a) S", b"12 (a) S x"] {
            assert_eq!(parse_parent(cut), None);
        }
    }
}
