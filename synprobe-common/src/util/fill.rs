//! Text in lines of so many columns. Chinese has no spaces: it breaks between characters, but no line begins with a
//! mark that closes, and none ends with one that opens (W3C, "Requirements for Chinese Text Layout", 3.1.5).

use std::mem;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::format;

/// Marks that no line begins with.
const CLOSING: &str = "，。、：；！？）」』》】…,.:;!?)]}%";
/// Marks that no line ends with.
const OPENING: &str = "（「『《【([{";

/// Columns that a text takes.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// `text` with spaces behind it, up to `width` columns.
pub fn padded(text: &str, width: usize) -> String {
    let spaces = width.saturating_sub(columns(text));
    format!("{text}{}", " ".repeat(spaces))
}

/// The parts of a word that stay together: one, where it has no wide character.
pub fn parts(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let is_wide = |c: char| c.width() == Some(2);
    for ((_, before), (at, after)) in word.char_indices().zip(word.char_indices().skip(1)) {
        let may_break = (is_wide(before) || is_wide(after))
            && !OPENING.contains(before)
            && !CLOSING.contains(after);
        if may_break {
            parts.push(&word[begin..at]);
            begin = at;
        }
    }
    parts.push(&word[begin..]);
    parts
}

/// Words in lines of at most `width` columns, where none of them is longer: `first` before the first line, `next`
/// before the others.
pub fn fill(first: &str, next: &str, body: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut column = columns(&line);
    let mut is_begun = false;
    for word in format::safe(body).split(' ') {
        for (n, part) in parts(word).into_iter().enumerate() {
            let of_part = columns(part);
            let space = usize::from(n == 0);
            if is_begun && column + space + of_part > width {
                lines.push(mem::take(&mut line).trim_end().to_owned());
                line.push_str(next);
                column = columns(next);
            } else if is_begun && n == 0 {
                line.push(' ');
                column += 1;
            }
            line.push_str(part);
            column += of_part;
            is_begun = true;
        }
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_breaks_between_characters_and_never_before_a_closing_mark() {
        let text = "半连接队列已满：SYN 被丢弃（TCPReqQFullDrop），且没有发送 SYN cookie。";
        for width in 8..60 {
            let lines = fill("", "", text, width);
            let again: String = lines.concat().replace(' ', "");
            assert_eq!(again, text.replace(' ', ""), "{width}: {lines:?}");
            for line in &lines {
                // `（TCPReqQFullDrop），` is the longest part.
                assert!(columns(line) <= width.max(21), "{width}: {line:?}");
                assert!(!line.starts_with(|c| CLOSING.contains(c)), "{line:?}");
                assert!(!line.ends_with(|c| OPENING.contains(c)), "{line:?}");
            }
        }
    }

    #[test]
    fn what_has_no_wide_character_breaks_at_spaces_only() {
        let lines = fill(
            "  for     ",
            "          ",
            "RST after 133 µs: ECONNREFUSED, 490→500",
            24,
        );
        assert_eq!(
            lines,
            [
                "  for     RST after 133",
                "          µs:",
                "          ECONNREFUSED,",
                "          490→500"
            ]
        );
        assert_eq!(padded("例如", 8), "例如    ");
        assert_eq!(padded("such as", 8), "such as ");
    }
}
