//! The page at `/`: what is wrong on this host now. Self-contained, without scripts, and every name escaped:
//! processes and namespaces choose theirs.

use std::fmt::Write;

use super::RunStatus;
use crate::{
    model::{Outcome, Problem, ProblemRole, Role, who},
    util::format,
    view::rfc3339,
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;\
color:#1a1a1a;background:#fff}h1{font-size:1.3em}h2{font-size:1.05em;margin:1.6em 0 .3em}\
code,td,th{font-family:ui-monospace,monospace;font-size:.9em}table{border-collapse:collapse}\
td,th{padding:.1em 1.2em .1em 0;text-align:left}.n{text-align:right}ul{margin:.3em 0}.sub{color:#666}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}.sub{color:#999}a{color:#8ab4f8}}";

/// The page.
pub(super) fn page(status: &RunStatus) -> String {
    let snapshot = &status.snapshot;
    let start = &snapshot.start;
    let host = start.host.hostname.as_deref().unwrap_or("this host");
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>synprobe: {host}</title>\
         <style>{STYLE}</style></head><body>\n<h1>synprobe on {host}</h1>\n\
         <p class=\"sub\">{time} · synprobe {version} · Linux {kernel} · {mode}</p>\n",
        host = escaped(host),
        time = rfc3339(status.clock, status.at_ns),
        version = escaped(&start.version),
        kernel = escaped(&start.kernel),
        mode = escaped(&start.mode),
    );
    match snapshot.problems.len() {
        0 => page.push_str("<h2>No problem is open</h2>\n"),
        1 => page.push_str("<h2>1 problem is open</h2>\n"),
        n => {
            let _ = writeln!(page, "<h2>{n} problems are open</h2>");
        }
    }
    for problem in &snapshot.problems {
        push_problem(&mut page, problem);
    }
    push_handshakes(&mut page, status);
    page.push_str(
        "<p class=\"sub\"><a href=\"/problems\">problems as JSON</a> · <a href=\"/metrics\">metrics</a> · \
         <a href=\"/healthz\">health</a></p>\n</body></html>\n",
    );
    page
}

fn push_problem(page: &mut String, p: &Problem) {
    let place = match (p.role, p.local_port, p.peer_port) {
        (ProblemRole::Server, Some(port), _) => format!("server, port {port}"),
        (ProblemRole::Client, _, Some(port)) => format!("client, to port {port}"),
        (ProblemRole::Router, ..) => "router".to_owned(),
        (ProblemRole::Server, ..) => "server".to_owned(),
        (ProblemRole::Client, ..) => "client".to_owned(),
    };
    let who = who(p.comm.as_deref(), p.pid, &p.workload);
    let _ = writeln!(
        page,
        "<h2>{} <span class=\"sub\">{}, {place} {} {}</span></h2>\n<ul>",
        escaped(p.verdict_name()),
        escaped(p.confidence.name()),
        escaped(p.netns_name.as_deref().unwrap_or_default()),
        escaped(&who),
    );
    for evidence in &p.evidence {
        let against = if evidence.supports { "" } else { "but: " };
        let _ = writeln!(page, "<li>{against}{}</li>", escaped(&evidence.fact));
    }
    page.push_str("</ul>\n");
    if let Some(remedy) = &p.remedy {
        let _ = writeln!(page, "<p><code>{}</code></p>", escaped(remedy));
    }
}

fn push_handshakes(page: &mut String, status: &RunStatus) {
    let ports = status.snapshot.stats.all_ports();
    page.push_str(
        "<h2>Handshakes since the run began</h2>\n<table><tr><th>role</th><th>outcome</th>\
         <th class=\"n\">handshakes</th></tr>\n",
    );
    for role in [Role::Server, Role::Client] {
        for outcome in Outcome::ALL {
            let of_role = ports.iter().filter(|((of, _), _)| *of == role);
            let count: u64 = of_role.map(|(_, totals)| totals.ended(outcome)).sum();
            if count > 0 {
                let (role, outcome) = (role.name(), outcome.name());
                let _ = writeln!(
                    page,
                    "<tr><td>{role}</td><td>{outcome}</td><td class=\"n\">{count}</td></tr>"
                );
            }
        }
    }
    let snapshot = &status.snapshot;
    let _ = writeln!(
        page,
        "</table>\n<p>{} in progress; {} records lost.</p>",
        snapshot.open_total, snapshot.totals.lost
    );
}

/// Text that is no markup, and does nothing to a terminal either.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in format::safe(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::fixtures::{problem, status};

    #[test]
    fn names_are_no_markup() {
        let mut status = status();
        let hostile = "</h2><script>alert(1)</script>\"'\u{1b}[2J\u{202e}";
        status.snapshot.start.host.hostname = Some(hostile.to_owned());
        status.snapshot.problems = vec![problem(hostile)];
        let page = page(&status);
        assert!(
            !page.contains("<script") && !page.contains('\u{1b}') && !page.contains('\u{202e}')
        );
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(page.contains("1 problem is open"));
        assert!(!page.contains("http://") && !page.contains("https://"));
    }
}
