//! Peers, or their networks, by time: where and when handshakes in trouble began.

use std::fmt::Write as _;

use super::{
    HtmlReport,
    html::{Esc, counted, number, percent, time_axis},
    places::Begun,
    time_axis::TimeAxis,
};
use crate::util::format;

/// Rows of the map.
const ROWS: usize = 24;
/// Columns, at most: a cell stays wide enough to be seen.
const COLUMNS: usize = 60;
/// Shades of a cell.
const SHADES: u32 = 5;
/// Height of a row, pixels.
const HEIGHT: u32 = 17;

pub(super) fn push(out: &mut String, report: &HtmlReport) {
    let Some(axis) = &report.axis else {
        out.push_str("<p>The run did not begin.</p>\n");
        return;
    };
    let (rows, rest, by_network) = report.peers.rows(ROWS);
    if rows.is_empty() {
        out.push_str("<p>No peer had a handshake in trouble.</p>\n");
        return;
    }
    let together = axis.len().div_ceil(COLUMNS);
    let columns = axis.len().div_ceil(together);
    let cells = |begun: &Begun| {
        let mut cells = vec![0_u64; columns];
        for (interval, n) in begun.intervals.iter() {
            if let Some(cell) = cells.get_mut(interval / together) {
                *cell += n.unsigned_abs();
            }
        }
        cells
    };
    let all: Vec<Vec<u64>> = rows.iter().map(|row| cells(&row.begun)).collect();
    let most = all.iter().flatten().copied().max().unwrap_or(0).max(1);
    let what = match by_network {
        true => "networks (/24, /64)",
        false => "peers",
    };
    let older = match report.now {
        Some(_) => {
            "Those older than this time are in the first, those whose beginning is not known where they ended."
        }
        None => {
            "Those older than the run are in the first, those whose beginning is not known where they ended."
        }
    };
    let _ = writeln!(
        out,
        "<p class=\"sub\">Handshakes in trouble by {what}, at the time when they began. One cell is {}; the strongest \
         stands for {}, the faintest for 1. {older}</p>",
        format::duration(axis.interval_us() * together as u64),
        number(most)
    );
    out.push_str(
        "<table class=\"hm\" aria-label=\"Handshakes in trouble by peer and time\">\n<tbody>\n",
    );
    for (row, cells) in rows.iter().zip(&all) {
        push_row(
            out,
            axis,
            (&row.name, row.begun.total),
            cells,
            (together, most),
        );
    }
    if let Some((rest, others)) = rest {
        let name = match others {
            0 => "all others".to_owned(),
            n => format!("{} others", number(n as u64)),
        };
        let cells = cells(&rest);
        let most = cells.iter().copied().max().unwrap_or(0).max(most);
        push_row(out, axis, (&name, rest.total), &cells, (together, most));
    }
    out.push_str("<tr><th scope=\"row\">time</th><td class=\"plot\"><svg width=\"100%\" height=\"22\" aria-hidden=\"true\">");
    time_axis(out, axis.length_us(), 1);
    out.push_str("</svg></td><td></td></tr>\n</tbody>\n</table>\n");
}

fn push_row(
    out: &mut String,
    axis: &TimeAxis,
    (name, total): (&str, u64),
    cells: &[u64],
    (together, most): (usize, u64),
) {
    let _ = write!(
        out,
        "<tr><th scope=\"row\">{}</th><td class=\"plot\"><svg width=\"100%\" height=\"{HEIGHT}\" role=\"img\" \
         aria-label=\"{}\"><rect class=\"track\" width=\"100%\" height=\"{HEIGHT}\"/>",
        Esc(name),
        counted(total, "handshake in trouble", "handshakes in trouble")
    );
    let whole = axis.len() as f64;
    for (column, n) in cells.iter().enumerate().filter(|(_, n)| **n > 0) {
        let (from, to) = (column * together, ((column + 1) * together).min(axis.len()));
        let x = percent(from as f64, whole);
        let width = (percent(to as f64, whole) - x).max(0.4);
        let _ = write!(
            out,
            "<rect class=\"f cb q{}\" x=\"{x}%\" width=\"{width:.2}%\" height=\"{HEIGHT}\"><title>{} from {}</title></rect>",
            shade(*n, most),
            number(*n),
            format::duration(from as u64 * axis.interval_us())
        );
    }
    let _ = writeln!(
        out,
        "</svg></td><td class=\"n\">{}</td></tr>",
        number(total)
    );
}

/// 1 to [`SHADES`], by the logarithm.
fn shade(n: u64, most: u64) -> u32 {
    if most <= 1 {
        return SHADES;
    }
    let share = (n as f64).ln() / (most as f64).ln();
    1 + (share.clamp(0.0, 1.0) * f64::from(SHADES - 1)).round() as u32
}
