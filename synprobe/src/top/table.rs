//! Rows of cells → lines of a given width.

use std::borrow::Cow;

use super::style::{StyledLine, Tone, cut, fitted, right, width};
use crate::lang::Lang;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableColumn {
    /// Its heading.
    pub title: &'static str,
    /// Numbers are right-aligned.
    pub is_number: bool,
    /// Where there is too little room, the column with the highest number is left out first; 0: never.
    pub leave_out: u8,
    /// It is cut where there is too little room: to this width, and further where no other can be left out.
    pub at_least: Option<usize>,
    /// Its cells are words, not names.
    pub has_words: bool,
}

impl TableColumn {
    /// Text.
    pub const fn text(title: &'static str, leave_out: u8) -> Self {
        Self {
            title,
            is_number: false,
            leave_out,
            at_least: None,
            has_words: false,
        }
    }

    /// A number.
    pub const fn number(title: &'static str, leave_out: u8) -> Self {
        Self {
            is_number: true,
            ..Self::text(title, leave_out)
        }
    }

    /// The one column that is cut where there is too little room, to so many columns if others can be left out.
    pub const fn rest(title: &'static str, at_least: usize) -> Self {
        Self {
            at_least: Some(at_least),
            ..Self::text(title, 0)
        }
    }

    /// The same; its cells are words, which are translated.
    pub const fn of_words(self) -> Self {
        Self {
            has_words: true,
            ..self
        }
    }
}

/// A row: its cells, as many as there are columns.
#[derive(Clone, Debug)]
pub(super) struct TableRow {
    pub cells: Vec<String>,
    pub tone: Tone,
    pub is_marked: bool,
}

/// The heading and the rows. The heading of the first column is `title`, in that language already.
pub(super) fn lines(
    title: &str,
    columns: &[TableColumn],
    rows: &[TableRow],
    columns_wide: usize,
    lang: Lang,
) -> Vec<StyledLine> {
    let titles: Vec<Cow<'_, str>> = columns.iter().map(|c| lang.say(c.title)).collect();
    let said = |row: &TableRow, at: usize| {
        let cell = row.cells.get(at).cloned().unwrap_or_default();
        match columns[at].has_words {
            true => lang.say(&cell).into_owned(),
            false => cell,
        }
    };
    let natural: Vec<usize> = (0..columns.len())
        .map(|at| {
            let head = match at {
                0 => width(title),
                _ => width(&titles[at]),
            };
            let cells = rows.iter().map(|row| width(&said(row, at)));
            cells.max().unwrap_or(0).max(head)
        })
        .collect();
    // A mark before each row.
    let room = columns_wide.saturating_sub(1);
    let shown = shown_columns(columns, &natural, width(title), room);
    let fixed: usize = shown
        .iter()
        .filter(|at| columns[**at].at_least.is_none())
        .map(|at| natural[*at] + 1)
        .sum();
    let rest = room.saturating_sub(fixed);
    let line = |mark: &str, cells: &dyn Fn(usize) -> String| {
        let mut text = mark.to_owned();
        for at in &shown {
            let column = &columns[*at];
            let wide = match column.at_least {
                Some(_) => rest.min(natural[*at]),
                None => natural[*at],
            };
            text.push_str(&match column.is_number {
                true => right(&cells(*at), wide),
                false => fitted(&cells(*at), wide),
            });
            text.push(' ');
        }
        cut(text.trim_end(), columns_wide)
    };
    let head = line(" ", &|at| match at {
        0 => title.to_owned(),
        _ => titles[at].to_string(),
    });
    let mut lines = vec![StyledLine::new(head, Tone::Strong)];
    for row in rows {
        let mark = if row.is_marked { ">" } else { " " };
        let text = line(mark, &|at| said(row, at));
        let text = match row.tone {
            Tone::Selected => fitted(&text, columns_wide),
            _ => text,
        };
        lines.push(StyledLine::new(text, row.tone));
    }
    lines
}

/// The columns for which there is room.
fn shown_columns(
    columns: &[TableColumn],
    natural: &[usize],
    title: usize,
    room: usize,
) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    loop {
        let needed: usize = shown
            .iter()
            .map(|at| match columns[*at].at_least {
                // The title of the pane stands over the first one.
                Some(at_least) if *at == 0 => natural[0].min(at_least.max(title)) + 1,
                Some(at_least) => natural[*at].min(at_least) + 1,
                None => natural[*at] + 1,
            })
            .sum();
        let least = shown
            .iter()
            .copied()
            .max_by_key(|at| columns[*at].leave_out);
        match least.filter(|at| needed > room + 1 && columns[*at].leave_out > 0) {
            Some(least) => shown.retain(|at| *at != least),
            None => return shown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::Look;

    fn row(cells: &[&str]) -> TableRow {
        TableRow {
            cells: cells.iter().map(|cell| (*cell).to_owned()).collect(),
            tone: Tone::Plain,
            is_marked: false,
        }
    }

    const COLUMNS: [TableColumn; 4] = [
        TableColumn::text("", 0),
        TableColumn::rest("WHERE", 12),
        TableColumn::number("NOW", 1),
        TableColumn::number("ALL", 2),
    ];

    fn text(rows: &[TableRow], wide: usize) -> Vec<String> {
        let lines = lines("T", &COLUMNS, rows, wide, Lang::En);
        lines.iter().map(|l| l.text(Look::default())).collect()
    }

    #[test]
    fn wide_characters_keep_columns_aligned() {
        let rows = [
            row(&["one", "nginx", "7", "12"]),
            row(&["two", "网关服务", "12", "3"]),
            row(&["three", "a name that is much too long", "1", "1"]),
        ];
        let shown = text(&rows, 32);
        assert_eq!(
            shown,
            [
                " T     WHERE             NOW ALL",
                " one   nginx               7  12",
                " two   网关服务           12   3",
                " three a name that is m…   1   1",
            ]
        );
        assert!(shown.iter().all(|line| width(line) == 32), "{shown:?}");
    }

    #[test]
    fn chinese_headings_and_words_keep_columns_aligned() {
        let columns = [
            TableColumn::text("", 0),
            TableColumn::text("SURE", 3).of_words(),
            TableColumn::rest("WHERE", 12).of_words(),
            TableColumn::number("ALL", 2),
        ];
        let rows = [
            row(&["one", "likely", ":80 likely", "7"]),
            row(&["two", "certain", "网关服务", "12"]),
        ];
        let lines = lines("T 2", &columns, &rows, 40, Lang::Zh);
        let shown: Vec<String> = lines.iter().map(|l| l.text(Look::default())).collect();
        assert_eq!(
            shown,
            [
                " T 2 置信度 位置       全部",
                " one 很可能 :80 likely    7",
                " two 确定   网关服务     12",
            ]
        );
        assert!(shown.iter().all(|line| width(line) == 27), "{shown:?}");
    }

    #[test]
    fn columns_go_where_there_is_no_room() {
        let rows = [row(&["one", "a name that is long", "7", "12"])];
        assert_eq!(text(&rows, 21)[0], " T   WHERE        NOW");
        assert_eq!(text(&rows, 17)[0], " T   WHERE");
        assert_eq!(text(&rows, 7), [" T   W…", " one a…"]);
    }
}
