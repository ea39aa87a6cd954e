//! Filled paragraphs, colours and headings of the page.

use std::net::SocketAddr;

use super::steps;
use crate::{
    model::{Confidence, EffectTie, Problem, ProblemEffect, ProblemRole, VerdictKind, who},
    util::{
        fill::{fill, padded},
        format,
    },
    view::Style,
};

/// Columns of a label.
const LABEL: usize = 8;

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
    // A SYN that found no socket made no half-open.
    let only_syns = e.verdict.is_some_and(VerdictKind::finds_no_listener);
    let what = match (e.role, e.handshakes) {
        (ProblemRole::Server, 1) if only_syns => "SYN",
        (ProblemRole::Server, _) if only_syns => "SYNs",
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
    let tie = tie(e.tie);
    format!(
        "{name}, {sure}: {} {what}{who}{port}{netns}, {tie}",
        e.handshakes
    )
}

/// What ties an effect to its problem.
pub(crate) fn tie(tie: EffectTie) -> &'static str {
    match tie {
        EffectTie::Connections => "the other end of the same connections",
        EffectTie::Cause => "by the same cause",
    }
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

/// A page as it grows.
pub(super) struct Sheet {
    pub text: String,
    style: Style,
}

impl Sheet {
    pub fn new(style: Style) -> Self {
        Self {
            text: String::new(),
            style,
        }
    }

    pub fn empty_line(&mut self) {
        self.text.push('\n');
    }

    /// Lines in the colours of `code`; those after the first are indented.
    pub fn heading(&mut self, code: &str, heading: &str) {
        let said = self.style.lang.say(heading);
        for line in fill("", "   ", &said, self.style.width) {
            self.text.push_str(&self.style.paint(code, &line));
            self.text.push('\n');
        }
    }

    /// A label, and text filled beside it.
    pub fn entry(&mut self, label: &str, body: &str) {
        let body = self.style.lang.say(body);
        self.filled(label, &body);
    }

    /// Items beside a label, and what is said behind them.
    pub fn items(&mut self, label: &str, items: &[String], separator: &str, rest: &str) {
        let lang = self.style.lang;
        let said: Vec<_> = items.iter().map(|item| lang.say(item)).collect();
        self.filled(
            label,
            &format!("{}{}", said.join(separator), lang.say(rest)),
        );
    }

    /// As [`Self::entry`]; the text is in the page's language.
    fn filled(&mut self, label: &str, body: &str) {
        let first = format!("  {}", padded(&self.style.lang.say(label), LABEL));
        let indent = " ".repeat(2 + LABEL);
        for line in fill(&first, &indent, body, self.style.width) {
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    /// A remedy.
    pub fn steps(&mut self, remedy: &str) {
        let first = format!("  {}", padded(&self.style.lang.say("do"), LABEL));
        for line in steps(&first, &" ".repeat(2 + LABEL), remedy, self.style) {
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }
}
