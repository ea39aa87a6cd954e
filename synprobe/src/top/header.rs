//! The lines above and below: what is watched, how many handshakes are in progress, and the keys.

use super::{
    App,
    app::in_progress,
    item::RowId,
    style::{StyledLine, Tone, cut, width},
    wording::{bars, span, time_of_day},
};
use crate::util::format::safe;

/// Two lines.
pub(super) fn header(app: &App, columns: usize) -> Vec<StyledLine> {
    let Some(observed) = &app.observed else {
        return vec![
            StyledLine::new("synprobe top", Tone::Strong),
            StyledLine::default(),
        ];
    };
    let (status, snapshot) = (&observed.status, &observed.status.snapshot);
    let start = &snapshot.start;
    let lang = app.look.lang;
    let host = match start.host.hostname.as_deref() {
        Some(name) => safe(name),
        None => lang.say("this host"),
    };
    let time = time_of_day(status.clock, status.at_ns);
    let mut first = vec![
        "synprobe top".to_owned(),
        host.into_owned(),
        format!("{time} UTC"),
    ];
    if let Some(position) = observed.position {
        let end = if position.is_last { " (end)" } else { "" };
        let (at, of) = (span(position.at_us), span(position.length_us));
        first.push(lang.say(&format!("replay {at} of {of}{end}")).into_owned());
    }
    first.push(lang.say(&format!("mode {}", start.mode)).into_owned());
    match &start.replayed_from {
        Some(file) => first.push(safe(file).into_owned()),
        None => {
            let every = format!("every {}", span(app.interval.as_micros() as u64));
            first.push(lang.say(&every).into_owned());
        }
    }
    let first = StyledLine::new(cut(&first.join("  "), columns), Tone::Strong);
    let (half_open, syn_sent) = in_progress(snapshot);
    let wide = if columns < 100 { 8 } else { 30 };
    let of = |pick: fn(&(u64, u64)) -> u64| bars(app.trend.iter().map(pick), wide);
    let mut second = Vec::new();
    if app.is_paused {
        second.push(lang.say("PAUSED").into_owned());
    }
    let half_opens = lang.say("half-open");
    second.push(format!("{half_opens} {half_open} {}", of(|both| both.0)));
    second.push(format!("SYN_SENT {syn_sent} {}", of(|both| both.1)));
    let mut also = |text: String| second.push(lang.say(&text).into_owned());
    also(format!("lost {}", snapshot.totals.lost));
    if let Some(role) = app.role {
        also(format!("only {}", role.name()));
    }
    if !app.query.is_empty() {
        also(format!("filter {}", safe(&app.query.text)));
    }
    if let Some(p) = app.narrowed_to() {
        also(format!("handshakes of {}", p.verdict_name()));
    }
    vec![
        first,
        StyledLine::new(cut(&second.join("  "), columns), Tone::Plain),
    ]
}

/// One line, where there is little room.
pub(super) fn short_header(app: &App, columns: usize) -> StyledLine {
    let Some(observed) = &app.observed else {
        return StyledLine::new("synprobe top", Tone::Strong);
    };
    let status = &observed.status;
    let (half_open, syn_sent) = in_progress(&status.snapshot);
    let lang = app.look.lang;
    let totals = &status.snapshot.totals;
    let lost = || lang.say(&format!("lost {}", totals.lost)).into_owned();
    let lost = (totals.lost > 0).then(lost);
    let paused = app.is_paused.then(|| lang.say("PAUSED").into_owned());
    let mut parts = vec![time_of_day(status.clock, status.at_ns)];
    parts.extend(paused.into_iter().chain(lost));
    parts.push(format!("{} {half_open}", lang.say("half-open")));
    parts.push(format!("SYN_SENT {syn_sent}"));
    if width(&parts.join("  ")) > columns {
        // The time is the least of them.
        parts.remove(0);
    }
    StyledLine::new(cut(&parts.join("  "), columns), Tone::Strong)
}

/// The last line: keys, or what is typed.
pub(super) fn footer(app: &App, columns: usize) -> StyledLine {
    if let Some(typing) = &app.typing {
        let complaint = typing
            .complaint
            .as_ref()
            .map(|text| format!("   {}", app.look.lang.say(&safe(text))));
        let line = format!("/{}_{}", safe(&typing.text), complaint.unwrap_or_default());
        return StyledLine::new(cut(&line, columns), Tone::Strong);
    }
    if let Some(notice) = &app.notice {
        return StyledLine::new(
            cut(&app.look.lang.say(&safe(notice)), columns),
            Tone::Strong,
        );
    }
    let is_live = app.observed.as_ref().is_some_and(|o| o.position.is_none());
    let keys = match (app.pages.is_empty(), columns) {
        (true, 100..) if is_live => {
            "↑↓ row  Enter detail  Tab pane  / filter  s sort  R record  Space pause  ? help  q quit"
        }
        (true, ..60) => "Enter detail  Tab pane  ? help  q quit",
        (true, _) => {
            "↑↓ row  Enter detail  Tab pane  / filter  s sort  Space pause  ? help  q quit"
        }
        (false, ..60) => "Esc back  ? help  q quit",
        (false, _) if app.has_page_of(|id| matches!(id, RowId::Problem(_))) => {
            "↑↓ scroll  Enter handshakes  c copy  Esc back  e explain  ? help  q quit"
        }
        (false, _) if app.has_page_of(|id| matches!(id, RowId::Peer(..))) => {
            "↑↓ scroll  Enter handshakes  Esc back  e explain  ? help  q quit"
        }
        (false, _) if app.has_page_of(|id| matches!(id, RowId::Handshake(_))) => {
            "↑↓ scroll  Enter last line  Esc back  e explain  ? help  q quit"
        }
        (false, _) => "↑↓ scroll  Esc back  e explain  ? help  q quit",
    };
    StyledLine::new(cut(&app.look.lang.say(keys), columns), Tone::Weak)
}
