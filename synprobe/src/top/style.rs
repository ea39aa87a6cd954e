//! Lines of text with a tone for each part. No meaning is in the tone alone.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::{lang::Lang, util::fill::parts};

/// How the terminal may be used, and the language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Only ASCII characters.
    pub ascii: bool,
    /// Colours.
    pub colour: bool,
    /// Bold, dim and reverse.
    pub attributes: bool,
    /// The language. Chinese has no ASCII form.
    pub lang: Lang,
}

impl Look {
    /// The text with signs that the terminal has. On one that is set up for Chinese, signs of ambiguous width (UAX #11)
    /// may take two columns: they have their ASCII form there.
    fn signs(self, text: &str) -> String {
        match (self.ascii, self.lang) {
            (true, _) => ascii(text),
            (false, Lang::En) => text.to_owned(),
            (false, Lang::Zh) => text
                .chars()
                .map(|c| match c {
                    // Its width is not ambiguous.
                    'µ' => c,
                    c => ascii_sign(c).unwrap_or(c),
                })
                .collect(),
        }
    }
}

/// How a part of a line is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As any text.
    #[default]
    Plain,
    /// A heading.
    Strong,
    /// Beside the point.
    Weak,
    /// Something is wrong, and that is certain.
    Bad,
    /// Something is wrong, likely.
    Doubtful,
    /// The selected row.
    Selected,
}

impl Tone {
    fn style(self, look: Look) -> Style {
        let coloured = |style: Style, colour| match look.colour {
            true => style.fg(colour),
            false => style,
        };
        let plain = Style::new();
        let style = match self {
            Self::Plain => plain,
            Self::Strong => plain.add_modifier(Modifier::BOLD),
            Self::Weak => plain.add_modifier(Modifier::DIM),
            Self::Bad => coloured(plain.add_modifier(Modifier::BOLD), Color::Red),
            Self::Doubtful => coloured(plain, Color::Yellow),
            Self::Selected => plain.add_modifier(Modifier::REVERSED),
        };
        match look.attributes {
            true => style,
            false => style.remove_modifier(Modifier::all()),
        }
    }
}

/// One line of the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StyledLine(Vec<(String, Tone)>);

impl StyledLine {
    /// A line in one tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self(vec![(text.into(), tone)])
    }

    /// The same with one part more.
    pub fn and(mut self, text: impl Into<String>, tone: Tone) -> Self {
        self.0.push((text.into(), tone));
        self
    }

    /// The text alone, without blanks at its end.
    pub fn text(&self, look: Look) -> String {
        let whole: String = self.0.iter().map(|(text, _)| &**text).collect();
        look.signs(whole.trim_end())
    }

    /// Draws it into one row of the screen.
    pub(super) fn draw(&self, buffer: &mut Buffer, area: Rect, row: u16, look: Look) {
        let (mut x, y) = (area.x, area.y + row);
        for (text, tone) in &self.0 {
            let text = look.signs(text);
            let left = usize::from(area.right().saturating_sub(x));
            (x, _) = buffer.set_stringn(x, y, text, left, tone.style(look));
        }
    }
}

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text in exactly so many columns: cut with `…`, or filled with blanks.
pub(super) fn fitted(text: &str, columns: usize) -> String {
    let mut cut = cut(text, columns);
    let missing = columns.saturating_sub(cut.width());
    cut.extend(std::iter::repeat_n(' ', missing));
    cut
}

/// The same, to the right.
pub(super) fn right(text: &str, columns: usize) -> String {
    let cut = cut(text, columns);
    let missing = columns.saturating_sub(cut.width());
    format!("{}{cut}", " ".repeat(missing))
}

/// The text in at most so many columns.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > columns {
            break;
        }
        shown.push(c);
        used += wide;
    }
    if columns > 0 {
        shown.push('…');
    }
    shown
}

/// Words filled into lines of at most so many columns; a word that is longer is broken. Chinese breaks between
/// characters.
pub(super) fn filled(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = vec![String::new()];
    let words = text
        .split(' ')
        .flat_map(|word| parts(word).into_iter().enumerate());
    for (part, word) in words {
        let mut word = word.to_owned();
        loop {
            let last = lines.len() - 1;
            let line = &mut lines[last];
            let gap = usize::from(part == 0 && !line.is_empty());
            if line.width() + gap + word.width() <= columns {
                if gap > 0 {
                    line.push(' ');
                }
                line.push_str(&word);
                break;
            }
            if line.is_empty() {
                let at = split_at(&word, columns);
                let rest = word.split_off(at);
                lines[last] = word;
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

/// Where the first so many columns of a word end, bytes: after one character at least.
fn split_at(word: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, c) in word.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns && at > 0 {
            return at;
        }
    }
    word.len()
}

/// The same in ASCII characters, in as many columns.
fn ascii(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match ascii_sign(c) {
            Some(sign) => shown.push(sign),
            None => shown.extend(std::iter::repeat_n('?', c.width().unwrap_or(0))),
        }
    }
    shown
}

/// The ASCII form of a sign.
fn ascii_sign(c: char) -> Option<char> {
    Some(match c {
        c if c.is_ascii() => c,
        '▁' | '▂' => '_',
        '▃' | '▄' | '▅' => '-',
        '▆' | '▇' | '█' => '#',
        '─' | '–' => '-',
        '…' => '~',
        '→' | '▶' => '>',
        '←' => '<',
        '↑' => '^',
        '↓' => 'v',
        '×' => 'x',
        'µ' => 'u',
        '·' => '.',
        '±' => '~',
        '≥' => '>',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_ambiguous_width_have_their_ascii_form_beside_chinese() {
        let look = |ascii, lang| Look {
            ascii,
            lang,
            ..Look::default()
        };
        let text = "半连接 3 ▁▄█ ×2 → 64 µs …";
        assert_eq!(
            look(false, Lang::Zh).signs(text),
            "半连接 3 _-# x2 > 64 µs ~"
        );
        assert_eq!(look(false, Lang::En).signs(text), text);
        assert_eq!(look(true, Lang::En).signs("×2 → 半"), "x2 > ??");
    }

    #[test]
    fn chinese_breaks_between_characters() {
        assert_eq!(
            filled("半连接队列已满（SYN queue），没有应答", 16),
            ["半连接队列已满", "（SYN queue），", "没有应答"]
        );
        assert_eq!(filled("one twothree four", 8), ["one", "twothree", "four"]);
        assert_eq!(filled("abcdefgh", 3), ["abc", "def", "gh"]);
    }
}
