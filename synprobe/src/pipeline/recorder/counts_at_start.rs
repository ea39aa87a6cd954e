//! What the kernel side had counted when a recording began. It counts for the whole run, and what was before the
//! recording must not count for it.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    engine::Input,
    model::{AcceptCounts, Role},
};

/// See the module.
#[derive(Default)]
pub(in crate::pipeline) struct CountsAtStart {
    completed: BTreeMap<(Role, Option<u16>), Vec<u64>>,
    clients: u64,
    accepts: BTreeMap<(u32, u16), AcceptCounts>,
}

impl CountsAtStart {
    /// `completed`: the inputs [`Input::Completed`] of that moment. `clients`: the active opens among them.
    pub fn new(completed: Vec<Input>, clients: u64, accepts: Vec<AcceptCounts>) -> Self {
        let completed = completed.into_iter().filter_map(|input| match input {
            Input::Completed(role, port, counts) => Some(((role, port), counts)),
            _ => None,
        });
        Self {
            completed: completed.collect(),
            clients,
            accepts: accepts
                .into_iter()
                .map(|of| ((of.netns, of.port), of))
                .collect(),
        }
    }

    /// The input without what was counted before; `None`: nothing is left of it.
    pub fn since<'i>(&self, input: &'i Input) -> Option<Cow<'i, Input>> {
        Some(Cow::Owned(match input {
            Input::Completed(role, port, counts) => {
                let before = self.completed.get(&(*role, *port));
                let counts = less(counts, before.map_or(&[], Vec::as_slice));
                if counts.iter().all(|count| *count == 0) {
                    return None;
                }
                Input::Completed(*role, *port, counts)
            }
            Input::JudgeProblems {
                at_ns,
                counted_clients,
            } => Input::JudgeProblems {
                at_ns: *at_ns,
                counted_clients: counted_clients.map(|n| n.saturating_sub(self.clients)),
            },
            Input::AcceptCounts(all) => {
                let all = all.iter().filter_map(|of| self.accepted_since(of));
                let all: Vec<AcceptCounts> = all.collect();
                if all.is_empty() {
                    return None;
                }
                Input::AcceptCounts(all)
            }
            other => return Some(Cow::Borrowed(other)),
        }))
    }

    fn accepted_since(&self, of: &AcceptCounts) -> Option<AcceptCounts> {
        let Some(before) = self.accepts.get(&(of.netns, of.port)) else {
            return Some(of.clone());
        };
        let counts = less(&of.counts, &before.counts);
        counts.iter().any(|count| *count > 0).then(|| AcceptCounts {
            total_us: of.total_us.saturating_sub(before.total_us),
            counts,
            ..of.clone()
        })
    }
}

fn less(counts: &[u64], before: &[u64]) -> Vec<u64> {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    let both = counts.iter().zip(before);
    both.map(|(now, before)| now.saturating_sub(before))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(port: u16, counts: &[u64]) -> AcceptCounts {
        AcceptCounts {
            netns: 1,
            port,
            total_us: counts.iter().sum::<u64>() * 10,
            counts: counts.to_vec(),
            accepted_by: None,
        }
    }

    #[test]
    fn what_was_before_does_not_count() {
        let completed =
            |port, counts: &[u64]| Input::Completed(Role::Client, Some(port), counts.to_vec());
        let before = CountsAtStart::new(
            vec![completed(80, &[1, 2, 30]), completed(81, &[4, 0, 40])],
            7,
            vec![accepts(80, &[5, 5])],
        );
        let since = |input: Input| {
            let since = before.since(&input);
            since.map(|input| format!("{:?}", input.into_owned()))
        };
        let shown = |input: Input| Some(format!("{input:?}"));
        assert_eq!(
            since(completed(80, &[1, 5, 75])),
            shown(completed(80, &[0, 3, 45]))
        );
        assert_eq!(since(completed(81, &[4, 0, 40])), None);
        assert_eq!(
            since(completed(82, &[1, 0, 10])),
            shown(completed(82, &[1, 0, 10]))
        );
        let judge = |counted_clients| Input::JudgeProblems {
            at_ns: 9,
            counted_clients,
        };
        assert_eq!(since(judge(Some(9))), shown(judge(Some(2))));
        assert_eq!(since(judge(None)), shown(judge(None)));
        assert_eq!(
            since(Input::AcceptCounts(vec![
                accepts(80, &[5, 5]),
                accepts(81, &[1, 0])
            ])),
            shown(Input::AcceptCounts(vec![accepts(81, &[1, 0])]))
        );
        assert_eq!(since(Input::AcceptCounts(vec![accepts(80, &[5, 5])])), None);
        assert_eq!(since(Input::PollBegins), shown(Input::PollBegins));
    }
}
