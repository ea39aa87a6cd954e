//! The file: its head, its sections in their order, what was not seen.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Write as _};

use super::{
    HtmlReport, cards,
    cause::Palette,
    durations_chart, flow_chart,
    html::{Esc, counted, number},
    ladder_chart, peers_chart, queues_chart, table, timeline_chart,
};
use crate::{
    lang::Lang,
    model::Counted,
    util::format,
    view::{blind_in, explanation::summary, rfc3339},
};

const STYLE: &str = include_str!("style.css");

/// Id and heading of each section.
pub(super) const SECTIONS: [(&str, &str); 10] = [
    ("problems", "What is wrong"),
    ("ladders", "The worst handshakes"),
    ("timeline", "Half-opens and SYN_SENT over time"),
    ("queues", "Queues of listeners"),
    ("peers", "Peers over time"),
    ("durations", "How long handshakes took"),
    ("flow", "From begun to outcome to cause"),
    ("unseen", "What was not seen"),
    ("troubled", "Handshakes in trouble"),
    ("refused", "SYNs that this host refused"),
];

pub(super) fn html(report: &HtmlReport, states: &Counted) -> String {
    let mut out = String::with_capacity(256 << 10);
    let palette = Palette::new(&report.flow.causes());
    head(&mut out, report, states);
    out.push_str("<main>\n");
    for (id, heading) in SECTIONS {
        let _ = writeln!(
            out,
            "<section id=\"{id}\" aria-labelledby=\"h-{id}\">\n<h2 id=\"h-{id}\">{heading}</h2>"
        );
        match id {
            "problems" => problems(&mut out, report),
            "ladders" => ladder_chart::push(&mut out, report),
            "timeline" => timeline_chart::push(&mut out, report, &palette),
            "queues" => queues_chart::push(&mut out, report),
            "peers" => peers_chart::push(&mut out, report),
            "durations" => durations_chart::push(&mut out, report),
            "flow" => flow_chart::push(&mut out, report, &palette),
            "unseen" => unseen(&mut out, report, states),
            "troubled" => table::push_troubled(&mut out, report),
            _ => table::push_refused(&mut out, report),
        }
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// The host's name, as a reader knows it.
fn host(report: &HtmlReport) -> &str {
    let start = report.page.start();
    let name = start.and_then(|start| start.host.hostname.as_deref());
    name.unwrap_or("a host whose name is not known")
}

fn head(out: &mut String, report: &HtmlReport, states: &Counted) {
    let host = Esc(host(report));
    let conclusion = report.page.conclusion();
    let _ = writeln!(
        out,
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>synprobe report of {host}: {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>",
        report.lang.tag(),
        Esc(&conclusion)
    );
    let _ = writeln!(
        out,
        "<p class=\"sub\">synprobe report of {host}</p>\n<h1>{}</h1>",
        Esc(&conclusion)
    );
    if let Some(verdict) = report.page.problems().iter().find_map(|p| p.verdict) {
        let _ = writeln!(
            out,
            "<p>{}.</p>",
            Esc(cards::sentence(summary(verdict, Lang::En)))
        );
    }
    facts(out, report, states);
    out.push_str("<nav aria-label=\"Contents\">\n<ul>\n");
    for (id, heading) in SECTIONS {
        let _ = writeln!(out, "<li><a href=\"#{id}\">{heading}</a></li>");
    }
    out.push_str("</ul>\n</nav>\n</header>\n");
}

/// How it was made.
fn facts(out: &mut String, report: &HtmlReport, states: &Counted) {
    let (Some(start), Some(end)) = (report.page.start(), report.page.totals()) else {
        out.push_str("<p>The run did not begin: nothing was read.</p>\n");
        return;
    };
    let mut facts: Vec<(&str, String)> = Vec::new();
    let mut kernel = format!("Linux {}", start.kernel);
    if let Some(id) = &start.host.machine_id {
        let _ = write!(kernel, ", machine-id {id}");
    }
    facts.push(("host", format!("{}, {kernel}", host(report))));
    facts.push(("time", times(report, end.duration_us)));
    let source = match &start.replayed_from {
        Some(file) => format!("a replay of the recording {file}"),
        None => "a live run".to_owned(),
    };
    let runs = match report.runs {
        0 | 1 => String::new(),
        n => format!(", which holds {n} runs one after the other"),
    };
    facts.push((
        "source",
        format!("{source}{runs}, synprobe {}", start.version),
    ));
    let filters: Vec<String> = start
        .filters
        .iter()
        .map(|(name, value)| format!("--{} {value}", name.replace('_', "-")))
        .collect();
    let what = match filters.is_empty() {
        true => "the whole host".to_owned(),
        false => format!("only {}", filters.join(" ")),
    };
    facts.push(("watched", what));
    let why = start.mode_why.as_ref().map(|why| format!(" ({why})"));
    facts.push(("mode", format!("{}{}", start.mode, why.unwrap_or_default())));
    facts.push((
        "handshakes",
        format!(
            "{} ended or were open, {} of them in trouble",
            number(end.handshakes + end.counted),
            number(report.flow.troubled())
        ),
    ));
    facts.push((
        "kernel records",
        format!("{} received, {} lost", number(end.events), number(end.lost)),
    ));
    if let Some(sockets) = sockets(states) {
        facts.push(("sockets at the end", sockets));
    }
    out.push_str("<dl class=\"facts\">\n");
    for (name, value) in facts {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", Esc(value));
    }
    out.push_str("</dl>\n");
}

fn times(report: &HtmlReport, duration_us: u64) -> String {
    let second = |(at_ns, clock)| {
        let time = rfc3339(clock, at_ns);
        time.get(..19).unwrap_or(&time).replace('T', " ")
    };
    let began = report.began.map(second).unwrap_or_default();
    let ended = report.ended.map(second).unwrap_or_default();
    format!("{began} to {ended} UTC, {}", format::duration(duration_us))
}

/// All namespaces together, the most first.
fn sockets(states: &Counted) -> Option<String> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (state, n) in states.namespaces.iter().flat_map(|netns| &netns.states) {
        *sums.entry(state).or_default() += n;
    }
    let mut sums: Vec<(&str, u64)> = sums.into_iter().filter(|(_, n)| *n > 0).collect();
    sums.sort_by_key(|(state, n)| (Reverse(*n), *state));
    let of = match states.namespaces.len() {
        0 | 1 => String::new(),
        n => format!(", {n} network namespaces together"),
    };
    let sums: Vec<String> = sums
        .iter()
        .map(|(s, n)| format!("{s} {}", number(*n)))
        .collect();
    (!sums.is_empty()).then(|| format!("{}{of}", sums.join(", ")))
}

fn problems(out: &mut String, report: &HtmlReport) {
    if let Some(nothing) = report.page.without_cause() {
        let _ = writeln!(out, "<p>{nothing}</p>");
    }
    cards::push(out, report.page.problems());
    let unexplained = report.page.unexplained();
    if !unexplained.is_empty() {
        out.push_str("<h3>Seen and not explained</h3>\n<ul>\n");
        for fact in unexplained {
            let _ = writeln!(out, "<li>{}</li>", Esc(cards::sentence(fact)));
        }
        out.push_str("</ul>\n");
    }
    if report.resets > 0 {
        let _ = writeln!(
            out,
            "<p>{} right after the handshake.</p>",
            counted(
                report.resets,
                "connection was reset by its peer",
                "connections were reset by their peers"
            )
        );
    }
}

/// The mode, what was lost, what the report itself left out.
fn unseen(out: &mut String, report: &HtmlReport, states: &Counted) {
    let mut spots = Vec::new();
    if let Some(start) = report.page.start()
        && let Some(blind) = blind_in(start)
    {
        spots.push(format!("the mode {} does not see: {blind}", start.mode));
    }
    spots.extend(report.page.not_seen(states));
    spots.extend(report.spots.iter().cloned());
    if report.queues.beyond > 0 {
        spots.push(
            "more sockets listened than this report follows: the queues of some are not shown"
                .to_owned(),
        );
    }
    if report.durations.unknown > 0 {
        spots.push(format!(
            "how long {} took is not known",
            counted(report.durations.unknown, "handshake", "handshakes")
        ));
    }
    if spots.is_empty() {
        out.push_str("<p>Nothing was lost.</p>\n");
        return;
    }
    out.push_str("<ul>\n");
    for spot in spots {
        let _ = writeln!(out, "<li>{}</li>", Esc(cards::sentence(&spot)));
    }
    out.push_str("</ul>\n");
}
