//! The queues of listeners over time, with their limits.

use std::{fmt::Write as _, net::SocketAddr};

use super::{
    HtmlReport,
    html::{Esc, begin_picture, counted, netns, number, percent, time_axis},
    places::QueueHistory,
    time_axis::{Intervals, TimeAxis},
};
use crate::{
    model::{LimitedBy, ProblemRole, who},
    util::format,
};

/// Listeners that are drawn.
const DRAWN: usize = 8;
/// Height of a plot, pixels, and of the room above it.
const HEIGHT: u32 = 110;
const TOP: u32 = 18;

pub(super) fn push(out: &mut String, report: &HtmlReport) {
    let Some(axis) = report.axis.as_ref().filter(|_| report.queues.samples > 0) else {
        out.push_str("<p>No queue was read in this time.</p>\n");
        return;
    };
    let (used, idle) = report.queues.used();
    let concerned = |h: &QueueHistory| {
        report.page.problems().iter().any(|p| {
            p.role == ProblemRole::Server
                && (p.netns, p.local_port) == (h.last.netns, Some(h.last.local_port))
        })
    };
    let (first, then): (Vec<&QueueHistory>, Vec<&QueueHistory>) =
        used.into_iter().partition(|h| concerned(h));
    let _ = writeln!(
        out,
        "<p class=\"sub\">As read in {}. What happens between two of them is not in the pictures.</p>",
        counted(report.queues.samples, "check", "checks")
    );
    let all: Vec<&QueueHistory> = first.into_iter().chain(then).collect();
    if all.is_empty() {
        let _ = match idle {
            0 => writeln!(out, "<p>No socket listened at any of them.</p>"),
            idle => writeln!(
                out,
                "<p>Nothing waited in a queue at any of them: {}.</p>",
                counted(idle as u64, "listening socket", "listening sockets")
            ),
        };
        return;
    }
    for (number, history) in all.iter().take(DRAWN).enumerate() {
        draw(out, axis, history, number);
    }
    let more = all.len().saturating_sub(DRAWN);
    let mut rest = Vec::new();
    if more > 0 {
        rest.push(format!(
            "{} with something in a queue, none of them fuller, {} not drawn",
            counted(more as u64, "more socket", "more sockets"),
            if more == 1 { "is" } else { "are" }
        ));
    }
    if idle > 0 {
        rest.push(format!(
            "{} had nothing in a queue at any check",
            counted(idle as u64, "listening socket", "listening sockets")
        ));
    }
    if !rest.is_empty() {
        let _ = writeln!(out, "<p class=\"sub\">{}.</p>", Esc(rest.join("; ")));
    }
}

fn draw(out: &mut String, axis: &TimeAxis, history: &QueueHistory, number_of: usize) {
    let l = &history.last;
    let process = who(l.comm.as_deref(), l.pid, &l.workload);
    let title = format!(
        "{} {process} {}",
        SocketAddr::new(l.local_addr, l.local_port),
        netns(l.netns_name.as_deref(), l.netns).unwrap_or_default()
    );
    let title = title.trim_end();
    let limit = |limit: Option<u32>| match limit {
        Some(limit) => number(limit.into()),
        None => "unknown".to_owned(),
    };
    let by = match l.limited_by {
        Some(LimitedBy::ListenBacklog) => ", from the backlog of listen()",
        Some(LimitedBy::Somaxconn) => ", from net.core.somaxconn",
        Some(LimitedBy::TcpMaxSynBacklog) => ", the SYN queue’s from net.ipv4.tcp_max_syn_backlog",
        None => "",
    };
    let about = format!(
        "Accept queue at most {} (limit {}, one more fits), SYN queue at most {} (limit {}){by}",
        number(history.most_accept_queue.into()),
        limit(l.accept_queue_max),
        number(history.most_syn_queue.into()),
        limit(l.syn_queue_max),
    );
    let most = history.most_accept_queue.max(history.most_syn_queue);
    let limits = [l.accept_queue_max, l.syn_queue_max];
    // A limit far above what was there would press the lines to the ground.
    let drawn = limits.map(|limit| limit.filter(|limit| *limit / 4 <= most));
    let top = drawn
        .into_iter()
        .flatten()
        .chain([most])
        .max()
        .unwrap_or(most);
    // Room above the highest.
    let top = (top + top.div_ceil(4)).max(2);
    let _ = write!(
        out,
        "<figure>\n<h3>{}</h3>\n<figcaption>{}.</figcaption>\n<ul class=\"legend\">\
         <li><span class=\"sw c1\"></span>accept queue (line)</li>\
         <li><span class=\"sw c2\"></span>SYN queue (dashed)</li></ul>\n<div class=\"plot\">",
        Esc(title),
        Esc(&about)
    );
    begin_picture(
        out,
        &format!("q{number_of}"),
        TOP + HEIGHT + 22,
        title,
        &about,
    );
    let y =
        |value: u32| TOP + HEIGHT - (u64::from(value) * u64::from(HEIGHT) / u64::from(top)) as u32;
    if drawn.iter().all(|limit| *limit != Some(top)) {
        let _ = write!(
            out,
            "<line class=\"ax\" x1=\"0\" x2=\"100%\" y1=\"{TOP}\" y2=\"{TOP}\"/>\
             <text x=\"0\" y=\"{}\">{}</text>",
            TOP - 4,
            number(top.into())
        );
    }
    series(out, axis, &history.syn_queue, top, "c2 dash");
    series(out, axis, &history.accept_queue, top, "c1");
    limit_lines(out, drawn, y);
    time_axis(out, axis.length_us(), TOP + HEIGHT);
    out.push_str("</svg></div>\n</figure>\n");
}

/// A line for each limit; one where both are the same.
fn limit_lines(out: &mut String, [accept, syn]: [Option<u32>; 2], y: impl Fn(u32) -> u32) {
    let lines = match (accept, syn) {
        (Some(both), Some(same)) if both == same => vec![(both, "limit of both", "base")],
        (accept, syn) => accept
            .map(|limit| (limit, "accept queue limit", "s c1"))
            .into_iter()
            .chain(syn.map(|limit| (limit, "SYN queue limit", "s c2")))
            .collect(),
    };
    let mut taken: Option<u32> = None;
    for (limit, words, class) in lines {
        let at = y(limit);
        let above = at - 4;
        // Two labels that would touch: the second goes below its line.
        let label = match taken {
            Some(other) if other.abs_diff(above) < 15 => at + 13,
            _ => above,
        };
        taken = Some(label);
        let _ = write!(
            out,
            "<line class=\"{class}\" stroke-dasharray=\"2 3\" x1=\"0\" x2=\"100%\" y1=\"{at}\" y2=\"{at}\"/>\
             <text class=\"on\" x=\"100%\" y=\"{label}\" text-anchor=\"end\">{words} {}</text>",
            number(limit.into())
        );
    }
}

/// The samples of a queue, joined; a dot at each where there are few.
fn series(out: &mut String, axis: &TimeAxis, samples: &Intervals, top: u32, class: &str) {
    const DOTS: usize = 60;
    let whole = axis.len() as f64;
    let points: Vec<(f64, i64)> = samples
        .iter()
        .map(|(interval, n)| (percent(interval as f64 + 0.5, whole), n))
        .collect();
    let Some((first, rest)) = points.split_first() else {
        return;
    };
    let y = |n: i64| (f64::from(top) - n as f64).max(0.0);
    let mut path = format!("M{} {}", first.0, y(first.1));
    for (x, n) in rest {
        let _ = write!(path, "L{x} {}", y(*n));
    }
    let _ = write!(
        out,
        "<svg y=\"{TOP}\" width=\"100%\" height=\"{HEIGHT}\" viewBox=\"0 0 100 {top}\" \
         preserveAspectRatio=\"none\"><path class=\"s {class}\" d=\"{path}\"/></svg>"
    );
    if points.len() > DOTS {
        return;
    }
    let class = class.split(' ').next().unwrap_or_default();
    for (x, n) in &points {
        let y = f64::from(TOP) + y(*n) * f64::from(HEIGHT) / f64::from(top);
        let _ = write!(
            out,
            "<circle class=\"f {class}\" cx=\"{x}%\" cy=\"{y:.1}\" r=\"2.5\"><title>{}</title></circle>",
            format_args!(
                "{n} at {}",
                format::duration((x * axis.length_us() as f64 / 100.0) as u64)
            )
        );
    }
}
