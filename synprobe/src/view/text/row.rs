//! A row: columns of fixed width, then details. Where the line is full, details are left out, the least important
//! first; the cause never is.

use std::net::IpAddr;

use super::Colour;
use crate::{model::Role, util::fill::fill};

/// Columns of the time and of the number.
const TIME: usize = 12;
const NUMBER: usize = 5;
const PORT: usize = 6;
/// Columns of the event and of what follows it, right-aligned.
const EVENT_AND_GAP: usize = 19;
/// Before the column of the peer.
const BEFORE_PEER: usize = TIME + 1 + NUMBER + 1 + PORT + 1;
/// The widest IPv4 address.
const IPV4: usize = 15;
/// Where a cause goes on that a row has no room for.
const INDENT: usize = TIME + 1;
/// Before the second line of a row, on a terminal where one line has no room for the columns.
const SECOND: usize = 2;

/// What a row says beside its columns. The order is that of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Never left out.
    Cause,
    Error,
    End,
    Next,
    Count,
    Process,
    Netns,
    Due,
    Bound,
    Gaps,
    Local,
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct EventRow {
    pub time: String,
    /// The handshake's id; `None`: it is of several, or of none.
    pub id: Option<u64>,
    /// `None`: forwarded.
    pub role: Option<Role>,
    /// The listening port.
    pub port: Option<u16>,
    pub peer: RowPeer,
    pub event: (String, Colour),
    pub gap: String,
    /// In the order in which they are printed.
    pub details: Vec<(Weight, String)>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) enum RowPeer {
    One(IpAddr, Option<u16>),
    Several(String),
}

/// The columns of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    width: usize,
    peer: usize,
}

impl Columns {
    pub fn of(width: usize) -> Self {
        let peer = match width {
            // An IPv4 address; with its port; an IPv6 address with its port.
            0..100 => width.saturating_sub(BEFORE_PEER).clamp(1, IPV4),
            100..140 => 21,
            _ => 47,
        };
        Self { width, peer }
    }

    /// Whether a row needs two lines.
    pub fn is_narrow(self) -> bool {
        self.width < BEFORE_PEER + IPV4 + 1 + EVENT_AND_GAP
    }

    /// The names of the columns.
    pub fn heading(self) -> String {
        let peer = self.peer;
        let event = "EVENT";
        let gap = EVENT_AND_GAP - event.len();
        let before = format!("{:<TIME$} {:<NUMBER$} {:<PORT$} ", "TIME", "#", "PORT");
        let after = format!("{event}{:>gap$} WHY, DETAILS", "GAP");
        match self.is_narrow() {
            true => format!("{before}PEER\n{:SECOND$}{after}", ""),
            false => format!("{before}{:<peer$} {after}", "PEER"),
        }
    }

    /// The row as lines. `paint`: the colour of the event.
    pub fn lines(self, row: &EventRow, paint: impl Fn(Colour, &str) -> String) -> Vec<String> {
        let id = row.id.map_or_else(String::new, |id| format!("#{id}"));
        let arrow = match row.role {
            Some(Role::Client) => ">",
            Some(Role::Server) => "<",
            None => "-",
        };
        let port = row.port.map_or_else(|| "?".to_owned(), |p| p.to_string());
        let before = format!(
            "{:<TIME$} {id:<NUMBER$} {:<PORT$} {}",
            row.time,
            format!("{arrow}{port}"),
            self.peer(&row.peer)
        );
        let (event, colour) = (&row.event.0, row.event.1);
        let gap = EVENT_AND_GAP
            .saturating_sub(columns(event))
            .max(1 + columns(&row.gap));
        let after = format!("{:>gap$}", row.gap);
        if self.is_narrow() {
            let fixed = SECOND + columns(event) + columns(&after) + 1;
            let tail = chosen(&row.details, self.width.saturating_sub(fixed));
            let second = format!("{:SECOND$}{}{after}", "", paint(colour, event));
            return match tail.is_empty() || fixed + columns(&tail) <= self.width {
                true => vec![before, format!("{second} {tail}").trim_end().to_owned()],
                false => [before, second]
                    .into_iter()
                    .chain(self.further(&tail))
                    .collect(),
            };
        }
        let to_peer = BEFORE_PEER + self.peer;
        let fixed = columns(&before).max(to_peer) + 1 + EVENT_AND_GAP.max(columns(event) + gap) + 1;
        let tail = chosen(&row.details, self.width.saturating_sub(fixed));
        // What is still too long takes the room of the peer's column, then a line of its own.
        let spare = to_peer.saturating_sub(columns(&before));
        let missing = (fixed + columns(&tail)).saturating_sub(self.width);
        let padding = spare - if missing <= spare { missing } else { 0 };
        let mut line = format!("{before}{:padding$} {}{after}", "", paint(colour, event));
        if missing <= spare {
            if !tail.is_empty() {
                line.push(' ');
                line.push_str(&tail);
            }
            return vec![line.trim_end().to_owned()];
        }
        let mut lines = vec![line.trim_end().to_owned()];
        lines.extend(self.further(&tail));
        lines
    }

    /// What a row has no room for.
    fn further(self, tail: &str) -> Vec<String> {
        let indent = " ".repeat(INDENT.min(self.width / 4));
        fill(&indent, &indent, tail, self.width)
    }

    fn peer(self, peer: &RowPeer) -> String {
        match peer {
            RowPeer::Several(text) => text.clone(),
            RowPeer::One(addr, port) => {
                let full = end_of(*addr, *port);
                if port.is_some() && self.peer > IPV4 && full.len() <= self.peer {
                    return full;
                }
                shortened(&addr.to_string(), self.peer)
            }
        }
    }
}

/// The details that fit into the room, the weightiest first, in their own order; causes always.
fn chosen(details: &[(Weight, String)], room: usize) -> String {
    let mut by_weight: Vec<usize> = (0..details.len()).collect();
    by_weight.sort_by_key(|n| details[*n].0);
    let mut kept: Vec<usize> = Vec::new();
    let mut used = 0;
    for n in by_weight {
        let (weight, text) = &details[n];
        let comma = if kept.is_empty() { 0 } else { 2 };
        if *weight == Weight::Cause || used + comma + columns(text) <= room {
            used += comma + columns(text);
            kept.push(n);
        }
    }
    kept.sort_unstable();
    let texts: Vec<&str> = kept.iter().map(|n| details[*n].1.as_str()).collect();
    texts.join(", ")
}

/// The beginning and the end of an address that is too long.
fn shortened(addr: &str, most: usize) -> String {
    if addr.len() <= most {
        return addr.to_owned();
    }
    let head = (most - 1) / 2;
    let tail = most - 1 - head;
    format!("{}…{}", &addr[..head], &addr[addr.len() - tail..])
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

pub(super) fn end_of(addr: IpAddr, port: Option<u16>) -> String {
    let port = port.map_or_else(|| "?".to_owned(), |p| p.to_string());
    if addr.is_ipv6() {
        format!("[{addr}]:{port}")
    } else {
        format!("{addr}:{port}")
    }
}
