//! Numbers and names as the panes show them.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use crate::{
    lang::Lang,
    model::{Confidence, Problem, ProblemRole, WallClock, who},
    util::format::safe,
    view::{remedy, rfc3339},
};

/// `0.8 s`, `16.8 s`, `4 min`, `2.1 h`: at most 6 columns.
pub(super) fn span(us: u64) -> String {
    let s = us as f64 / 1e6;
    match us {
        0..100_000_000 => format!("{s:.1} s"),
        100_000_000..600_000_000 => format!("{s:.0} s"),
        600_000_000..6_000_000_000 => format!("{:.0} min", s / 60.0),
        _ => format!("{:.1} h", s / 3600.0),
    }
}

/// `06:14:37` of a moment, UTC.
pub(super) fn time_of_day(clock: WallClock, at_ns: u64) -> String {
    let whole = rfc3339(clock, at_ns);
    whole.get(11..19).unwrap_or("?").to_owned()
}

/// An unknown number.
pub(super) fn number<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// The namespace; empty for the host's own.
pub(super) fn netns(name: Option<&str>, inode: u32) -> Cow<'_, str> {
    match name {
        Some("host") => "".into(),
        Some(name) => {
            let inode = name
                .strip_prefix("netns:[")
                .and_then(|name| name.strip_suffix(']'));
            safe(inode.unwrap_or(name))
        }
        None => inode.to_string().into(),
    }
}

/// `:8080` for any address.
pub(super) fn local(addr: Option<IpAddr>, port: u16) -> String {
    match addr {
        Some(addr) if !addr.is_unspecified() => SocketAddr::new(addr, port).to_string(),
        _ => format!(":{port}"),
    }
}

/// `198.19.0.50:8080`; `:?` where the port is not known.
pub(super) fn end(addr: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(addr, port).to_string(),
        None => format!("{addr}:?"),
    }
}

/// How sure.
pub(super) fn sure(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Insufficient => "unclear",
    }
}

/// `:8080 app/18648`, `telnet/5670 →198.19.0.50:8080`, `to 10.0.1.50:8080`.
pub(super) fn place(p: &Problem) -> String {
    let process = who(p.comm.as_deref(), p.pid, &p.workload);
    let only = match &p.peers[..] {
        [peer] if p.peers_more == 0 => Some(peer.peer_addr),
        _ => None,
    };
    let parts = match (p.role, p.local_port, p.peer_port, &p.forward) {
        (ProblemRole::Router, .., Some(forward)) => [
            "forwarded".to_owned(),
            format!("→{}", end(forward.to_addr, Some(forward.to_port))),
        ],
        (ProblemRole::Server, Some(port), ..) => [local(p.local_addr, port), process.into_owned()],
        (ProblemRole::Client, _, port, _) => {
            let to = match (only, port) {
                (Some(addr), port) => format!("→{}", end(addr, port)),
                (None, Some(port)) => format!("→:{port}"),
                (None, None) => String::new(),
            };
            [process.into_owned(), to]
        }
        _ => [process.into_owned(), String::new()],
    };
    parts.join(" ").trim().to_owned()
}

/// The steps of a remedy, a text each: sentences in that language, commands as they are.
pub(super) fn steps(remedy: &str, lang: Lang) -> Vec<String> {
    let (steps, comment) = remedy::steps(remedy);
    let steps = steps
        .iter()
        .map(|step| match (step.sentence, step.command) {
            (sentence, "") => lang.say(sentence).into_owned(),
            ("", command) => command.to_owned(),
            (sentence, command) => match lang.translated(sentence) {
                Some(said) => format!("{said}：{command}"),
                None => format!("{sentence}: {command}"),
            },
        });
    let mut steps: Vec<String> = steps.filter(|step| !step.is_empty()).collect();
    if let Some(last) = steps.last_mut().filter(|_| !comment.is_empty()) {
        last.push_str(&format!(" # {}", lang.say(comment)));
    }
    steps
}

/// The last of these values as a row of bars, the highest of them a whole one.
pub(super) fn bars(values: impl DoubleEndedIterator<Item = u64> + Clone, most: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last: Vec<u64> = values.rev().take(most).collect();
    let highest = last.iter().copied().max().unwrap_or(0).max(1);
    let bar = |value: &u64| {
        let at = (value * 7).div_ceil(highest) as usize;
        BARS[at.min(7)]
    };
    last.iter().rev().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let all = [
            0,
            99_949_999,
            100_000_000,
            599_999_999,
            600_000_000,
            7_200_000_000,
        ];
        let shown = all.map(span);
        assert_eq!(
            shown,
            ["0.0 s", "99.9 s", "100 s", "600 s", "10 min", "2.0 h"]
        );
    }

    #[test]
    fn bars_have_the_last_values() {
        assert_eq!(bars([9, 0, 1, 7, 7].into_iter(), 4), "▁▂██");
        assert_eq!(bars([0, 0].into_iter(), 4), "▁▁");
    }
}
