//! Filled paragraphs, colours and headings of the page.

use std::{fmt::Write as _, mem, net::SocketAddr};

use crate::{
    model::{Confidence, Problem, Role, VerdictKind},
    util::format,
};

/// Width of the page, columns.
const WIDTH: usize = 100;

/// The heading of a problem.
pub(super) fn heading(p: &Problem) -> String {
    let sure = match p.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Insufficient => "not enough evidence",
    };
    let name = p.verdict.map_or("no verdict", VerdictKind::name);
    format!("{}. {name}, {sure}: {}", p.rank, place(p))
}

/// The server or client that has the problem.
fn place(p: &Problem) -> String {
    let process = match (&p.comm, p.pid) {
        (Some(comm), Some(pid)) => format!(" ({}/{pid})", format::safe(comm)),
        _ => String::new(),
    };
    let what = match (p.role, p.local_addr, p.local_port, p.peer_port) {
        (Role::Server, Some(addr), Some(port), _) => {
            format!("server {}{process}", SocketAddr::new(addr, port))
        }
        (Role::Client, _, _, Some(port)) => format!("client{process} to port {port}"),
        (Role::Client, ..) => format!("client{process}"),
        _ => "server".to_owned(),
    };
    match &p.netns_name {
        Some(name) if name.starts_with("netns:") => format!("{what}, {}", format::safe(name)),
        Some(name) if &**name != "host" => format!("{what}, netns {}", format::safe(name)),
        None => format!("{what}, netns {}", p.netns),
        _ => what,
    }
}

/// A label, and text filled beside it.
pub(super) fn entry(text: &mut String, label: &str, body: &str) {
    let mut line = format!("  {label:<8}");
    let indent = line.chars().count();
    let mut column = indent;
    for word in format::safe(body).split(' ') {
        let len = word.chars().count();
        if column > indent && column + 1 + len > WIDTH {
            let _ = writeln!(text, "{}", mem::take(&mut line).trim_end());
            line = " ".repeat(indent);
            column = indent;
        } else if column > indent {
            line.push(' ');
            column += 1;
        }
        line.push_str(word);
        column += len;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

pub(super) fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
