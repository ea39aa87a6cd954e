//! What a recording that begins in the middle of a run begins with, so that it can be read alone.

use std::{collections::BTreeMap, sync::Arc};

use crate::{engine::Input, model::ListenerOwner};

/// Inputs that are kept at most.
const MOST: usize = 65_536;

/// What an input says something of. A later input of the same subject replaces it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RestatedSubject {
    Netns(u32),
    Cgroup(u64),
    Settings(u32),
    Addresses(u32),
    /// Listeners of one address: the tracker replaces them together.
    Owners(u32, [u8; 16], u16),
    Device(u32, u32),
    LaterCounters(u32),
    Workload(Option<Arc<str>>, Option<u32>),
    Clock,
}

/// The last input of each subject: names, settings and owners, which are fed once.
#[derive(Default)]
pub(super) struct RestatedInputs(BTreeMap<RestatedSubject, Input>);

impl RestatedInputs {
    /// Keeps the input, if it is one of them.
    pub fn keep(&mut self, input: &Input) {
        let subject = match input {
            Input::NetnsName(inode, _) => RestatedSubject::Netns(*inode),
            Input::CgroupPath(id, _) => RestatedSubject::Cgroup(*id),
            Input::Settings(netns, _) => RestatedSubject::Settings(*netns),
            Input::Addresses(netns, _) => RestatedSubject::Addresses(*netns),
            Input::LaterCounters(counters) => {
                for one in counters {
                    let again = Input::LaterCounters(vec![*one]);
                    self.insert(RestatedSubject::LaterCounters(one.0), again);
                }
                return;
            }
            Input::Owners(owners) => return self.keep_owners(owners),
            Input::Device(netns, index, _) => RestatedSubject::Device(*netns, *index),
            Input::Workload { cgroup, pid, .. } => RestatedSubject::Workload(cgroup.clone(), *pid),
            Input::BatchEnds(_) => RestatedSubject::Clock,
            _ => return,
        };
        self.insert(subject, input.clone());
    }

    fn keep_owners(&mut self, owners: &[ListenerOwner]) {
        let mut by_address: BTreeMap<RestatedSubject, Vec<ListenerOwner>> = BTreeMap::new();
        for owner in owners {
            let subject = RestatedSubject::Owners(owner.netns, owner.local_addr, owner.local_port);
            by_address.entry(subject).or_default().push(owner.clone());
        }
        for (subject, owners) in by_address {
            self.insert(subject, Input::Owners(owners));
        }
    }

    fn insert(&mut self, subject: RestatedSubject, input: Input) {
        if self.0.len() >= MOST && !self.0.contains_key(&subject) {
            self.0.pop_first();
        }
        self.0.insert(subject, input);
    }

    /// All of them.
    pub fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(netns: u32, local_port: u16) -> ListenerOwner {
        ListenerOwner {
            netns,
            local_addr: [0; 16],
            local_port,
            process: None,
            cgroup: None,
        }
    }

    #[test]
    fn the_last_of_each_subject_stays() {
        let mut kept = RestatedInputs::default();
        let name = |name: &str| Input::NetnsName(7, Some(name.into()));
        kept.keep(&name("blue"));
        kept.keep(&Input::CountHalfOpens);
        kept.keep(&name("green"));
        // A round tells the new owners only: those of other addresses stay.
        kept.keep(&Input::Owners(vec![
            owner(7, 80),
            owner(8, 80),
            owner(7, 80),
        ]));
        kept.keep(&Input::Owners(vec![owner(7, 443)]));
        let kept: Vec<String> = kept.inputs().map(|input| format!("{input:?}")).collect();
        assert_eq!(kept.len(), 4, "{kept:?}");
        assert!(kept[0].contains("green"), "{kept:?}");
        let group = &kept[1];
        assert_eq!(group.matches("local_port: 80,").count(), 2, "{group}");
    }
}
