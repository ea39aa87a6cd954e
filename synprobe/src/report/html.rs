//! Text that is no markup, and where things lie in a picture.

use std::fmt::{self, Write as _};

use crate::util::format;

/// Text from outside: a process, a namespace or a path chooses its own. It is printed without effect, on the page
/// and in a terminal to which it is pasted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Esc<T>(pub T);

impl<T: AsRef<str>> fmt::Display for Esc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = format::safe(self.0.as_ref());
        let mut rest = &*safe;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            let (before, after) = rest.split_at(at);
            f.write_str(before)?;
            f.write_str(match after.as_bytes()[0] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &after[1..];
        }
        f.write_str(rest)
    }
}

/// A number with its thousands apart: `12,345`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 half-open`, `2 half-opens`.
pub(super) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// A network namespace in a sentence: `netns blue`; `None`: the host's own.
pub(super) fn netns(name: Option<&str>, inode: u32) -> Option<String> {
    match name {
        Some("host") => None,
        Some(name) if name.starts_with("netns:") => Some(name.to_owned()),
        Some(name) => Some(format!("netns {name}")),
        None => Some(format!("netns {inode}")),
    }
}

/// Where a value lies on an axis, percent with two decimals.
pub(super) fn percent(value: f64, whole: f64) -> f64 {
    let share = if whole > 0.0 { value / whole } else { 0.0 };
    (share.clamp(0.0, 1.0) * 10_000.0).round() / 100.0
}

/// Round times on an axis of this length, microseconds: three to six of them, the first is 0.
pub(super) fn ticks(length_us: u64) -> Vec<u64> {
    const STEPS_S: [u64; 12] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
    let under_a_second = (0..6).flat_map(|tens| [1, 2, 5].map(|n| n * 10_u64.pow(tens)));
    let seconds = STEPS_S.map(|s| s * 1_000_000);
    let days = (1..1000).map(|n| n * 6 * 3_600_000_000);
    let mut steps = under_a_second.chain(seconds).chain(days);
    let step = steps.find(|step| length_us / step < 6);
    let step = step.unwrap_or(length_us).max(1);
    (0..=length_us / step).map(|n| n * step).collect()
}

/// A moment on an axis: `0`, `250 ms`, `7 s`, `1:30 min`, `2:05 h`.
pub(super) fn tick_label(us: u64) -> String {
    match us {
        0 => "0".to_owned(),
        1..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 if us.is_multiple_of(1_000_000) => format!("{} s", us / 1_000_000),
        1_000_000..60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        60_000_000..3_600_000_000 => {
            let s = us / 1_000_000;
            format!("{}:{:02} min", s / 60, s % 60)
        }
        _ => {
            let minutes = us / 60_000_000;
            format!("{}:{:02} h", minutes / 60, minutes % 60)
        }
    }
}

/// Draws the time axis below a plot: ticks at `y`, with their labels.
pub(super) fn time_axis(out: &mut String, length_us: u64, y: u32) {
    let _ = write!(
        out,
        "<line class=\"ax\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>"
    );
    let length = length_us as f64;
    for (n, us) in ticks(length_us).into_iter().enumerate() {
        let class = match n % 2 {
            0 => "",
            // On a narrow page every other label has room.
            _ => " class=\"wide-only\"",
        };
        let at = (percent(us as f64, length), y);
        tick(out, at, 3.0, &tick_label(us), class);
    }
}

/// Draws a tick of an axis at (percent of the width, pixels), with its label. Labels within `margin` percent of an
/// end do not leave the picture. `class`: empty, or an attribute of the label.
pub(super) fn tick(out: &mut String, (x, y): (f64, u32), margin: f64, label: &str, class: &str) {
    let anchor = match x {
        _ if (0.0..margin).contains(&x) => "start",
        _ if x >= 100.0 - margin => "end",
        _ => "middle",
    };
    let _ = write!(
        out,
        "<line class=\"ax\" x1=\"{x}%\" x2=\"{x}%\" y1=\"{y}\" y2=\"{}\"/>\
         <text{class} x=\"{x}%\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>",
        y + 4,
        y + 17
    );
}

/// The begin of a picture that is as wide as the page and `height` pixels high. A reader who does not see it gets
/// its title and description.
pub(super) fn begin_picture(out: &mut String, id: &str, height: u32, title: &str, about: &str) {
    let _ = write!(
        out,
        "<svg role=\"img\" width=\"100%\" height=\"{height}\" aria-labelledby=\"{id}-t {id}-d\">\
         <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
        Esc(title),
        Esc(about)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        let hostile = "</h2><script>alert(\"1\" & '2')</script>\u{1b}[2J\u{202e}";
        let shown = Esc(hostile).to_string();
        assert_eq!(
            shown,
            "&lt;/h2&gt;&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)&lt;/script&gt;\\u{1b}[2J\\u{202e}"
        );
        assert_eq!(Esc("nginx: größe").to_string(), "nginx: größe");
    }

    #[test]
    fn numbers_and_ticks_are_round() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        for length in [1, 7, 990, 40_000, 10_000_000, 63_000_000, 86_400_000_000] {
            let ticks = ticks(length);
            assert!((1..=7).contains(&ticks.len()), "{length}: {ticks:?}");
            assert!(ticks.iter().all(|t| *t <= length));
        }
        assert_eq!(ticks(10_000_000).len(), 6);
        assert_eq!(tick_label(90_000_000), "1:30 min");
        assert_eq!(tick_label(7_500_000_000), "2:05 h");
    }
}
