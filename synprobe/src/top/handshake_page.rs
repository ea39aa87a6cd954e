//! The page of a handshake in progress, with the ladder of its transmissions.

use std::sync::Arc;

use super::{
    Observed, TopEvent,
    events::SeenAgain,
    page_text::PageText,
    rows::{next_transmission, remaining},
    style::Tone,
    wording::{end, span, time_of_day},
};
use crate::{
    model::{Role, UnderWay, who},
    util::{
        fill::{columns, padded},
        format,
    },
};

/// Everything that is known of it.
pub(super) fn handshake(page: &mut PageText, h: &UnderWay, observed: &Observed) {
    let (c, now_ns) = (&h.connection, observed.status.at_ns);
    let (from, to) = match c.role {
        Role::Server => ("←", "SYN-ACK"),
        Role::Client => ("→", "SYN"),
    };
    page.heading(&format!(
        "{} {} {from} {}",
        h.state.name(),
        end(c.local_addr, c.local_port),
        end(c.peer_addr, c.peer_port)
    ));
    let who = who(c.comm.as_deref(), c.pid, &c.workload);
    page.entry(
        "process",
        if who.is_empty() { "?" } else { &who },
        Tone::Plain,
    );
    page.entry(
        "netns",
        c.netns_name.as_deref().unwrap_or(&c.netns.to_string()),
        Tone::Plain,
    );
    let began = match h.began_ns {
        None => "not known: it is older than the run".to_owned(),
        Some(at_ns) => {
            let error = match h.began_error_us {
                0 => String::new(),
                us => format!(" ± {}", format::duration(us)),
            };
            let at = time_of_day(observed.status.clock, at_ns);
            format!(
                "{at} UTC, {} ago{error}",
                span(now_ns.saturating_sub(at_ns) / 1000)
            )
        }
    };
    page.entry("began", &began, Tone::Plain);
    let again = match c.role {
        _ if h.retransmits == 0 => "none retransmitted, as far as is known".to_owned(),
        Role::Server => format!(
            "{} SYN-ACKs retransmitted, {} of them because the peer repeated its SYN",
            h.retransmits, h.retransmits_by_peer
        ),
        Role::Client => format!("{} SYNs retransmitted", h.retransmits),
    };
    page.entry("again", &again, Tone::Plain);
    page.entry("next", &next_transmission(h, now_ns), Tone::Plain);
    page.entry("ends in", &remaining(h.gives_up_ns, now_ns), Tone::Plain);
    match observed.tail.ladder(c.id) {
        rungs if !rungs.is_empty() => climbed(page, &rungs, h, to),
        _ if !h.gaps_us.is_empty() => ladder(page, h, to),
        _ => (),
    }
    let own = |event: &&Arc<TopEvent>| event.handshake() == Some(c.id);
    let events: Vec<_> = observed.events.iter().filter(own).collect();
    if !events.is_empty() {
        page.heading("Its events");
    }
    for event in events.into_iter().rev() {
        page.line(&event.text(page.columns), Tone::Plain);
    }
}

/// Each retransmission that was seen, and when it was due by the kernel's schedule.
fn climbed(page: &mut PageText, rungs: &[SeenAgain], h: &UnderWay, what: &str) {
    let lang = page.lang;
    page.heading(&format!("{what}s retransmitted, after the one before"));
    let missing = u64::from(h.retransmits).saturating_sub(rungs.len() as u64);
    if missing > 0 {
        page.line(
            &lang.say(&format!("  {missing} more were not seen one by one")),
            Tone::Weak,
        );
    }
    let words: Vec<String> = rungs
        .iter()
        .map(|rung| match rung.due_us {
            _ if rung.is_by_peer => lang.say("by the peer").into_owned(),
            Some(due_us) => {
                let due = format!("due {}", format::duration(due_us));
                lang.say(&due).into_owned()
            }
            None => lang.say("due: not known").into_owned(),
        })
        .collect();
    let wide = words.iter().map(|word| columns(word)).max().unwrap_or(0);
    let longest = rungs.iter().filter_map(|rung| rung.gap_us).max();
    let longest = longest.unwrap_or(1).max(1);
    for (rung, word) in rungs.iter().zip(&words) {
        let number = rung.attempt.map_or("?".to_owned(), |n| n.to_string());
        let gap = rung.gap_us.map_or("?".to_owned(), format::duration);
        let bar = (rung.gap_us.unwrap_or(0) * 20).div_ceil(longest) as usize;
        let text = format!(
            "  #{number:<3}{gap:>8}  {}  {}",
            padded(word, wide),
            "─".repeat(bar)
        );
        page.line(&text, Tone::Plain);
    }
}

/// The gap before each retransmission, as far as they were measured.
fn ladder(page: &mut PageText, h: &UnderWay, what: &str) {
    let measured = h.gaps_us.len();
    let is_whole = measured as u64 == u64::from(h.retransmits);
    page.heading(&match is_whole {
        true => format!("{what}s retransmitted, after the one before"),
        false => format!(
            "{what}s retransmitted, after the one before: {measured} of {} gaps were measured",
            h.retransmits
        ),
    });
    let longest = h.gaps_us.iter().copied().max().unwrap_or(1).max(1);
    for (n, gap_us) in h.gaps_us.iter().enumerate() {
        let bar = "─".repeat((gap_us * 20).div_ceil(longest) as usize);
        let label = match is_whole {
            true => format!("#{}", n + 1),
            // Which ones they are is not known.
            false => String::new(),
        };
        let text = format!("  {label:<4}{:>8}  {bar}", format::duration(*gap_us));
        page.line(&text, Tone::Plain);
    }
}
