//! The file: its head, its sections in their order, what was not seen.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Write as _};

use super::{
    HtmlReport, Now, cards,
    cause::Palette,
    durations_chart, flow_chart,
    html::{Esc, counted, number},
    ladder_chart, peers_chart, queues_chart, table, timeline_chart,
};
use crate::{
    lang::Lang,
    model::{Counted, Start},
    util::format,
    view::{self, blind_in, explanation::summary},
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
    out.push_str("</main>\n");
    if report.now.is_some() {
        out.push_str(
            "<footer class=\"sub\">\n<p>The same for programs: <a href=\"/problems\">/problems</a> (JSON), \
             <a href=\"/metrics\">/metrics</a>, <a href=\"/healthz\">/healthz</a>.</p>\n</footer>\n",
        );
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// What the file calls itself.
fn title(report: &HtmlReport) -> String {
    let host = Esc(host(report));
    match report.now {
        Some(_) => format!("synprobe on {host}"),
        None => format!("synprobe report of {host}"),
    }
}

/// The host's name, as a reader knows it.
fn host(report: &HtmlReport) -> &str {
    let start = report.page.start();
    let name = start.and_then(|start| start.host.hostname.as_deref());
    name.unwrap_or("a host whose name is not known")
}

fn head(out: &mut String, report: &HtmlReport, states: &Counted) {
    let conclusion = report.page.conclusion();
    let title = title(report);
    // Its own attributes are numbers: it reloads this page and nothing else.
    let refresh = report.now.as_ref().and_then(|now| now.refresh_s);
    let refresh = refresh.map_or_else(String::new, |s| {
        format!("<meta http-equiv=\"refresh\" content=\"{s}\">\n")
    });
    let _ = writeln!(
        out,
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n{refresh}\
         <title>{title}: {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>",
        report.lang.tag(),
        Esc(&conclusion)
    );
    let _ = writeln!(
        out,
        "<p class=\"sub\">{title}</p>\n<h1>{}</h1>",
        Esc(&conclusion)
    );
    if let Some(verdict) = report.page.problems().iter().find_map(|p| p.verdict) {
        let _ = writeln!(
            out,
            "<p>{}.</p>",
            Esc(cards::sentence(summary(verdict, Lang::En)))
        );
    }
    match &report.now {
        Some(now) => live_facts(out, report, now),
        None => facts(out, report, states),
    }
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
    how(&mut facts, start);
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
    list(out, &facts);
}

fn list(out: &mut String, facts: &[(&str, String)]) {
    out.push_str("<dl class=\"facts\">\n");
    for (name, value) in facts {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", Esc(value));
    }
    out.push_str("</dl>\n");
}

/// What was watched, and how.
fn how(facts: &mut Vec<(&str, String)>, start: &Start) {
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
}

/// The same of a run that goes on.
fn live_facts(out: &mut String, report: &HtmlReport, now: &Now) {
    let (Some(start), Some(end)) = (report.page.start(), report.page.totals()) else {
        return;
    };
    let mut facts: Vec<(&str, String)> = Vec::new();
    facts.push(("host", format!("{}, Linux {}", host(report), start.kernel)));
    facts.push(("shown", times(report, end.duration_us)));
    facts.push((
        "source",
        format!(
            "synprobe {}, running since {}",
            start.version, now.run_began
        ),
    ));
    how(&mut facts, start);
    facts.push(("in trouble", number(report.flow.troubled())));
    if now.counted > 0 {
        let counted = format!("{} since {}", number(now.counted), now.counted_since);
        facts.push(("without trouble", counted));
    }
    let in_progress = match now.drawn {
        drawn if drawn >= now.in_progress => number(now.in_progress),
        drawn => format!(
            "{}, {} of them in the pictures",
            number(now.in_progress),
            number(drawn)
        ),
    };
    facts.push(("in progress now", in_progress));
    facts.push((
        "kernel records",
        format!(
            "{} received, {} lost, since the run began",
            number(end.events),
            number(end.lost)
        ),
    ));
    list(out, &facts);
    let _ = match now.refresh_s {
        Some(s) => writeln!(
            out,
            "<p class=\"sub\">This page reloads every {s} s. <a href=\"/?still\">Stop that</a></p>"
        ),
        None => writeln!(
            out,
            "<p class=\"sub\"><a href=\"/\">Reload by itself</a></p>"
        ),
    };
}

fn times(report: &HtmlReport, duration_us: u64) -> String {
    let second = |(at_ns, clock)| cards::second(clock, at_ns);
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
    let since = report.now.as_ref().map(|_| report.clock);
    cards::push(out, report.page.problems(), since);
    closed(out, report);
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

/// Problems that have closed, the last first.
fn closed(out: &mut String, report: &HtmlReport) {
    if report.closed.is_empty() {
        return;
    }
    out.push_str("<h3>Closed in this time</h3>\n<ul>\n");
    for p in report.closed.iter().rev() {
        let clock = p.life.since_clock.unwrap_or(report.clock);
        let since = cards::second(clock, p.life.since_ns);
        let until = p.life.until_ns.unwrap_or(p.life.since_ns);
        let until = cards::second(report.clock, until);
        let _ = writeln!(
            out,
            "<li><code>{}</code> <span class=\"badge {}\">{}</span> <span>{}</span> \
             <span class=\"sub\">{since} to {until} UTC</span></li>",
            p.verdict_name(),
            p.confidence.name(),
            cards::sure(p.confidence),
            Esc(view::place(p)),
        );
    }
    out.push_str("</ul>\n");
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
