//! Losses of one batch: one line for each reason. A timer that fires for a hundred half-opens at once may show
//! a hundred losses.

use crate::model::{Body, Line};

/// Adds each `lost` line to the first of the same reason.
pub(super) fn merge(lines: &mut Vec<Line>) {
    let mut first_of = Vec::<usize>::new();
    let mut kept = Vec::<Line>::with_capacity(lines.len());
    for line in lines.drain(..) {
        if let Body::Lost(lost) = &line.body {
            let same = first_of.iter().find_map(|at| match &kept[*at].body {
                Body::Lost(first) if first.reason == lost.reason && first.of == lost.of => {
                    Some(*at)
                }
                _ => None,
            });
            if let Some(Body::Lost(first)) = same.map(|at| &mut kept[at].body) {
                first.events += lost.events;
                continue;
            }
            first_of.push(kept.len());
        }
        kept.push(line);
    }
    *lines = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lost, Missed};

    fn lost(mono_ns: u64, events: u64, netns: u32) -> Line {
        Line {
            mono_ns,
            body: Body::Lost(Lost {
                events,
                reason: format!("retransmissions in namespace {netns}"),
                of: Missed::Handshakes(netns),
            }),
        }
    }

    #[test]
    fn losses_of_one_reason_are_one_line() {
        let mut lines = vec![lost(1, 1, 7), lost(2, 1, 8), lost(3, 4, 7), lost(4, 1, 8)];
        merge(&mut lines);
        assert_eq!(lines, [lost(1, 5, 7), lost(2, 2, 8)]);
        merge(&mut lines);
        assert_eq!(lines.len(), 2);
    }
}
