//! The page: each pair in trouble on a line, then the problems with one example each, on one clock.

use std::fmt::Write;

use super::summary::JoinSummary;
use crate::{
    join::{
        pair::{Pair, SegmentFate, SegmentKind, Transmission, utc},
        problems::PairProblem,
    },
    model::Confidence,
    util::{
        fill::fill,
        format::{duration, plural, safe},
    },
    view::{Style, steps},
};

/// One pair in trouble. `width`: the columns of a terminal; `None`: one line, whatever its length.
pub(super) fn pair_line(pair: &Pair, width: Option<usize>) -> String {
    let Some(end) = pair.main_end() else {
        return String::new();
    };
    let way = if pair.simultaneous { "↔" } else { "→" };
    let ends = match end.ends() {
        Some((client, server)) => format!("{client} {way} {server}"),
        None => format!("{} {way} {}", end.local_addr, end.peer_addr),
    };
    let verdict = pair.verdict.as_deref().unwrap_or("no trouble");
    let facts: Vec<&str> = pair.evidence.iter().take(3).map(|e| &*e.fact).collect();
    let line = format!(
        "{}  {ends}  {verdict} ({})  {}",
        utc(end.at_ns),
        pair.confidence.name(),
        facts.join("; ")
    );
    match width {
        None => format!("{}\n", safe(&line)),
        Some(width) => {
            let mut text = String::new();
            lines(&mut text, "", "    ", &line, width);
            text
        }
    }
}

/// `body` in lines of at most `width` columns: `first` before the first, `next` before the others.
fn lines(text: &mut String, first: &str, next: &str, body: &str, width: usize) {
    for line in fill(first, next, body, width) {
        text.push_str(&line);
        text.push('\n');
    }
}

/// The problems and the summary. `more`: pairs in trouble that have no line.
pub(super) fn page(
    problems: &[PairProblem],
    summary: &JoinSummary,
    more: u64,
    style: Style,
) -> String {
    let mut text = String::new();
    if more > 0 {
        let _ = writeln!(
            text,
            "and {more} more pairs in trouble; --format json has all of them"
        );
    }
    for problem in problems {
        if !text.is_empty() || problem.rank > 1 {
            text.push('\n');
        }
        one(&mut text, problem, style);
    }
    if !problems.is_empty() {
        text.push('\n');
    }
    ending(&mut text, problems, summary, style.width);
    text
}

fn one(text: &mut String, problem: &PairProblem, style: Style) {
    let certainty = match problem.confidence {
        Confidence::Insufficient => String::new(),
        confidence => format!(", {}", confidence.name()),
    };
    let port = problem
        .local_port
        .map_or_else(|| "?".to_owned(), |port| port.to_string());
    let _ = writeln!(
        text,
        "{}. {}{certainty}: {} to {} port {port}",
        problem.rank,
        problem.verdict,
        plural(problem.handshakes, "connect"),
        problem.local_addr
    );
    for evidence in &problem.evidence {
        lines(text, "   - ", "     ", &evidence.fact, style.width);
    }
    if let Some(pair) = &problem.example {
        example(text, pair, style.width);
    }
    if let Some(remedy) = &problem.remedy {
        for line in steps("  do      ", "          ", remedy, style) {
            let _ = writeln!(text, "{line}");
        }
    }
}

/// The segments of one pair, on the client's clock.
fn example(text: &mut String, pair: &Pair, width: usize) {
    let Some(end) = pair.main_end().filter(|_| !pair.transmissions.is_empty()) else {
        return;
    };
    let from = match end.local_port {
        Some(port) => format!("{} port {port}", end.local_addr),
        None => end.local_addr.to_string(),
    };
    let clock = match (pair.clock_offset_us, pair.clock_error_us) {
        (Some(offset), Some(error)) => format!(
            "; the server's clock is {} {} ± {}",
            duration(offset.unsigned_abs()),
            if offset < 0 { "behind" } else { "ahead" },
            duration(error.unsigned_abs())
        ),
        _ => "; the offset of the clocks is not known".to_owned(),
    };
    let body = format!("{from}, {}, on the client's clock{clock}", utc(end.at_ns));
    lines(text, "   example: ", "     ", &body, width);
    let mut segments: Vec<&Transmission> = pair.transmissions.iter().collect();
    segments.sort_by_key(|t| t.sent_us.unwrap_or(i64::MAX));
    for t in segments {
        let (name, way) = match t.segment {
            SegmentKind::Syn => ("SYN", "client → server"),
            SegmentKind::SynAck => ("SYN-ACK", "client ← server"),
            SegmentKind::Ack => ("ACK", "client → server"),
        };
        let sent = t.sent_us.map_or_else(|| "?".to_owned(), seconds);
        let fate = match (t.fate, t.seen_us) {
            (SegmentFate::Arrived, Some(seen)) => format!("arrived {}", seconds(seen)),
            (SegmentFate::Arrived, None) => "arrived".to_owned(),
            (SegmentFate::Lost, _) => "never arrived".to_owned(),
            (SegmentFate::Refused, _) => "arrived, and was refused".to_owned(),
            (SegmentFate::Unknown, _) => "not known".to_owned(),
        };
        let _ = writeln!(text, "     {sent:>12}  {name:<8} {way}  {fate}");
    }
}

fn seconds(us: i64) -> String {
    format!("{:.6}", us as f64 / 1e6)
}

fn ending(text: &mut String, problems: &[PairProblem], summary: &JoinSummary, width: usize) {
    let clock = match (summary.clock_offset_us, summary.clock_error_us) {
        (Some(offset), Some(error)) => {
            let drift = summary
                .clock_drift_ppm
                .map_or_else(String::new, |ppm| format!(", drifting {ppm:.1} ppm"));
            format!(
                "the server's clock is {} {} the client's (± {}{drift})",
                duration(offset.unsigned_abs()),
                if offset < 0 { "behind" } else { "ahead of" },
                duration(error.unsigned_abs())
            )
        }
        _ => "the offset of the clocks is not known".to_owned(),
    };
    let counts = format!(
        "{} connects in both files, {} only in the client's, {} only in the server's; {clock}",
        summary.joined, summary.client_only, summary.server_only
    );
    lines(text, "", "  ", &counts, width);
    for (side, name) in [(&summary.client, "client"), (&summary.server, "server")] {
        let times = match (&side.since, &side.until) {
            (Some(since), Some(until)) => format!("{since} to {until}, by its own clock"),
            _ => "no run".to_owned(),
        };
        let limits = match (side.lists_every_handshake, side.gaps) {
            (true, 0) => "",
            (true, _) => "; it lost records",
            (false, 0) => "; it does not list every handshake",
            (false, _) => "; it does not list every handshake, and lost records",
        };
        let host = side
            .hostname
            .as_deref()
            .map_or_else(String::new, |h| format!(" ({h})"));
        let line = format!("{name}: {}{host}, {times}{limits}", side.file);
        lines(text, "", "  ", &line, width);
    }
    if problems.is_empty() && summary.joined > 0 {
        text.push_str("Nothing was lost between the two hosts, as far as both files show.\n");
    }
}
