//! Formats of durations, backoffs and untrusted text.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

/// A duration in a fitting unit: `64 µs`, `20.1 ms`, `2.04 s`, `131 s`.
pub fn duration(us: u64) -> String {
    let f = us as f64;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.2} ms", f / 1e3),
        10_000..100_000 => format!("{:.1} ms", f / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", f / 1e3),
        1_000_000..10_000_000 => format!("{:.2} s", f / 1e6),
        10_000_000..100_000_000 => format!("{:.1} s", f / 1e6),
        _ => format!("{:.0} s", f / 1e6),
    }
}

/// `1 SYN`, `2 SYNs`.
pub fn plural(n: impl Into<u64>, one: &str) -> String {
    let n = n.into();
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// A size.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} bytes"),
        10_000..=9_999_999 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// As [`duration`]; `?` if it is unknown.
pub fn maybe(us: Option<u64>) -> String {
    us.map_or_else(|| "?".to_owned(), duration)
}

/// A backoff as a bar for each gap; each height is twice the one below it.
pub fn ladder(gaps_us: &[u64]) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let step = |gap: &u64| match gap {
        0..500_000 => '·',
        gap => {
            // The timer wheel is up to an eighth late: a gap counts as the power of two that it passed.
            let doublings = (gap / 850_000).max(1).ilog2() as usize;
            STEPS[doublings.min(STEPS.len() - 1)]
        }
    };
    let mut text: String = gaps_us.iter().map(step).collect();
    if !gaps_us.is_empty() {
        let seconds: Vec<_> = gaps_us
            .iter()
            .map(|g| format!("{:.1}", *g as f64 / 1e6))
            .collect();
        text.push_str(&format!(" {} s", seconds.join(" ")));
    }
    text
}

/// Untrusted text (a process chooses its name), made safe for a terminal: nothing in it moves the cursor,
/// ends the line, or changes the order of characters.
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hazardous) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_hazardous(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// The name that a process gave itself, in a line: one that does not show where it ends stands in quotes, and in
/// them nothing separates fields, or the steps of a remedy.
pub fn name(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "._-+@#~%*:".contains(c);
    if !text.is_empty() && text.chars().all(|c| is_plain(c) && !is_hazardous(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => shown.extend(c.escape_default()),
            ';' | ':' | '`' | '$' | '\'' => shown.extend(c.escape_unicode()),
            _ if is_hazardous(c) => shown.extend(c.escape_default()),
            _ => shown.push(c),
        }
    }
    shown.push('"');
    Cow::Owned(shown)
}

/// Whether a character has an effect on a terminal, or cannot be seen: C0, DEL and C1 controls, line and paragraph
/// separators, marks of writing direction, characters without width and fillers that show nothing, and marks that
/// combine with the character before.
pub fn is_hazardous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        // Mn and Me combine; so does U+034F. Of the latin scripts' letters none has a width of 0.
        || c > '\u{2ff}' && c.width() == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fit_their_unit() {
        let shown: Vec<_> = [
            64,
            1_234,
            20_100,
            300_600,
            2_040_000,
            67_100_000,
            131_000_000,
        ]
        .into_iter()
        .map(duration)
        .collect();
        assert_eq!(
            shown,
            [
                "64 µs", "1.23 ms", "20.1 ms", "301 ms", "2.04 s", "67.1 s", "131 s"
            ]
        );
    }

    #[test]
    fn a_ladder_climbs_with_the_doublings() {
        let gaps = [1_010_000, 1_008_000, 2_040_000, 4_120_000, 8_190_000];
        assert_eq!(ladder(&gaps), "▁▁▂▃▄ 1.0 1.0 2.0 4.1 8.2 s");
        assert_eq!(ladder(&[]), "");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(safe("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(safe("a\u{9b}2J\u{202e}b\n"), "a\\u{9b}2J\\u{202e}b\\n");
        assert_eq!(safe("nginx: worker"), "nginx: worker");
        assert_eq!(safe("größe '→' \"\\\""), "größe '→' \"\\\"");
    }

    #[test]
    fn issue20_what_cannot_be_seen_is_shown() {
        for c in [
            '\u{ad}',
            '\u{34f}',
            '\u{115f}',
            '\u{1160}',
            '\u{3164}',
            '\u{ffa0}',
            '\u{fe0f}',
            '\u{e0041}',
            '\u{e0100}',
            '\u{301}',
            '\u{20dd}',
            '\u{2800}',
            '\u{180e}',
            '\u{200d}',
        ] {
            assert_eq!(safe(&format!("a{c}b")), format!("a{}b", c.escape_unicode()));
        }
        for text in ["nginx", "żółw", "日本", "한국", "é", "→", "µs", "…", "✓"] {
            assert_eq!(safe(text), text);
        }
    }

    #[test]
    fn issue20_a_name_shows_where_it_ends() {
        for plain in ["nginx", "tokio-rt-worker", "php-fpm8.2", "a_b+c@1", "żółw"] {
            assert_eq!(name(plain), plain);
        }
        assert_eq!(name("sshd/1, refused"), "\"sshd/1, refused\"");
        assert_eq!(name(""), "\"\"");
        assert_eq!(name("a\" b"), "\"a\\\" b\"");
        assert_eq!(name("x; reboot #"), "\"x\\u{3b} reboot #\"");
        assert_eq!(name("x: reboot"), "\"x\\u{3a} reboot\"");
        assert_eq!(name("a\u{ad}\n"), "\"a\\u{ad}\\n\"");
    }
}
