//! Records that were lost, and the handshakes that they can have been of. A run of months must not be judged by one
//! second of it.

use std::collections::VecDeque;

use crate::model::{Handshake, Lost, Missed};

/// A loss is noticed within this time, nanoseconds. The kernel side's counters are read once a second; a stopped
/// process, or one without a CPU, reads them later. A request's own count shows it with its next SYN-ACK, up to 32 s
/// later by default (`tcp_synack_retries`).
const NOTICED_NS: u64 = 60_000_000_000;
/// Losses remembered. The two oldest become one beyond that.
const KEPT: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Loss {
    /// First and last moment at which it was noticed, CLOCK_MONOTONIC nanoseconds.
    first_ns: u64,
    last_ns: u64,
    /// The only namespace that it concerns.
    netns: Option<u32>,
    /// Drops are evidence, not handshakes.
    drops: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LossTimes {
    all: VecDeque<Loss>,
    /// Where the window begins, CLOCK_MONOTONIC nanoseconds; 0: there is none.
    window_ns: u64,
}

impl LossTimes {
    /// Takes in a `lost` line.
    pub fn note(&mut self, lost: &Lost, at_ns: u64) {
        let drops = lost.of == Missed::Drops;
        if !drops && !lost.is_of_handshakes() {
            return;
        }
        let netns = match lost.of {
            Missed::Handshakes(netns) => Some(netns),
            _ => None,
        };
        self.all.push_back(Loss {
            first_ns: at_ns,
            last_ns: at_ns,
            netns,
            drops,
        });
        if self.all.len() > KEPT
            && let Some(oldest) = self.all.pop_front()
            && let Some(next) = self.all.front_mut()
        {
            next.first_ns = next.first_ns.min(oldest.first_ns);
            next.netns = next.netns.filter(|netns| oldest.netns == Some(*netns));
            next.drops &= oldest.drops;
        }
    }

    /// Whether records of handshakes were lost that may have been of this one.
    pub fn touch(&self, h: &Handshake) -> bool {
        self.touching(h).any(|loss| !loss.drops)
    }

    /// Whether records of dropped packets were lost that may have been of this handshake.
    pub fn of_drops(&self, h: &Handshake) -> bool {
        self.touching(h).any(|loss| loss.drops)
    }

    /// The window begins here now. What is older stays known: a handshake may be older than the window.
    pub fn window_begins(&mut self, at_ns: u64) {
        self.window_ns = at_ns;
    }

    /// Whether anything was lost in the run, or in its window.
    pub fn any(&self) -> bool {
        self.in_window().next().is_some()
    }

    /// Whether records of handshakes were lost in the run, or in its window.
    pub fn any_of_handshakes(&self) -> bool {
        self.in_window().any(|loss| !loss.drops)
    }

    fn in_window(&self) -> impl Iterator<Item = &Loss> {
        let since_ns = self.window_ns;
        self.all.iter().filter(move |loss| loss.last_ns >= since_ns)
    }

    fn touching(&self, h: &Handshake) -> impl Iterator<Item = &Loss> {
        let (since_ns, until_ns) = (h.facts.since_ns(), h.facts.ended_ns);
        let netns = h.connection.netns;
        self.all.iter().filter(move |loss| {
            loss.last_ns >= since_ns
                && loss.first_ns <= until_ns.saturating_add(NOTICED_NS)
                && loss.netns.is_none_or(|of| of == netns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Outcome},
        verdict::{
            Context,
            fixtures::{NETNS, SEC, T0, half_open, lose, verdict_of},
        },
    };

    fn lost(of: Missed) -> Lost {
        Lost {
            events: 3,
            reason: String::new(),
            of,
        }
    }

    #[test]
    fn a_loss_touches_what_it_can_have_been_of() {
        let mut h = half_open(Outcome::Expired);
        h.facts.ended_ns = T0 + 10 * SEC;
        for (at_ns, of, touched) in [
            (T0 - SEC, Missed::Any, false),
            (T0 + SEC, Missed::Any, true),
            (T0 + 11 * SEC, Missed::States, true),
            (T0 + 3600 * SEC, Missed::Any, false),
            (T0 + SEC, Missed::Handshakes(NETNS), true),
            (T0 + SEC, Missed::Handshakes(7), false),
            (T0 + SEC, Missed::Drops, false),
            (T0 + SEC, Missed::Output, false),
        ] {
            let mut losses = LossTimes::default();
            losses.note(&lost(of), at_ns);
            assert_eq!(losses.touch(&h), touched, "{of:?} at {at_ns}");
            assert_eq!(losses.of_drops(&h), of == Missed::Drops);
        }
    }

    #[test]
    fn a_loss_of_another_time_takes_no_certainty() {
        for (before_s, confidence) in [(5, Confidence::Certain), (0, Confidence::Likely)] {
            let mut context = Context::default();
            lose(&mut context, 9, Missed::Any);
            let mut h = half_open(Outcome::Reset);
            h.facts.reset_seen = true;
            h.facts.began_ns = Some(T0 + before_s * SEC);
            assert_eq!(verdict_of(&h, context).1, confidence);
        }
    }

    #[test]
    fn many_losses_are_bounded_and_none_is_forgotten() {
        let mut h = half_open(Outcome::Expired);
        h.facts.ended_ns = T0 + SEC;
        let mut losses = LossTimes::default();
        for n in 0..5000 {
            losses.note(&lost(Missed::Handshakes(NETNS)), T0 + n * SEC);
        }
        assert_eq!(losses.all.len(), KEPT);
        assert!(losses.touch(&h));
    }
}
