//! The ladders: when a handshake's segments were sent, when they were due, and how it ended.

use std::fmt::Write as _;

use super::{
    HtmlReport,
    cards::{self, sure},
    cause::HandshakeCause,
    html::{Esc, begin_picture, counted, netns, number, percent, time_axis},
    table::{dwell, endpoints, outcome},
    worst::{Ladder, SentAgain},
};
use crate::{
    model::{Handshake, OpenReason, Outcome, ProblemRole, Role, who},
    util::format,
};

/// Ladders that are drawn.
const DRAWN: usize = 24;
/// Labels need this share of the width, percent: 49 pixels of 290.
const LABEL: f64 = 17.0;
/// The rows of what was sent and of what was due, pixels.
const SENT: u32 = 26;
const DUE: u32 = 46;
/// The time axis, below both rows or below the upper one alone.
const AXES: [u32; 2] = [60, 42];
/// Facts under a ladder.
const FACTS: usize = 2;

pub(super) fn push(out: &mut String, report: &HtmlReport) {
    let mut of_kind: Vec<(Role, HandshakeCause, &[Ladder])> = report.worst.ladders().collect();
    if of_kind.is_empty() {
        out.push_str("<p>No handshake was in trouble.</p>\n");
        return;
    }
    // In the order of the problems.
    let place = |role: Role, cause: HandshakeCause| {
        let of = |p: &crate::model::Problem| {
            let same = match cause {
                HandshakeCause::Verdict(verdict) => p.verdict == Some(verdict),
                _ => p.verdict.is_none(),
            };
            same && ProblemRole::from(role) == p.role
        };
        let at = report.page.problems().iter().position(of);
        at.unwrap_or(usize::MAX)
    };
    of_kind.sort_by_key(|(role, cause, _)| (place(*role, *cause), *cause, *role));
    legend(out);
    let each = (DRAWN / of_kind.len()).max(1);
    let mut left = DRAWN;
    let mut not_drawn = 0;
    for (role, cause, ladders) in of_kind {
        let all = report.flow.of(role, cause);
        let shown = ladders.len().min(each).min(left);
        if shown == 0 {
            not_drawn += 1;
            continue;
        }
        let what = match role {
            Role::Server => "this host is the server",
            Role::Client => "this host is the client",
        };
        let of = match (shown as u64, all) {
            (shown, all) if shown >= all => String::new(),
            (1, all) => format!(", the worst of {}", number(all)),
            (shown, all) => format!(", the worst {shown} of {}", number(all)),
        };
        let _ = writeln!(out, "<h3>{}: {what}{of}</h3>", cause.name());
        for ladder in &ladders[..shown] {
            draw(out, ladder, DRAWN - left);
            left -= 1;
        }
    }
    if not_drawn > 0 {
        let _ = writeln!(
            out,
            "<p class=\"sub\">Of {} no ladder is drawn; the table below has them.</p>",
            counted(not_drawn, "further cause", "further causes")
        );
    }
}

fn legend(out: &mut String) {
    out.push_str(
        "<p class=\"sub\">Upper row: each transmission of the SYN or SYN-ACK when it was sent. Lower row: when it \
         was due by the kernel’s schedule, with the settings of that socket and namespace. The kernel’s timers are \
         never early, and up to an eighth of the time-out late.</p>\n<ul class=\"legend\">\n",
    );
    let dot = |shape: &str, words: &str| {
        format!(
            "<li><svg class=\"key\" width=\"16\" height=\"14\" aria-hidden=\"true\">{shape}</svg>{words}</li>\n"
        )
    };
    out.push_str(&dot(
        "<circle class=\"f c1\" cx=\"8\" cy=\"7\" r=\"5\"/>",
        "sent: the first, or by the timer",
    ));
    out.push_str(&dot(
        "<path class=\"f c2\" d=\"M8 1l6 6-6 6-6-6z\"/>",
        "sent because the peer repeated its SYN",
    ));
    out.push_str(&dot(
        "<circle class=\"s cb\" cx=\"8\" cy=\"7\" r=\"4.5\"/>",
        "the kernel could not send it",
    ));
    out.push_str(&dot(
        "<circle class=\"due\" cx=\"8\" cy=\"7\" r=\"4\"/>",
        "due by the schedule",
    ));
    out.push_str(&dot(
        "<path class=\"end\" d=\"M3 2l10 10M13 2L3 12\"/>",
        "ended without a connection",
    ));
    out.push_str(&dot(
        "<path class=\"end ok\" d=\"M2 7l4 5 8-10\"/>",
        "connected",
    ));
    out.push_str(&dot(
        "<path class=\"end open\" d=\"M4 2l8 5-8 5z\"/>",
        "still open",
    ));
    out.push_str(&dot(
        "<path class=\"err\" d=\"M1 7h14\"/>",
        "not exact: somewhere within",
    ));
    out.push_str("</ul>\n");
}

/// When the first segment was sent, where that is known.
fn first_ns(ladder: &Ladder) -> Option<u64> {
    let began = ladder.handshake.facts.began_ns;
    began.or_else(|| {
        let first = ladder.sent.first()?;
        first.at_ns.checked_sub(first.gap_us? * 1000)
    })
}

fn draw(out: &mut String, ladder: &Ladder, number_of: usize) {
    let h = &ladder.handshake;
    let c = &h.connection;
    let process = who(c.comm.as_deref(), c.pid, &c.workload);
    let verdict = match h.verdict {
        Some(verdict) => format!(
            "{verdict} <span class=\"badge {}\">{}</span>",
            h.confidence.name(),
            sure(h.confidence)
        ),
        None => "no verdict".to_owned(),
    };
    let mut about = vec![format!("{} after {}", outcome(h), dwell(h))];
    about.extend(h.error.clone());
    about.extend((h.retransmits > 0).then(|| again(h)));
    about.extend((!process.is_empty()).then(|| process.into_owned()));
    about.extend(netns(c.netns_name.as_deref(), c.netns));
    let about = about.join(", ");
    let _ = write!(
        out,
        "<div class=\"ladder\">\n<h4 class=\"mono\">{}</h4>\n<p>{verdict} <span class=\"sub\">{}</span></p>\n",
        Esc(endpoints(c)),
        Esc(&about)
    );
    match first_ns(ladder) {
        Some(first) => picture(out, ladder, first, (number_of, &about)),
        None => {
            out.push_str("<p class=\"sub\">When its first segment was sent was not seen.</p>\n")
        }
    }
    let facts = h.evidence.iter().filter(|e| e.supports);
    let facts: Vec<String> = facts
        .take(FACTS)
        .map(|e| format!("{}.", cards::sentence(&e.fact)))
        .collect();
    if !facts.is_empty() {
        let _ = writeln!(out, "<p class=\"sub\">{}</p>", Esc(facts.join(" ")));
    }
    out.push_str("</div>\n");
}

/// `6 SYN-ACKs sent again, 2 of them because the peer repeated its SYN`
fn again(h: &Handshake) -> String {
    let (one, many) = match h.connection.role {
        Role::Client => ("SYN sent again", "SYNs sent again"),
        Role::Server => ("SYN-ACK sent again", "SYN-ACKs sent again"),
    };
    match (h.retransmits, h.retransmits_by_peer) {
        (n, 0) => counted(n.into(), one, many),
        (n, by) => format!(
            "{}, {by} of them because the peer repeated its SYN",
            counted(n.into(), one, many)
        ),
    }
}

fn picture(out: &mut String, ladder: &Ladder, first: u64, (number_of, about): (usize, &str)) {
    let h = &ladder.handshake;
    let since = |ns: u64| ns.saturating_sub(first) / 1000;
    let end_us = since(ladder.ended_ns);
    let latest = ladder.sent.iter().map(|s| since(s.at_ns)).max();
    let due = ladder
        .sent
        .iter()
        .filter_map(SentAgain::due_ns)
        .map(since)
        .max();
    let length_us = [Some(end_us), latest, due].into_iter().flatten().max();
    let length_us = length_us.unwrap_or(0).max(1);
    let whole = length_us as f64;
    let x = |us: u64| percent(us as f64, whole);
    let (axis, due_row) = match due {
        Some(_) => (AXES[0], "<span>due</span>"),
        None => (AXES[1], ""),
    };
    let _ = write!(
        out,
        "<div class=\"rail\"><div aria-hidden=\"true\"><span class=\"first\">sent</span>{due_row}</div>\
         <div class=\"plot\">"
    );
    begin_picture(
        out,
        &format!("l{number_of}"),
        axis + 22,
        &endpoints(&h.connection),
        about,
    );
    let _ = write!(
        out,
        "<line class=\"base\" x1=\"0\" x2=\"100%\" y1=\"{SENT}\" y2=\"{SENT}\"/>"
    );
    if let Some((from, to)) = not_exact(h, end_us) {
        let _ = write!(
            out,
            "<line class=\"err\" x1=\"{}%\" x2=\"{}%\" y1=\"{SENT}\" y2=\"{SENT}\"/>",
            x(from),
            x(to)
        );
    }
    let _ = write!(
        out,
        "<circle class=\"f c1\" cx=\"0\" cy=\"{SENT}\" r=\"5\"><title>first</title></circle>"
    );
    let mut labelled = 0.0;
    for sent in &ladder.sent {
        let at = x(since(sent.at_ns));
        if let Some(due) = sent.due_ns() {
            let due = x(since(due));
            let _ = write!(
                out,
                "<line class=\"lag\" x1=\"{due}%\" x2=\"{at}%\" y1=\"{DUE}\" y2=\"{SENT}\"/>\
                 <circle class=\"due\" cx=\"{due}%\" cy=\"{DUE}\" r=\"4\"/>"
            );
        }
        let title = format!("<title>{}</title>", Esc(in_words(sent)));
        let _ = match (sent.failed.is_some(), sent.by_peer) {
            (true, _) => write!(
                out,
                "<circle class=\"s cb\" cx=\"{at}%\" cy=\"{SENT}\" r=\"4.5\">{title}</circle>"
            ),
            (false, true) => write!(
                out,
                "<svg x=\"{at}%\" y=\"{SENT}\"><path class=\"f c2\" d=\"M0-6l6 6-6 6-6-6z\">{title}</path></svg>"
            ),
            (false, false) => write!(
                out,
                "<circle class=\"f c1\" cx=\"{at}%\" cy=\"{SENT}\" r=\"5\">{title}</circle>"
            ),
        };
        // Where the label's middle is: it ends within the picture.
        let middle = at.min(100.0 - LABEL / 2.0);
        if let Some(gap) = sent.gap_us
            && middle - labelled >= LABEL
        {
            labelled = middle;
            let (anchor, at) = match middle < at {
                true => ("end", 100.0),
                false => ("middle", at),
            };
            let _ = write!(
                out,
                "<text x=\"{at}%\" y=\"12\" text-anchor=\"{anchor}\">+{}</text>",
                format::duration(gap)
            );
        }
    }
    let (class, shape) = match (h.outcome, h.open_reason) {
        (Outcome::Established, _) => ("end ok", "M-6 0l4 5 8-10"),
        (Outcome::Open, Some(OpenReason::RunEnded)) => ("end open", "M-4-6l9 6-9 6z"),
        (Outcome::Open, _) => ("end open", "M-5 0h10"),
        _ => ("end", "M-6-6l12 12M6-6l-12 12"),
    };
    // Beside the last transmission, where it would lie on it.
    let last = ladder.sent.last().map_or(0.0, |sent| x(since(sent.at_ns)));
    let aside = if x(end_us) - last < 4.0 { 13 } else { 0 };
    let _ = write!(
        out,
        "<svg x=\"{}%\" y=\"{SENT}\"><path class=\"{class}\" transform=\"translate({aside} 0)\" d=\"{shape}\"/></svg>",
        x(end_us)
    );
    time_axis(out, length_us, axis);
    out.push_str("</svg></div></div>\n");
    words(out, ladder, since);
}

/// Within what the end lies, or the beginning of one that is still open, microseconds. Where both are not exact, the
/// bound does not tell them apart.
fn not_exact(h: &Handshake, end_us: u64) -> Option<(u64, u64)> {
    let error = h.dwell_error_us?;
    match (h.outcome, h.facts.preexisting) {
        (Outcome::Open, _) => Some((0, error)),
        (Outcome::Established, _) | (_, true) => None,
        (_, false) => Some((end_us.saturating_sub(error), end_us)),
    }
}

/// The picture again, in words.
fn words(out: &mut String, ladder: &Ladder, since: impl Fn(u64) -> u64) {
    let h = &ladder.handshake;
    if ladder.sent.is_empty() && h.retransmits == 0 {
        return;
    }
    let first = match h.facts.preexisting {
        true => "first, before the run",
        false => "first",
    };
    let _ = writeln!(out, "<ol class=\"sent\">\n<li>0: {first}</li>");
    for sent in &ladder.sent {
        let at = format::duration(since(sent.at_ns));
        let _ = writeln!(out, "<li>{at}: {}</li>", Esc(in_words(sent)));
    }
    let unseen = u64::from(h.retransmits).saturating_sub(ladder.sent.len() as u64);
    if unseen > 0 {
        let _ = writeln!(
            out,
            "<li>{} not seen one by one</li>",
            counted(unseen, "retransmission was", "retransmissions were")
        );
    }
    if h.outcome == Outcome::Open
        && let Some((at, us)) = ladder
            .sent
            .last()
            .and_then(|s| Some((s.at_ns, s.gives_up_us?)))
    {
        let _ = writeln!(
            out,
            "<li>the kernel gives up at {}</li>",
            format::duration(since(at) + us)
        );
    }
    out.push_str("</ol>\n");
}

/// `+2.05 s, by its timer (due after 2.00 s)`
fn in_words(sent: &SentAgain) -> String {
    let why = match (sent.by_peer, sent.gap_us, sent.expected_gap_us) {
        (true, ..) => "the peer repeated its SYN".to_owned(),
        // The kernel's timers are never early: something else sent it.
        (_, Some(gap), Some(due)) if gap < due - due / 8 => {
            format!("earlier than its timer ({})", format::duration(due))
        }
        (_, None, Some(due)) => format!(
            "by its timer, due {} after the one before, which was not seen",
            format::duration(due)
        ),
        (_, _, Some(due)) => format!("by its timer, due after {}", format::duration(due)),
        (_, _, None) => "by its timer".to_owned(),
    };
    let parts = [
        sent.gap_us.map(|gap| format!("+{}", format::duration(gap))),
        sent.failed
            .as_ref()
            .map(|error| format!("NOT SENT {error}").trim().to_owned()),
        Some(why),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}
