//! The path of a packet that this host dropped, or whose answer leaves by another way: a picture in the card of its
//! problem. It is drawn from the facts of the card, and only where one of them names the place.

use std::fmt::Write as _;

use super::html::{Esc, begin_picture};
use crate::{
    model::{Problem, ProblemRole},
    view::packet_path::{PacketFate, PathRow, rows},
};

/// Height of a packet's row, pixels.
const ROW: u32 = 34;
/// Where the two ends of a row are, and a router between them, percent.
const LEFT: f64 = 4.0;
const MIDDLE: f64 = 50.0;
const RIGHT: f64 = 96.0;
/// How far a packet that is dropped comes before its end, percent.
const SHORT: f64 = 12.0;

/// The picture, where the facts of a problem name the place. `id`: unique on the page.
pub(super) fn push(out: &mut String, p: &Problem, id: &str) {
    let rows = rows(p);
    if rows.is_empty() {
        return;
    }
    out.push_str("<h4>The path</h4>\n<figure>\n");
    let height = 20 + ROW * rows.len() as u32;
    let drop = rows
        .iter()
        .any(|row| !matches!(row.fate, PacketFate::Arrives | PacketFate::Unknown));
    let about = match drop {
        true => "✕ is where this host dropped the packet.",
        false => {
            "The answer leaves by another device than the SYN came by. ? is what this host did not see."
        }
    };
    begin_picture(out, id, height, "The path of the packets", about);
    let ends = match p.role {
        ProblemRole::Client => ["this host", "peer"],
        ProblemRole::Server => ["peer", "this host"],
        ProblemRole::Router => ["client", "server"],
    };
    for (x, anchor, name) in [(0.0, "start", ends[0]), (100.0, "end", ends[1])] {
        let _ = write!(
            out,
            "<text class=\"on\" x=\"{x}%\" y=\"11\" text-anchor=\"{anchor}\">{name}</text>"
        );
    }
    if p.role == ProblemRole::Router {
        let _ = write!(
            out,
            "<text class=\"on\" x=\"{MIDDLE}%\" y=\"11\" text-anchor=\"middle\">this host</text>"
        );
    }
    for (n, row) in rows.iter().enumerate() {
        draw(out, row, 20 + ROW * n as u32 + ROW - 10);
    }
    let _ = writeln!(out, "</svg>\n<figcaption>{about}</figcaption>\n</figure>");
}

fn draw(out: &mut String, row: &PathRow, y: u32) {
    let (from, to) = match row.is_of_client {
        true => (LEFT, RIGHT),
        false => (RIGHT, LEFT),
    };
    let short = if row.is_of_client { SHORT } else { -SHORT };
    let ends = match row.fate {
        PacketFate::Arrives | PacketFate::Unknown => to,
        PacketFate::DroppedAtSender => from + short,
        PacketFate::DroppedAtReceiver => to - short / 2.0,
        PacketFate::DroppedBetween => MIDDLE,
    };
    let dash = if row.fate == PacketFate::Unknown {
        " dash"
    } else {
        ""
    };
    let _ = write!(
        out,
        "<line class=\"s c1{dash}\" x1=\"{from}%\" x2=\"{ends}%\" y1=\"{y}\" y2=\"{y}\"/>"
    );
    let mark = match row.fate {
        PacketFate::Unknown => "<text class=\"on\" text-anchor=\"middle\" y=\"4\">?</text>",
        PacketFate::Arrives if row.is_of_client => "<path class=\"s c1\" d=\"M-7 -5L0 0L-7 5\"/>",
        PacketFate::Arrives => "<path class=\"s c1\" d=\"M7 -5L0 0L7 5\"/>",
        _ => "<path class=\"end\" d=\"M-5 -5L5 5M5 -5L-5 5\"/>",
    };
    let _ = write!(
        out,
        "<svg x=\"{ends}%\" y=\"{y}\" width=\"1\" height=\"1\" overflow=\"visible\">{mark}</svg>"
    );
    let by = match row.by.is_empty() {
        true => String::new(),
        false => format!(" · {}", row.by),
    };
    let _ = write!(
        out,
        "<text x=\"{MIDDLE}%\" y=\"{}\" text-anchor=\"middle\"><tspan class=\"mono\">{}{}</tspan></text>",
        y - 6,
        Esc(&row.packet),
        Esc(by)
    );
}
