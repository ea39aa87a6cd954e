//! Handshakes in progress over time, by cause, and the counters of the listeners below them.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    HtmlReport,
    cause::{HandshakeCause, Palette},
    html::{begin_picture, counted, number, percent, time_axis},
    sums::Rise,
    time_axis::TimeAxis,
};
use crate::{model::Role, util::format};

/// Height of the plot, pixels.
const HEIGHT: u32 = 150;
/// Height of the bars of a counter, pixels.
const BARS: u32 = 36;
/// Room above a plot for the label of its highest line.
const TOP: u32 = 18;

pub(super) fn push(out: &mut String, report: &HtmlReport, palette: &Palette) {
    let Some(axis) = &report.axis else {
        out.push_str("<p>The run did not begin.</p>\n");
        return;
    };
    let interval = format::duration(axis.interval_us());
    let _ = writeln!(
        out,
        "<p class=\"sub\">Handshakes that are in progress at the end of each interval of {interval}. Those that \
         begin and end within one are not in the pictures. The colour is the cause.</p>"
    );
    if report.page.totals().is_some_and(|end| end.counted > 0) {
        out.push_str(
            "<p class=\"sub\">Handshakes that were only counted are not in them either.</p>\n",
        );
    }
    if report.not_placed > 0 {
        let _ = writeln!(
            out,
            "<p class=\"sub\">Nor are {} whose beginning is not known, such as those that came by a SYN cookie.</p>",
            counted(report.not_placed, "handshake", "handshakes")
        );
    }
    for (role, id, name) in [
        (
            Role::Server,
            "tls",
            "Half-opens (SYN_RECV), where this host is the server",
        ),
        (
            Role::Client,
            "tlc",
            "SYN_SENT, where this host is the client",
        ),
    ] {
        levels(out, report, axis, palette, role, (id, name));
    }
    let rises = &report.rises;
    let mut counters = vec![
        (
            &rises.overflows,
            "ListenOverflows",
            "lo",
            "SYNs and final ACKs refused at a full accept queue",
        ),
        (
            &rises.drops,
            "ListenDrops",
            "ld",
            "all that listeners refused, overflows included",
        ),
        (
            &rises.cookies,
            "SyncookiesSent",
            "sc",
            "SYNs answered without a half-open",
        ),
    ];
    if report.now.is_some() {
        // A status does not have it.
        counters.retain(|(_, name, ..)| *name != "ListenDrops");
    }
    let mut still = Vec::new();
    for (rise, name, id, what) in counters {
        match rise.total() {
            0 => still.push((name, rise.is_known)),
            same if name == "ListenDrops" && same == rises.overflows.total() => {
                out.push_str("<p class=\"sub\">ListenDrops rose by the same.</p>\n");
            }
            _ => bars(out, axis, rise, (name, id, what)),
        }
    }
    for (is_known, words) in [
        (true, "did not rise"),
        (false, "could not be read, or no check came in this time"),
    ] {
        let names: Vec<&str> = still
            .iter()
            .filter(|(_, known)| *known == is_known)
            .map(|(name, _)| *name)
            .collect();
        if !names.is_empty() {
            let _ = writeln!(out, "<p class=\"sub\">{}: {words}.</p>", names.join(", "));
        }
    }
}

/// The picture of one role.
fn levels(
    out: &mut String,
    report: &HtmlReport,
    axis: &TimeAxis,
    palette: &Palette,
    role: Role,
    (id, name): (&str, &str),
) {
    let intervals = axis.len();
    let mut of_class: BTreeMap<&str, (Vec<i64>, Vec<HandshakeCause>)> = BTreeMap::new();
    for ((of, cause), changes) in &report.in_progress.changes {
        if *of != role {
            continue;
        }
        let levels = changes.levels(intervals);
        let (sum, causes) = of_class
            .entry(palette.class(*cause))
            .or_insert_with(|| (vec![0; intervals], Vec::new()));
        sum.iter_mut()
            .zip(&levels)
            .for_each(|(sum, more)| *sum += more);
        causes.push(*cause);
    }
    of_class.retain(|_, (levels, _)| levels.iter().any(|n| *n > 0));
    let totals: Vec<i64> = (0..intervals)
        .map(|at| of_class.values().map(|(levels, _)| levels[at].max(0)).sum())
        .collect();
    let most = totals.iter().copied().max().unwrap_or(0).unsigned_abs();
    if most == 0 {
        let _ = writeln!(
            out,
            "<figure><h3>{name}</h3><p>None was in progress at the end of an interval.</p></figure>"
        );
        return;
    }
    let last = totals.last().copied().unwrap_or(0).unsigned_abs();
    let about = format!("{} at most, {} at the end", number(most), number(last));
    let _ = writeln!(
        out,
        "<figure>\n<h3>{name}</h3>\n<figcaption>{about}.</figcaption>\n<ul class=\"legend\">"
    );
    for (class, (levels, causes)) in &of_class {
        let most = levels.iter().copied().max().unwrap_or(0).unsigned_abs();
        let mut names: Vec<&str> = causes.iter().map(|cause| cause.name()).collect();
        names.dedup();
        let _ = writeln!(
            out,
            "<li><span class=\"sw {class}\"></span>{} (at most {})</li>",
            names.join(", "),
            number(most)
        );
    }
    out.push_str("</ul>\n<div class=\"plot\">");
    begin_picture(out, id, TOP + HEIGHT + 22, name, &about);
    grid(out, most);
    let _ = write!(
        out,
        "<svg y=\"{TOP}\" width=\"100%\" height=\"{HEIGHT}\" viewBox=\"0 0 {intervals} {most}\" \
         preserveAspectRatio=\"none\">"
    );
    let mut below = vec![0; intervals];
    for (class, (levels, _)) in &of_class {
        let above: Vec<i64> = below
            .iter()
            .zip(levels)
            .map(|(b, l)| b + l.max(&0))
            .collect();
        let _ = write!(
            out,
            "<path class=\"f {class}\" d=\"{}\"/>",
            area(&below, &above, most)
        );
        below = above;
    }
    out.push_str("</svg>");
    time_axis(out, axis.length_us(), TOP + HEIGHT);
    out.push_str("</svg></div>\n</figure>\n");
}

/// Lines at the top and in the middle, with their values.
fn grid(out: &mut String, most: u64) {
    let mut lines = vec![(most, TOP)];
    if most >= 4 && most.is_multiple_of(2) {
        lines.push((most / 2, TOP + HEIGHT / 2));
    }
    for (value, y) in lines {
        let _ = write!(
            out,
            "<line class=\"ax\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/><text x=\"0\" y=\"{}\">{}</text>",
            y - 4,
            number(value)
        );
    }
}

/// The area between two levels, in steps.
fn area(below: &[i64], above: &[i64], most: u64) -> String {
    let y = |level: i64| most.saturating_sub(level.unsigned_abs());
    let mut path = format!("M0 {}", y(above.first().copied().unwrap_or(0)));
    let steps = |path: &mut String, levels: &[i64], forward: bool| {
        let mut last = None;
        let order: Vec<usize> = match forward {
            true => (0..levels.len()).collect(),
            false => (0..levels.len()).rev().collect(),
        };
        for at in order {
            if last != Some(levels[at]) {
                let x = if forward { at } else { at + 1 };
                let _ = write!(path, "H{x}V{}", y(levels[at]));
                last = Some(levels[at]);
            }
        }
        let _ = write!(path, "H{}", if forward { levels.len() } else { 0 });
    };
    steps(&mut path, above, true);
    steps(&mut path, below, false);
    path.push('Z');
    path
}

/// How far a counter rose in each interval.
fn bars(out: &mut String, axis: &TimeAxis, rise: &Rise, (name, id, what): (&str, &str, &str)) {
    let steps = rise.steps();
    let most = steps.iter().map(|(_, n)| *n).max().unwrap_or(0);
    let about = format!(
        "+{} in all, +{} at most from one check to the next: {what}",
        number(rise.total()),
        number(most)
    );
    let _ = write!(
        out,
        "<figure>\n<h3>{name}</h3>\n<figcaption>{about}. Of all watched network namespaces together, {}.</figcaption>\n\
         <div class=\"plot\">",
        counted(steps.len() as u64, "check", "checks")
    );
    begin_picture(out, id, BARS + 22, name, &about);
    let whole = axis.len() as f64;
    let width = percent(1.0, whole).max(0.6);
    for (interval, n) in steps.iter().filter(|(_, n)| *n > 0) {
        let height = (f64::from(BARS) * *n as f64 / most as f64).max(2.0);
        let _ = write!(
            out,
            "<rect class=\"f cb\" x=\"{}%\" y=\"{:.1}\" width=\"{width}%\" height=\"{height:.1}\">\
             <title>+{}</title></rect>",
            percent(*interval as f64, whole).min(100.0 - width),
            f64::from(BARS) - height,
            number(*n)
        );
    }
    time_axis(out, axis.length_us(), BARS);
    out.push_str("</svg></div>\n</figure>\n");
}
