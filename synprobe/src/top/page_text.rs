//! The text of a page: headings, labels with text beside them, and tables.

use super::style::{StyledLine, Tone, filled, fitted};
use crate::{lang::Lang, util::format::safe};

/// Lines of a page, made for one width.
pub(super) struct PageText {
    lines: Vec<StyledLine>,
    pub(super) columns: usize,
    pub(super) lang: Lang,
}

impl PageText {
    /// An empty page.
    pub fn new(columns: usize, lang: Lang) -> Self {
        Self {
            lines: Vec::new(),
            columns,
            lang,
        }
    }

    /// The lines.
    pub fn lines(self) -> Vec<StyledLine> {
        self.lines
    }

    /// A heading, after an empty line.
    pub fn heading(&mut self, text: &str) {
        if !self.lines.is_empty() {
            self.lines.push(StyledLine::default());
        }
        let lines = filled(&self.lang.say(text), self.columns).into_iter();
        self.lines
            .extend(lines.map(|line| StyledLine::new(line, Tone::Strong)));
    }

    /// A label and text filled beside it.
    pub fn entry(&mut self, label: &str, text: &str, tone: Tone) {
        self.within(9, label, text, tone);
    }

    /// The same with a label that is `wide` columns wide.
    pub fn within(&mut self, wide: usize, label: &str, text: &str, tone: Tone) {
        let wide = wide.min(self.columns / 2);
        let (label, text) = (self.lang.say(label), safe(text));
        let said = self.lang.say(&text);
        for (n, line) in filled(&said, self.columns.saturating_sub(wide + 1))
            .into_iter()
            .enumerate()
        {
            let label = if n == 0 { &*label } else { "" };
            let line = StyledLine::new(fitted(label, wide), Tone::Weak)
                .and(" ", Tone::Plain)
                .and(line, tone);
            self.lines.push(line);
        }
    }

    /// Lines that are made already, after an empty one.
    pub fn block(&mut self, lines: Vec<StyledLine>) {
        self.lines.push(StyledLine::default());
        self.lines.extend(lines);
    }

    /// A line as it is; it is cut where it is too long.
    pub fn line(&mut self, text: &str, tone: Tone) {
        self.lines.push(StyledLine::new(text, tone));
    }
}
