//! The table of handshakes in trouble, and the SYNs that this host refused.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    net::IpAddr,
};

use super::{
    HtmlReport,
    cards::sentence,
    cause::HandshakeCause,
    html::{Esc, counted, netns, number},
    worst::TroubledRow,
};
use crate::{
    model::{
        Connection, DwellSource, Handshake, OpenReason, Outcome, Role, SynRefused, WallClock, who,
    },
    util::format,
    view::{remedy, rfc3339},
};

/// Rows of the table, about.
const MOST: usize = 1000;
/// The same on paper.
const PRINTED: usize = 100;

pub(super) fn push_troubled(out: &mut String, report: &HtmlReport) {
    let all = report.flow.troubled();
    if all == 0 {
        out.push_str("<p>None.</p>\n");
        return;
    }
    let most = report.worst.most_rows();
    let each = (MOST / report.worst.kinds().max(1)).clamp(20.min(most), most);
    let rows = report.worst.rows(each);
    let place = |row: &TroubledRow| (row.began, row.handshake.connection.id);
    let each_printed = (PRINTED / report.worst.kinds().max(1)).max(5).min(each);
    let worst = report.worst.rows(each_printed);
    let printed: HashSet<_> = worst.iter().map(place).collect();
    let in_print = match printed.len() < rows.len() {
        true => format!(
            "<span class=\"printed\"> On paper it has {}, the worst of each cause.</span>",
            number(printed.len() as u64)
        ),
        false => String::new(),
    };
    let left_out = all.saturating_sub(rows.len() as u64);
    let _ = writeln!(
        out,
        "<p class=\"sub\">The browser’s own search finds addresses, ports, processes and causes here.{}</p>",
        match left_out {
            0 => in_print,
            n =>
                in_print
                    + &format!(
                        " The table has {} of {}, the worst of each cause; {}.",
                        number(rows.len() as u64),
                        number(all),
                        counted(n, "is only in the sums", "are only in the sums")
                    ),
        }
    );
    out.push_str(
        "<p class=\"sub\">A row without a fact has that of the row of its cause before it.</p>\n",
    );
    if left_out > 0 {
        sums(out, report, &rows);
    }
    out.push_str(
        "<div class=\"wide\" role=\"region\" aria-label=\"Handshakes in trouble\" tabindex=\"0\">\n<table class=\"t\">\n<thead><tr>\
         <th scope=\"col\">began (UTC)</th><th scope=\"col\">role</th><th scope=\"col\">ends</th>\
         <th scope=\"col\">outcome</th><th scope=\"col\" class=\"n\">took</th><th scope=\"col\" class=\"n\">again</th>\
         <th scope=\"col\">process</th><th scope=\"col\">cause</th></tr></thead>\n<tbody>\n",
    );
    let mut last: BTreeMap<(Role, HandshakeCause), Option<&str>> = BTreeMap::new();
    for row in &rows {
        let fact = row.fact.as_deref();
        let kind = (
            row.handshake.connection.role,
            HandshakeCause::of(&row.handshake),
        );
        let is_new = last.insert(kind, fact) != Some(fact);
        push_row(
            out,
            row,
            fact.filter(|_| is_new),
            printed.contains(&place(row)),
        );
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}

/// How many of each cause there are, and how many of them have a row.
fn sums(out: &mut String, report: &HtmlReport, rows: &[TroubledRow]) {
    let mut listed: BTreeMap<HandshakeCause, u64> = BTreeMap::new();
    for row in rows {
        *listed
            .entry(HandshakeCause::of(&row.handshake))
            .or_default() += 1;
    }
    out.push_str("<ul class=\"legend\">\n");
    for (cause, all) in report.flow.causes() {
        if cause != HandshakeCause::Well {
            let listed = listed.get(&cause).copied().unwrap_or(0);
            let _ = writeln!(
                out,
                "<li>{}: {} of {} listed</li>",
                cause.name(),
                number(listed),
                number(all)
            );
        }
    }
    out.push_str("</ul>\n");
}

/// `fact`: where it is another than that of the row before. `is_printed`: also on paper.
fn push_row(out: &mut String, row: &TroubledRow, fact: Option<&str>, is_printed: bool) {
    let h = &row.handshake;
    let c = &h.connection;
    // The axis of all pictures is wall-clock time already.
    let time = rfc3339(WallClock::from_offset(row.began), 0);
    let time = time.get(11..23).unwrap_or(&time);
    let time = match h.facts.began_ns {
        Some(_) => time.to_owned(),
        None => "not seen".to_owned(),
    };
    let cause = match h.verdict {
        Some(verdict) => format!("{} {verdict}", h.confidence.name()),
        None => HandshakeCause::of(h).name().to_owned(),
    };
    let mut outcome = outcome(h);
    if let Some(error) = &h.error {
        let _ = write!(outcome, " {error}");
    }
    let netns = netns(c.netns_name.as_deref(), c.netns).unwrap_or_default();
    let process = format!("{} {netns}", who(c.comm.as_deref(), c.pid, &c.workload));
    let [local, peer] = both_ends(c);
    let _ = writeln!(
        out,
        "<tr{}><td class=\"nw\">{time}</td><td class=\"nw\">{}</td><td class=\"nw\">{local}<br>{peer}</td><td class=\"nw\">{}</td>\
         <td class=\"n nw\">{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"x\"><strong>{cause}</strong> {}</td></tr>",
        if is_printed { "" } else { " class=\"more\"" },
        c.role.name(),
        Esc(outcome),
        dwell(h),
        h.retransmits,
        Esc(process.trim()),
        Esc(fact.unwrap_or_default()),
    );
}

pub(super) fn push_refused(out: &mut String, report: &HtmlReport) {
    out.push_str(
        "<p class=\"sub\">These SYNs made no half-open, so no handshake above has them. Only those are listed whose \
         refusal was seen packet by packet.</p>\n",
    );
    if report.refused.is_empty() {
        out.push_str("<p>None was seen.</p>\n");
        return;
    }
    out.push_str(
        "<div class=\"wide\" role=\"region\" aria-label=\"Refused SYNs\" tabindex=\"0\">\n<table class=\"t\">\n<thead><tr>\
         <th scope=\"col\" class=\"n\">SYNs</th><th scope=\"col\">from</th><th scope=\"col\">to</th>\
         <th scope=\"col\">why</th><th scope=\"col\">listener</th><th scope=\"col\">look</th></tr></thead>\n<tbody>\n",
    );
    for refused in &report.refused {
        refused_row(out, refused);
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
    if report.refused_more > 0 {
        let _ = writeln!(
            out,
            "<p>{} of other peers or for other reasons.</p>",
            counted(report.refused_more, "more SYN", "more SYNs")
        );
    }
}

fn refused_row(out: &mut String, r: &SynRefused) {
    let to = match (&r.forward, r.local_addr) {
        (Some(forward), _) => format!(
            "{}, to be forwarded",
            end(forward.to_addr, Some(forward.to_port))
        ),
        (None, Some(addr)) => end(addr, r.local_port),
        (None, None) => "several".to_owned(),
    };
    let from = r
        .peer_addr
        .map_or("several peers".to_owned(), |peer| peer.to_string());
    let why = match &r.reason {
        Some(reason) => format!("{} ({reason})", r.what),
        None => r.what.clone(),
    };
    let look = match &r.remedy {
        Some(remedy) => {
            let (steps, _) = remedy::steps(remedy);
            let commands = steps.iter().map(|s| match s.command {
                "" => Esc(s.sentence).to_string(),
                command => format!("<code>{}</code>", Esc(command)),
            });
            commands.collect::<Vec<_>>().join("<br>")
        }
        None => String::new(),
    };
    let _ = writeln!(
        out,
        "<tr><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"x\">{look}</td></tr>",
        number(r.count),
        Esc(from),
        Esc(to),
        Esc(sentence(&why)),
        Esc(who(r.comm.as_deref(), r.pid, &r.workload)),
    );
}

fn end(addr: IpAddr, port: Option<u16>) -> String {
    let port = port.map_or_else(|| "?".to_owned(), |port| port.to_string());
    match addr {
        IpAddr::V4(addr) => format!("{addr}:{port}"),
        IpAddr::V6(addr) => format!("[{addr}]:{port}"),
    }
}

/// `10.0.0.1:8080 ← 10.0.0.2:40001`
pub(super) fn endpoints(c: &Connection) -> String {
    let [local, peer] = both_ends(c);
    format!("{local} {peer}")
}

/// This host's end; the arrow and the peer's.
fn both_ends(c: &Connection) -> [String; 2] {
    let arrow = match c.role {
        Role::Client => "→",
        Role::Server => "←",
    };
    [
        end(c.local_addr, c.local_port),
        format!("{arrow} {}", end(c.peer_addr, c.peer_port)),
    ]
}

/// How it ended.
pub(super) fn outcome(h: &Handshake) -> String {
    match (h.outcome, h.open_reason) {
        (Outcome::Open, Some(OpenReason::RunEnded)) => "still open".to_owned(),
        (Outcome::Open, Some(OpenReason::Evicted)) => "evicted from the table".to_owned(),
        (Outcome::Open, Some(OpenReason::EndNotSeen)) => "end not seen".to_owned(),
        (outcome, _) => outcome.name().replace('_', " "),
    }
}

/// How long it took, with the bound of its error.
pub(super) fn dwell(h: &Handshake) -> String {
    let bound = match h.dwell_error_us {
        Some(us) => format!(" ± {}", format::duration(us)),
        None => String::new(),
    };
    match (h.dwell_us, h.dwell_at_least_us, h.dwell_source) {
        (Some(us), _, Some(DwellSource::SockDiag)) => format!("~{}{bound}", format::duration(us)),
        (Some(us), ..) => format!("{}{bound}", format::duration(us)),
        (None, Some(us), _) => format!("≥{}", format::duration(us)),
        (None, None, _) => "an unknown time".to_owned(),
    }
}
