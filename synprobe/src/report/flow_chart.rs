//! Where all handshakes went: from the role of this host over the outcome to the cause.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    HtmlReport,
    cause::{HandshakeCause, Palette},
    html::{Esc, begin_picture, number},
};
use crate::model::{Outcome, Role};

/// Height for all handshakes together, pixels.
const HEIGHT: f64 = 200.0;
/// A node is at least as high as its label.
const NODE: f64 = 17.0;
const GAP: f64 = 6.0;
const TOP: f64 = 24.0;
/// Left edges of the columns, and the width of a node, in thousandths of the width.
const COLUMNS: [u32; 3] = [0, 360, 988];
const WIDTH: u32 = 12;
/// Causes with a node of their own.
const CAUSES: usize = 9;

/// A node of one column.
#[derive(Clone, Debug)]
struct FlowNode {
    label: String,
    class: &'static str,
    total: u64,
    y: f64,
    height: f64,
    /// How much of it bands have taken, on the left and on the right.
    taken: [f64; 2],
}

/// A cause that has a node: `None`: all others together.
type CauseKey = Option<HandshakeCause>;

pub(super) fn push(out: &mut String, report: &HtmlReport, palette: &Palette) {
    let all = report.flow.all();
    let total: u64 = all.values().sum();
    if total == 0 {
        out.push_str("<p>No handshake was seen.</p>\n");
        return;
    }
    let mut causes: Vec<(HandshakeCause, u64)> = report.flow.causes().into_iter().collect();
    causes.sort_by_key(|(cause, n)| (std::cmp::Reverse(*n), *cause));
    let own: Vec<HandshakeCause> = causes
        .iter()
        .take(CAUSES)
        .map(|(cause, _)| *cause)
        .collect();
    let key = |cause: HandshakeCause| own.contains(&cause).then_some(cause);

    let mut roles: BTreeMap<Role, u64> = BTreeMap::new();
    let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
    let mut ends: BTreeMap<CauseKey, u64> = BTreeMap::new();
    let mut left: BTreeMap<(Role, Outcome), u64> = BTreeMap::new();
    let mut right: BTreeMap<(Outcome, CauseKey), u64> = BTreeMap::new();
    for ((role, outcome, cause), n) in &all {
        *roles.entry(*role).or_default() += n;
        *outcomes.entry(*outcome).or_default() += n;
        *ends.entry(key(*cause)).or_default() += n;
        *left.entry((*role, *outcome)).or_default() += n;
        *right.entry((*outcome, key(*cause))).or_default() += n;
    }
    let role_name = |role: &Role| format!("{}: begun", role.name());
    let mut roles = column(&roles, total, role_name, |_| "cx");
    let outcome_class = |outcome: &Outcome| match outcome {
        Outcome::Established => "cw",
        Outcome::Open => "cu",
        _ => "cb",
    };
    let outcome_name = |outcome: &Outcome| outcome.name().replace('_', " ");
    let mut outcomes = column(&outcomes, total, outcome_name, outcome_class);
    let cause_name = |cause: &CauseKey| {
        cause
            .map_or("other causes", HandshakeCause::name)
            .to_owned()
    };
    let cause_class = |cause: &CauseKey| cause.map_or("cx", |cause| palette.class(cause));
    let mut ends = column(&ends, total, cause_name, cause_class);

    let height = bottom(&roles).max(bottom(&outcomes)).max(bottom(&ends)) + 4.0;
    let about = format!("{} handshakes by role, outcome and cause", number(total));
    out.push_str(
        "<p class=\"sub\">The height of a node is the number of its handshakes; the smallest are higher than that, so \
         that their labels fit.</p>\n<figure class=\"wide\"><div class=\"flow\">",
    );
    begin_picture(
        out,
        "flow-p",
        height as u32,
        "From begun to outcome to cause",
        &about,
    );
    for (column, (x, anchor)) in [("0", "start"), ("36%", "start"), ("100%", "end")]
        .iter()
        .enumerate()
    {
        let name = ["this host is", "outcome", "cause"][column];
        let _ = write!(
            out,
            "<text x=\"{x}\" y=\"13\" text-anchor=\"{anchor}\">{name}</text>"
        );
    }
    let _ = write!(
        out,
        "<svg width=\"100%\" height=\"{height:.0}\" viewBox=\"0 0 1000 {height:.0}\" preserveAspectRatio=\"none\">"
    );
    for ((role, outcome), n) in &left {
        if let (Some(from), Some(to)) = (roles.get_mut(role), outcomes.get_mut(outcome)) {
            band(
                out,
                (from, to),
                *n,
                [COLUMNS[0] + WIDTH, COLUMNS[1]],
                outcome_class(outcome),
            );
        }
    }
    for ((outcome, cause), n) in &right {
        if let (Some(from), Some(to)) = (outcomes.get_mut(outcome), ends.get_mut(cause)) {
            band(
                out,
                (from, to),
                *n,
                [COLUMNS[1] + WIDTH, COLUMNS[2]],
                cause_class(cause),
            );
        }
    }
    out.push_str("</svg>");
    for (column, nodes) in [
        (0, roles.values().collect::<Vec<_>>()),
        (1, outcomes.values().collect()),
        (2, ends.values().collect()),
    ] {
        nodes.iter().for_each(|node| push_node(out, column, node));
    }
    out.push_str("</svg></div></figure>\n");
    list(out, &all);
}

/// The nodes of a column, one below the other.
fn column<K: Ord + Clone>(
    counts: &BTreeMap<K, u64>,
    total: u64,
    name: impl Fn(&K) -> String,
    class: impl Fn(&K) -> &'static str,
) -> BTreeMap<K, FlowNode> {
    let mut y = TOP;
    let mut nodes = BTreeMap::new();
    for (key, n) in counts {
        let height = (HEIGHT * *n as f64 / total as f64).max(NODE);
        let node = FlowNode {
            label: format!("{} {}", name(key), number(*n)),
            class: class(key),
            total: *n,
            y,
            height,
            taken: [0.0; 2],
        };
        nodes.insert(key.clone(), node);
        y += height + GAP;
    }
    nodes
}

fn bottom<K>(nodes: &BTreeMap<K, FlowNode>) -> f64 {
    let ends = nodes.values().map(|node| node.y + node.height);
    ends.fold(TOP, f64::max)
}

/// A band from the right of one node to the left of another.
fn band(
    out: &mut String,
    (from, to): (&mut FlowNode, &mut FlowNode),
    n: u64,
    [x1, x2]: [u32; 2],
    class: &str,
) {
    let take = |node: &mut FlowNode, side: usize| {
        let height = node.height * n as f64 / node.total.max(1) as f64;
        let y = node.y + node.taken[side];
        node.taken[side] += height;
        (y, y + height)
    };
    let (top1, bottom1) = take(from, 1);
    let (top2, bottom2) = take(to, 0);
    let middle = (x1 + x2) / 2;
    let _ = write!(
        out,
        "<path class=\"band {class}\" d=\"M{x1} {top1:.1}C{middle} {top1:.1} {middle} {top2:.1} {x2} {top2:.1}\
         L{x2} {bottom2:.1}C{middle} {bottom2:.1} {middle} {bottom1:.1} {x1} {bottom1:.1}Z\"/>"
    );
}

fn push_node(out: &mut String, column: usize, node: &FlowNode) {
    let x = f64::from(COLUMNS[column]) / 10.0;
    let width = f64::from(WIDTH) / 10.0;
    let (label, anchor) = match column {
        2 => (x - 0.8, "end"),
        _ => (x + width + 0.8, "start"),
    };
    let _ = write!(
        out,
        "<rect class=\"f {}\" x=\"{x}%\" y=\"{:.1}\" width=\"{width}%\" height=\"{:.1}\"/>\
         <text class=\"on\" x=\"{label:.1}%\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
        node.class,
        node.y,
        node.height,
        node.y + node.height / 2.0 + 4.0,
        Esc(&node.label)
    );
}

/// The picture again, as a table.
fn list(out: &mut String, all: &BTreeMap<(Role, Outcome, HandshakeCause), u64>) {
    out.push_str(
        "<div class=\"wide\" role=\"region\" aria-label=\"Outcomes and causes\" tabindex=\"0\">\n<table class=\"t\">\n\
         <thead><tr><th scope=\"col\">role</th><th scope=\"col\">outcome</th><th scope=\"col\">cause</th>\
         <th scope=\"col\" class=\"n\">handshakes</th></tr></thead>\n<tbody>\n",
    );
    for ((role, outcome, cause), n) in all {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td></tr>",
            role.name(),
            outcome.name().replace('_', " "),
            cause.name(),
            number(*n)
        );
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}
