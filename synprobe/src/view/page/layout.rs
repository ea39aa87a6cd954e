//! Filled paragraphs, colours and headings of the page.

use std::{fmt::Write as _, mem, net::SocketAddr};

use crate::{
    model::{Confidence, Problem, ProblemEffect, ProblemRole, VerdictKind, who},
    util::format,
};

/// Width of the page, columns.
const WIDTH: usize = 100;

/// The heading of a problem.
pub(in crate::view) fn heading(p: &Problem) -> String {
    let sure = match p.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Insufficient => "not enough evidence",
    };
    let name = p.verdict.map_or("no verdict", VerdictKind::name);
    format!("{}. {name}, {sure}: {}", p.rank, place(p))
}

/// `filtered, likely: 20 connects of client (curl/77) to port 8080`
pub(crate) fn effect(e: &ProblemEffect) -> String {
    let name = e.verdict.map_or("no verdict", VerdictKind::name);
    let sure = e.confidence.name();
    let what = match (e.role, e.handshakes) {
        (ProblemRole::Server, 1) => "half-open",
        (ProblemRole::Server, _) => "half-opens",
        (ProblemRole::Client, 1) => "connect",
        (ProblemRole::Client, _) => "connects",
        (ProblemRole::Router, 1) => "forwarded connection",
        (ProblemRole::Router, _) => "forwarded connections",
    };
    let who = match &*who(e.comm.as_deref(), e.pid, &e.workload) {
        "" => String::new(),
        who => format!(" of {who}"),
    };
    let port = match (e.local_port, e.peer_port) {
        (Some(port), _) => format!(" at port {port}"),
        (None, Some(port)) => format!(" to port {port}"),
        (None, None) => String::new(),
    };
    let netns = netns(e.netns_name.as_deref(), e.netns);
    format!(
        "{name}, {sure}: {} {what}{who}{port}{netns}, the other end of the same connections",
        e.handshakes
    )
}

/// `, netns blue`; empty for the host's own.
fn netns(name: Option<&str>, inode: u32) -> String {
    match name {
        Some(name) if name.starts_with("netns:") => format!(", {}", format::safe(name)),
        Some("host") => String::new(),
        Some(name) => format!(", netns {}", format::safe(name)),
        None => format!(", netns {inode}"),
    }
}

/// The server or client that has the problem.
pub(crate) fn place(p: &Problem) -> String {
    let process = match &*who(p.comm.as_deref(), p.pid, &p.workload) {
        "" => String::new(),
        who => format!(" ({who})"),
    };
    let what = match (p.role, p.local_addr, p.local_port, p.peer_port) {
        (ProblemRole::Server, Some(addr), Some(port), _) => {
            format!("server {}{process}", SocketAddr::new(addr, port))
        }
        (ProblemRole::Client, _, _, Some(port)) => format!("client{process} to port {port}"),
        (ProblemRole::Client, ..) => format!("client{process}"),
        _ if p.role == ProblemRole::Router => forwarded(p),
        _ => "server".to_owned(),
    };
    format!("{what}{}", netns(p.netns_name.as_deref(), p.netns))
}

/// `forwarded to 10.0.1.50:8080, eth0 to eth1`
fn forwarded(p: &Problem) -> String {
    let Some(forward) = &p.forward else {
        return "forwarded".to_owned();
    };
    let to = SocketAddr::new(forward.to_addr, forward.to_port);
    let name = |device: &Option<String>| {
        let device = device.as_deref().unwrap_or("?");
        format::safe(device).into_owned()
    };
    match (&forward.from_interface, &forward.to_interface) {
        (None, None) => format!("forwarded to {to}"),
        (Some(from), None) => format!("to be forwarded to {to}, from {}", format::safe(from)),
        (from, out) => format!("forwarded to {to}, {} to {}", name(from), name(out)),
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

/// A remedy: one step a line, and none is broken, so that a command can be copied as it is.
pub(super) fn steps(text: &mut String, remedy: &str) {
    for (n, step) in format::safe(remedy).split("; ").enumerate() {
        let label = if n == 0 { "do" } else { "" };
        let _ = writeln!(text, "  {label:<8}{step}");
    }
}

pub(super) fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
