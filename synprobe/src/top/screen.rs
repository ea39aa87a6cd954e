//! The lines of the screen: header, panes or a page, the selected problem, and the keys.

use ratatui::Frame;

use super::{
    App, Observed,
    app::PageKind,
    detail,
    header::{footer, header, short_header},
    help,
    item::PaneItem,
    not_seen::not_seen,
    pane::Pane,
    part::part_line,
    rows::{self, RowContext},
    style::{StyledLine, Tone, cut, filled, fitted},
    table,
    wording::{place, steps},
};
use crate::{lang::Lang, model::Problem, util::format::safe};

/// Below, the selected pane has the screen for itself.
const SMALL: (usize, usize) = (80, 24);
/// From so many rows on, events are shown beside the other panes.
const HIGH: usize = 30;
/// Rows of a pane in plain text.
const LISTED: usize = 20;
/// Columns of a label.
const LABEL: usize = 9;

impl App {
    /// Draws the screen.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let lines = lines(self, area.width.into(), area.height.into());
        for (row, line) in (0..area.height).zip(&lines) {
            line.draw(frame.buffer_mut(), area, row, self.look);
        }
    }

    /// The whole state as plain text, without a limit of height.
    pub fn text(&self, columns: usize) -> String {
        let lines = whole(self, columns);
        let mut text = String::new();
        for line in lines {
            text.push_str(&line.text(self.look));
            text.push('\n');
        }
        text
    }
}

/// The screen, at most so many lines.
fn lines(app: &App, columns: usize, rows: usize) -> Vec<StyledLine> {
    let mut lines = match rows {
        ..16 => vec![short_header(app, columns)],
        _ => header(app, columns),
    };
    lines.extend(part_line(app, columns));
    let left = rows.saturating_sub(lines.len() + 1);
    lines.extend(match &app.observed {
        None => sentence("Watching…", columns, app.look.lang),
        Some(observed) if !app.pages.is_empty() => page(app, observed, columns, left),
        Some(observed) => panes(app, observed, columns, left),
    });
    lines.resize(rows.saturating_sub(1), StyledLine::default());
    lines.push(footer(app, columns));
    lines.truncate(rows);
    lines
}

/// Everything, without a limit of height.
fn whole(app: &App, columns: usize) -> Vec<StyledLine> {
    let lang = app.look.lang;
    let mut lines = header(app, columns);
    let Some(observed) = &app.observed else {
        return lines;
    };
    for pane in Pane::ALL {
        lines.extend(table_of(app, observed, pane, columns, LISTED + 1, false));
        let more = app.rows(pane).len().saturating_sub(LISTED);
        if more > 0 {
            let more = format!(" … {more} more");
            lines.push(StyledLine::new(lang.say(&more), Tone::Weak));
        }
    }
    for item in app.rows(Pane::Problems).iter() {
        let PaneItem::Problem(p) = item else { continue };
        lines.push(StyledLine::default());
        lines.push(StyledLine::new(
            format!("{}: {}", p.verdict_name(), lang.say(&place(p))),
            Tone::Strong,
        ));
        lines.extend(why(p, columns, usize::MAX, lang));
        lines.extend(remedy(p, columns, usize::MAX, lang));
    }
    lines.push(StyledLine::default());
    lines.extend(blind(observed, columns, usize::MAX, lang));
    lines
}

/// One sentence in place of a page.
fn sentence(text: &str, columns: usize, lang: Lang) -> Vec<StyledLine> {
    let lines = filled(&lang.say(text), columns).into_iter();
    lines
        .map(|line| StyledLine::new(line, Tone::Plain))
        .collect()
}

fn page(app: &App, observed: &Observed, columns: usize, rows: usize) -> Vec<StyledLine> {
    let Some(page) = app.pages.last() else {
        return Vec::new();
    };
    let lang = app.look.lang;
    let gone = || {
        sentence(
            "It is over, or not in the list any more. Esc goes back.",
            columns,
            lang,
        )
    };
    let lines = match &page.kind {
        PageKind::Row(id) => match app.find(id) {
            Some(item) => {
                let context = RowContext::new(observed, &app.open_counts, columns, lang);
                detail::page(&item, observed, &context, columns)
            }
            None => gone(),
        },
        PageKind::Explanation(id) => match app.find(id) {
            Some(PaneItem::Problem(p)) => {
                detail::explanation(p, columns, lang).unwrap_or_else(|| {
                    sentence("It has no verdict: too little is known.", columns, lang)
                })
            }
            _ => gone(),
        },
        PageKind::BlindSpots => help::blind_spots(observed, columns, lang),
        PageKind::Keys => help::keys(columns, lang),
    };
    let first = page.scroll.min(lines.len().saturating_sub(rows));
    let below = lines.len() - first;
    let mut shown: Vec<StyledLine> = lines.into_iter().skip(first).take(rows).collect();
    if below > rows && rows > 1 {
        let more = format!("… {} more lines", below - rows + 1);
        shown.truncate(rows - 1);
        shown.push(StyledLine::new(lang.say(&more), Tone::Weak));
    }
    shown
}

fn panes(app: &App, observed: &Observed, columns: usize, rows: usize) -> Vec<StyledLine> {
    let is_small = columns < SMALL.0 || rows + 3 < SMALL.1;
    let mut below = Vec::new();
    if let Some(room) = room_below(rows) {
        below = below_panes(app, observed, columns, &ALL_BELOW);
        let panes: usize = wanted_heights(app, rows).iter().sum();
        if panes + below.len() > rows {
            below = below_panes(app, observed, columns, &room);
        }
    }
    let left = rows - below.len().min(rows);
    let mut lines = Vec::new();
    if is_small || app.is_zoomed {
        lines.extend(table_of(app, observed, app.pane, columns, left, true));
    } else {
        for (pane, height) in Pane::ALL.into_iter().zip(heights(app, left)) {
            lines.extend(table_of(app, observed, pane, columns, height, true));
        }
    }
    lines.resize(left, StyledLine::default());
    lines.extend(below);
    lines
}

/// Lines below the panes, at most.
struct RoomBelow {
    why: usize,
    remedy: usize,
    blind: usize,
}

const ALL_BELOW: RoomBelow = RoomBelow {
    why: usize::MAX,
    remedy: usize::MAX,
    blind: usize::MAX,
};

/// The selected problem, and what cannot be seen.
fn below_panes(
    app: &App,
    observed: &Observed,
    columns: usize,
    room: &RoomBelow,
) -> Vec<StyledLine> {
    let lang = app.look.lang;
    let mut below = match app.chosen_problem() {
        None => vec![StyledLine::new(
            lang.say("No problem is open."),
            Tone::Plain,
        )],
        Some(p) => {
            let mut lines = why(p, columns, room.why, lang);
            lines.extend(remedy(p, columns, room.remedy, lang));
            lines
        }
    };
    below.extend(blind(observed, columns, room.blind, lang));
    below
}

fn room_below(rows: usize) -> Option<RoomBelow> {
    let of = |why, remedy, blind| Some(RoomBelow { why, remedy, blind });
    match rows {
        ..13 => None,
        13..20 => of(2, 1, 1),
        20..34 => of(2, 2, 1),
        34..44 => of(6, 3, 2),
        _ => of(9, 4, 2),
    }
}

/// With all rows. Events have room on a high screen, or where they are selected.
fn wanted_heights(app: &App, rows: usize) -> [usize; 5] {
    Pane::ALL.map(|pane| match pane {
        Pane::Events if rows < HIGH && app.pane != pane => 0,
        _ => app.rows(pane).len().max(1) + 1,
    })
}

/// How high each pane is: a heading and a row at least, the selected one first.
fn heights(app: &App, rows: usize) -> [usize; 5] {
    let wanted = wanted_heights(app, rows);
    let mut heights = wanted.map(|wanted| wanted.min(3));
    let mut left = rows.saturating_sub(heights.iter().sum());
    let chosen = app.pane.index();
    let more = (wanted[chosen] - heights[chosen]).min(left.div_ceil(2));
    heights[chosen] += more;
    left -= more;
    while left > 0 {
        let before = left;
        for (height, wanted) in heights.iter_mut().zip(wanted) {
            if *height < wanted && left > 0 {
                *height += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    heights
}

fn table_of(
    app: &App,
    observed: &Observed,
    pane: Pane,
    columns: usize,
    height: usize,
    is_live: bool,
) -> Vec<StyledLine> {
    if height == 0 {
        return Vec::new();
    }
    let lang = app.look.lang;
    let snapshot = &observed.status.snapshot;
    let context = RowContext::new(observed, &app.open_counts, columns, lang);
    let items = app.rows(pane);
    let room = height.saturating_sub(1);
    let place = app.cursors[pane.index()].place(&items);
    let first = place
        .saturating_sub(room / 2)
        .min(items.len().saturating_sub(room));
    let is_chosen = is_live && pane == app.pane;
    let shown: Vec<table::TableRow> = (first..items.len())
        .take(room)
        .filter_map(|at| Some((at, items.get(at)?)))
        .map(|(at, item)| {
            let mut row = rows::row(&item, &context);
            row.is_marked = is_live && at == place && (is_chosen || pane == Pane::Problems);
            if row.is_marked && is_chosen {
                row.tone = Tone::Selected;
            }
            row
        })
        .collect();
    let count = match (pane, items.len()) {
        (Pane::Handshakes, _) if snapshot.open_is_part => snapshot.open_total.to_string(),
        (Pane::Handshakes, n) if snapshot.open_total > snapshot.open.len() => {
            let of = format!("{n} of {}", snapshot.open_total);
            lang.say(&of).into_owned()
        }
        (_, n) => n.to_string(),
    };
    let order = match app.orders[pane.index()] {
        0 => String::new(),
        n => lang.say(&format!(" by {}", pane.orders()[n])).into_owned(),
    };
    let key = if is_live {
        format!("{} ", pane.index() + 1)
    } else {
        String::new()
    };
    let title = format!("{key}{} {count}{order}", lang.say(pane.title()));
    let of_pane = rows::columns(pane, &context);
    let mut lines = table::lines(&title, &of_pane, &shown, columns, lang);
    if items.is_empty() {
        let none = match app.query.is_empty() && app.role.is_none() && app.narrowed.is_none() {
            true => "  none",
            false => "  none that is selected",
        };
        lines.push(StyledLine::new(lang.say(none), Tone::Weak));
    }
    lines.truncate(height);
    lines
}

/// A label, and lines filled beside it; the last one that is shown ends with `…` where there are more.
fn labelled(label: &str, texts: &[String], columns: usize, most: usize) -> Vec<StyledLine> {
    const INDENT: &str = "  ";
    let wide = columns.saturating_sub(LABEL + 1);
    let mut all = Vec::new();
    for text in texts {
        let lines = filled(&safe(text), wide.saturating_sub(INDENT.len())).into_iter();
        all.extend(lines.enumerate().map(|(n, line)| match n {
            0 => line,
            _ => format!("{INDENT}{line}"),
        }));
    }
    let mut shown = Vec::new();
    for (n, line) in all.iter().take(most).enumerate() {
        let label = if n == 0 { label } else { "" };
        let text = match n + 1 == most && all.len() > most {
            true if !line.ends_with('…') => cut(&format!("{line} …"), wide),
            true => line.clone(),
            false => line.clone(),
        };
        shown.push(
            StyledLine::new(fitted(label, LABEL), Tone::Strong)
                .and(format!(" {text}"), Tone::Plain),
        );
    }
    shown
}

fn why(p: &Problem, columns: usize, most: usize, lang: Lang) -> Vec<StyledLine> {
    let mut facts: Vec<String> = p
        .evidence
        .iter()
        .map(|fact| {
            let sign = if fact.supports { "+" } else { "- against it:" };
            format!("{} {}", lang.say(sign), lang.say(&fact.fact))
        })
        .collect();
    if facts.len() > most {
        // The first one has the counts, which the row has too.
        facts.rotate_left(1);
    }
    let label = lang.say("WHY");
    labelled(&label, &short(facts, columns, most), columns, most)
}

fn remedy(p: &Problem, columns: usize, most: usize, lang: Lang) -> Vec<StyledLine> {
    let steps = steps(p.remedy.as_deref().unwrap_or_default(), lang);
    let label = lang.say("DO");
    labelled(&label, &short(steps, columns, most), columns, most)
}

/// Where there is little room, one line for each text.
fn short(mut texts: Vec<String>, columns: usize, most: usize) -> Vec<String> {
    if most <= 4 {
        for text in &mut texts {
            *text = cut(text, columns.saturating_sub(LABEL + 4));
        }
    }
    texts
}

fn blind(observed: &Observed, columns: usize, most: usize, lang: Lang) -> Vec<StyledLine> {
    let spots = not_seen(observed);
    let spots: Vec<String> = spots
        .iter()
        .map(|spot| lang.say(spot).into_owned())
        .collect();
    let separator = match lang {
        Lang::En => "; ",
        Lang::Zh => "；",
    };
    let text = match most {
        usize::MAX => spots,
        _ => vec![spots.join(separator)],
    };
    labelled(&lang.say("NOT SEEN"), &text, columns, most)
}
