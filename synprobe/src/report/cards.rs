//! A card for each problem: verdict, evidence, what to do.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    html::{Esc, counted, number},
    path_chart,
};
use crate::{
    lang::Lang,
    model::{Confidence, Problem, WallClock},
    view::{self, explanation::summary, remedy, rfc3339},
};

/// Problems, worst first, that have a card.
const CARDS: usize = 20;

/// `open`: the problems are open, and when they were found is told by this clock.
pub(super) fn push(out: &mut String, problems: &[Problem], open: Option<WallClock>) {
    for problem in problems.iter().take(CARDS) {
        card(out, problem, open);
    }
    let mut rest: BTreeMap<&str, u64> = BTreeMap::new();
    for p in problems.iter().skip(CARDS) {
        *rest.entry(p.verdict_name()).or_default() += 1;
    }
    if !rest.is_empty() {
        let rest: Vec<String> = rest.iter().map(|(v, n)| format!("{v} ×{n}")).collect();
        let _ = writeln!(
            out,
            "<p>{} less grave: {}. <code>synprobe diagnose --format json</code> lists all.</p>",
            counted(
                (problems.len() - CARDS) as u64,
                "more problem is",
                "more problems are"
            ),
            Esc(rest.join(", "))
        );
    }
}

/// How sure a verdict is, in words.
pub(super) fn sure(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Insufficient => "not enough evidence",
        sure => sure.name(),
    }
}

/// A moment, to the second: `2026-11-29 18:45:00`.
pub(super) fn second(clock: WallClock, at_ns: u64) -> String {
    let time = rfc3339(clock, at_ns);
    time.get(..19).unwrap_or(&time).replace('T', " ")
}

fn card(out: &mut String, p: &Problem, is_open: Option<WallClock>) {
    let name = p.verdict.map_or("no verdict", |verdict| verdict.name());
    let class = p.confidence.name();
    let _ = writeln!(
        out,
        "<article class=\"card {class}\">\n<h3>{}. {name} <span class=\"badge {class}\">{}</span></h3>\n\
         <p><strong>{}</strong></p>",
        p.rank,
        sure(p.confidence),
        Esc(view::place(p)),
    );
    if let Some(verdict) = p.verdict {
        let _ = writeln!(
            out,
            "<p class=\"why\">{}</p>",
            Esc(sentence(summary(verdict, Lang::En)))
        );
    }
    let open = match p.open {
        0 => String::new(),
        open => format!(", {} of them still open", number(open)),
    };
    let _ = writeln!(
        out,
        "<p>{}{open}</p>",
        counted(p.handshakes, "handshake", "handshakes")
    );
    if let Some(clock) = is_open {
        let since = second(p.life.since_clock.unwrap_or(clock), p.life.since_ns);
        let _ = writeln!(out, "<p>Open since {since} UTC</p>");
    }
    push_evidence(out, p);
    path_chart::push(out, p, &format!("path-{}", p.rank));
    if !p.peers.is_empty() {
        let named: Vec<String> = p
            .peers
            .iter()
            .map(|s| format!("{} ×{}", s.peer_addr, number(s.handshakes)))
            .collect();
        let more = match p.peers_more {
            0 => String::new(),
            n => format!(", and {} more", number(n)),
        };
        let _ = writeln!(
            out,
            "<h4>Peers</h4>\n<p>{}{more}</p>",
            Esc(named.join(", "))
        );
    }
    if !p.effects.is_empty() {
        out.push_str("<h4>Effects</h4>\n<ul>\n");
        for effect in &p.effects {
            let _ = writeln!(out, "<li>{}</li>", Esc(view::effect(effect)));
        }
        out.push_str("</ul>\n");
    }
    if let Some(remedy) = &p.remedy {
        push_remedy(out, remedy);
    }
    if let Some(verdict) = p.verdict {
        let _ = writeln!(
            out,
            "<p class=\"sub\">More: <code>synprobe explain {verdict}</code></p>"
        );
    }
    out.push_str("</article>\n");
}

fn push_evidence(out: &mut String, p: &Problem) {
    for (supports, heading) in [(true, "Evidence for it"), (false, "Evidence against it")] {
        let mut facts = p
            .evidence
            .iter()
            .filter(|e| e.supports == supports)
            .peekable();
        if facts.peek().is_none() {
            continue;
        }
        let _ = writeln!(out, "<h4>{heading}</h4>\n<ul>");
        for e in facts {
            let _ = writeln!(out, "<li>{}</li>", Esc(&e.fact));
        }
        out.push_str("</ul>\n");
    }
}

fn push_remedy(out: &mut String, remedy: &str) {
    out.push_str("<h4>What to do</h4>\n");
    let (steps, comment) = remedy::steps(remedy);
    for step in steps {
        if !step.sentence.is_empty() {
            let end = if step.command.is_empty() { "." } else { ":" };
            let _ = writeln!(out, "<p>{}{end}</p>", Esc(sentence(step.sentence)));
        }
        if !step.command.is_empty() {
            let _ = writeln!(out, "<pre><code>{}</code></pre>", Esc(step.command));
        }
    }
    if !comment.is_empty() {
        let _ = writeln!(out, "<p class=\"sub\">{}</p>", Esc(sentence(comment)));
    }
}

/// With a capital letter.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    // Names of the kernel stay as they are.
    let first = text.split([' ', ':', ',']).next().unwrap_or_default();
    let is_word = first
        .chars()
        .all(|c| c.is_ascii_lowercase() || c == '\'' || c == '-');
    match chars.next() {
        Some(c) if is_word => c.to_uppercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
