//! A remedy as lines: of the page, of the summary, of `connect`.

use crate::{
    util::{
        fill::{columns, fill},
        format,
    },
    view::{Style, remedy},
};

/// Before a command that stands alone.
const COMMAND: &str = "    $ ";
/// Before what follows in the next line of a command.
const CONTINUED: &str = "        ";

/// A step a line where it fits, behind `first` or, from the second on, `next`. Else its command stands alone, as it is
/// or in lines that a shell takes as one.
pub(crate) fn steps(first: &str, next: &str, remedy: &str, style: Style) -> Vec<String> {
    let remedy = format::safe(remedy);
    let (steps, comment) = remedy::steps(&remedy);
    let (lang, width) = (style.lang, style.width);
    let (comment, open, close) = match lang.translated(comment) {
        Some(translated) => (translated, "（", "）"),
        None => (comment.to_owned(), "(", ")"),
    };
    let last = steps.len().saturating_sub(1);
    let mut lines = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let label = if n == 0 { first } else { next };
        let translated = lang.translated(step.sentence);
        let is_alone = step.sentence.is_empty() || step.command.is_empty();
        let colon = match (is_alone, &translated) {
            (true, _) => "",
            (false, None) => ": ",
            (false, Some(_)) => "：",
        };
        let sentence = translated.as_deref().unwrap_or(step.sentence);
        let mut line = format!("{label}{sentence}{colon}{}", step.command);
        if n == last && !comment.is_empty() {
            line.push_str(&format!(" # {comment}"));
        }
        if columns(&line) <= width {
            lines.push(line);
            continue;
        }
        if !sentence.is_empty() {
            let sentence = format!("{sentence}{}", colon.trim_end());
            lines.extend(fill(label, next, &sentence, width));
        } else if n == 0 {
            lines.push(label.trim_end().to_owned());
        }
        if !step.command.is_empty() {
            lines.extend(command(step.command, width));
        }
        if n == last && !comment.is_empty() {
            let comment = format!("{open}{comment}{close}");
            lines.extend(fill(next, next, &comment, width));
        }
    }
    lines
}

fn command(command: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = COMMAND.to_owned();
    for (n, word) in shell_words(command).into_iter().enumerate() {
        // Room for ` \`.
        let columns = line.chars().count() + 1 + word.chars().count() + 2;
        if n > 0 && columns > width {
            lines.push(format!("{line} \\"));
            line = format!("{CONTINUED}{word}");
        } else {
            if n > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.push(line);
    lines
}

/// The words of a command: quoted ones are whole.
fn shell_words(command: &str) -> Vec<&str> {
    let mut quote = None;
    command
        .split(|c: char| {
            match (quote, c) {
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), _) if open == c => quote = None,
                _ => (),
            }
            c == ' ' && quote.is_none()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_fit_has_its_own_line() {
        let remedy =
            "look whether anything listens there: ss -ltn 'sport = :9'; else ask the firewall";
        let at = |width| {
            let style = Style {
                width,
                ..Style::default()
            };
            steps("   try: ", "        ", remedy, style)
        };
        assert_eq!(
            at(80),
            [
                "   try: look whether anything listens there: ss -ltn 'sport = :9'",
                "        else ask the firewall"
            ]
        );
        assert_eq!(
            at(45),
            [
                "   try: look whether anything listens there:",
                "    $ ss -ltn 'sport = :9'",
                "        else ask the firewall"
            ]
        );
    }
}
