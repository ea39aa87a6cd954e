//! SYNs that were freed without a reason while their socket was in SYN_SENT, where a driver may have sent them
//! (`probe/drop_reasons/places.rs`).

use std::sync::Arc;

use super::{Context, Ends, times};
use crate::{model::Handshake, util::bounded::Bounded};

/// The SYNs of one connection.
#[derive(Clone, Debug)]
struct FreedSyn {
    /// The kernel function, where it is known.
    place: Option<Arc<str>>,
    count: u64,
    /// The last of them, CLOCK_MONOTONIC nanoseconds.
    last_ns: u64,
}

/// See the module. By namespace and ends.
#[derive(Default)]
pub(super) struct FreedSyns(Bounded<(u32, Ends), FreedSyn>);

impl FreedSyns {
    /// Forgets those that are older, CLOCK_MONOTONIC nanoseconds.
    pub fn forget_before(&mut self, cutoff_ns: u64) {
        self.0.retain(|_, syn| syn.last_ns >= cutoff_ns);
    }
}

impl Context {
    /// Takes in a SYN that was freed so.
    pub fn note_freed_syn(&mut self, netns: u32, ends: Ends, place: Option<Arc<str>>, at_ns: u64) {
        let key = (netns, ends);
        let known = self.freed_syns.0.get_mut(&key);
        // A later connection of the same port begins anew.
        match known.filter(|syn| at_ns.saturating_sub(syn.last_ns) <= super::ONE_CONNECT_NS) {
            Some(syn) => (syn.count, syn.last_ns, syn.place) = (syn.count + 1, at_ns, place),
            None => {
                let first = FreedSyn {
                    place,
                    count: 1,
                    last_ns: at_ns,
                };
                self.freed_syns.0.insert(key, first);
            }
        }
    }

    /// Says that SYNs of a handshake were freed, and what that does not tell.
    pub fn freed_syns(&self, h: &Handshake) -> Option<String> {
        let ends = Ends::of(&h.connection)?;
        let syn = self.freed_syns.0.get(&(h.connection.netns, ends))?;
        if syn.last_ns < h.facts.since_ns() {
            return None;
        }
        let by = match &syn.place {
            Some(place) => format!(" by {place}()"),
            None => String::new(),
        };
        Some(format!(
            "its SYN was freed {}{by}, without a reason: whether it was sent before is not known, and some drivers free so what \
             they have sent",
            times(syn.count)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Outcome, VerdictKind},
        verdict::fixtures::*,
    };

    #[test]
    fn syns_that_a_driver_freed_may_have_been_sent() {
        let mut h = active(Outcome::TimedOut);
        h.retransmits = 2;
        let ends = Ends::of(&h.connection).unwrap();
        let mut context = Context::default();
        for n in 0..3 {
            let place = Some("vmxnet3_tq_tx_complete".into());
            context.note_freed_syn(NETNS, ends, place, T0 + n * SEC);
        }
        let fact = "its SYN was freed 3 times by vmxnet3_tq_tx_complete(), without a reason: ";
        let judgement = judged(&h, context);
        assert_eq!(judgement.verdict, Some(VerdictKind::Filtered));
        assert!(
            judgement
                .evidence
                .iter()
                .any(|e| !e.supports && e.fact.starts_with(fact)),
            "{judgement:#?}"
        );
    }

    #[test]
    fn those_of_an_earlier_connection_are_not_said() {
        let mut h = active(Outcome::TimedOut);
        let ends = Ends::of(&h.connection).unwrap();
        let mut context = Context::default();
        context.note_freed_syn(NETNS, ends, None, T0);
        assert!(context.freed_syns(&h).is_some());
        context.note_freed_syn(NETNS, ends, None, T0 + 600 * SEC);
        let fact = context.freed_syns(&h).unwrap();
        assert!(fact.starts_with("its SYN was freed once, "), "{fact}");
        h.facts.began_ns = Some(T0 + 700 * SEC);
        assert_eq!(context.freed_syns(&h), None);
        context.freed_syns.forget_before(T0 + 800 * SEC);
        assert!(context.freed_syns.0.is_empty());
    }
}
