//! The line about a recording that the key `R` has begun: where it goes, and what it holds.

use super::{
    App,
    style::{StyledLine, Tone, cut, width},
};
use crate::{
    status::{PartState, RecordedPart},
    util::format::{self, safe},
};

/// `None`: nothing is recorded, and a key was pressed since something was.
pub(super) fn part_line(app: &App, columns: usize) -> Option<StyledLine> {
    let lang = app.look.lang;
    let (text, part, tone) = match app.part.as_ref()? {
        PartState::Going(part) if part.summary.error.is_some() => {
            (incomplete(part), Some(part), Tone::Bad)
        }
        PartState::Going(part) => {
            let (inputs, bytes) = held(part);
            let text = format!("RECORDING {inputs} inputs, {bytes}:");
            (text, Some(part), Tone::Strong)
        }
        _ if !app.part_is_news => return None,
        PartState::Refused(why) => (format!("not recorded: {why}"), None, Tone::Bad),
        PartState::Ended(part) if part.summary.error.is_some() || part.summary.lost > 0 => {
            (incomplete(part), Some(part), Tone::Bad)
        }
        PartState::Ended(part) => {
            let (inputs, bytes) = held(part);
            let text = format!("recorded {inputs} inputs, {bytes}:");
            (text, Some(part), Tone::Strong)
        }
    };
    let place = part.map(|part| safe(&part.file.to_string_lossy()).into_owned());
    let text = cut(&lang.say(&safe(&text)), columns);
    let room = columns.saturating_sub(width(&text) + 1);
    Some(StyledLine::new(
        format!("{text} {}", end_of(&place.unwrap_or_default(), room)),
        tone,
    ))
}

/// Its inputs and its size.
fn held(part: &RecordedPart) -> (u64, String) {
    (part.summary.frames, format::bytes(part.summary.bytes))
}

fn incomplete(part: &RecordedPart) -> String {
    let lost = part.summary.lost;
    match part.summary.cause() {
        Some(error) => format!("not complete, {lost} inputs lost, {error}:"),
        None => format!("not complete, {lost} inputs lost:"),
    }
}

/// The end of a path says most.
fn end_of(path: &str, columns: usize) -> String {
    if width(path) <= columns {
        return path.to_owned();
    }
    let mut shown = path;
    while width(shown) + 1 > columns {
        let mut left = shown.chars();
        if left.next().is_none() {
            return String::new();
        }
        shown = left.as_str();
    }
    format!("…{shown}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{lang::Lang, status::RecordSummary, top::Look};

    fn part(error: Option<&str>, lost: u64) -> RecordedPart {
        RecordedPart {
            file: "/srv/recordings/synprobe-1.synrec".into(),
            summary: RecordSummary {
                frames: 1234,
                bytes: 57_344,
                lost,
                error: error.map(str::to_owned),
            },
        }
    }

    fn line(part: PartState, is_news: bool, lang: Lang) -> Option<String> {
        let look = Look {
            lang,
            ..Look::default()
        };
        let mut app = App::new(look, Duration::ZERO);
        (app.part, app.part_is_news) = (Some(part), is_news);
        let line = part_line(&app, 60)?.text(Look::default());
        assert!(width(&line) <= 60, "{line}");
        Some(line)
    }

    #[test]
    fn what_is_recorded_is_shown_and_what_was_until_the_next_key() {
        let english = |part, is_news| line(part, is_news, Lang::En);
        let going = "RECORDING 1234 inputs, 56 KiB: …recordings/synprobe-1.synrec";
        for is_news in [true, false] {
            let shown = english(PartState::Going(part(None, 0)), is_news);
            assert_eq!(shown.as_deref(), Some(going));
        }
        let ended = PartState::Ended(part(None, 0));
        let said = "recorded 1234 inputs, 56 KiB: …/recordings/synprobe-1.synrec";
        assert_eq!(english(ended.clone(), true).as_deref(), Some(said));
        assert_eq!(english(ended.clone(), false), None);
        let why = "cannot create /x: Permission denied";
        let refused = PartState::Refused(why.to_owned());
        assert_eq!(
            english(refused.clone(), true),
            Some(format!("not recorded: {why}"))
        );
        assert_eq!(english(refused.clone(), false), None);
        let full = "cannot write the recording: No space left";
        for (state, words) in [
            (PartState::Going(part(Some(full), 7)), "not complete, 7"),
            (PartState::Ended(part(None, 9)), "not complete, 9 inputs"),
        ] {
            let shown = english(state, true).unwrap();
            assert!(shown.starts_with(words), "{shown}");
        }
        for (state, words) in [
            (PartState::Going(part(None, 0)), "正在录制"),
            (ended, "已录制"),
            (refused, "未录制"),
            (PartState::Going(part(Some(full), 7)), "不完整"),
            (PartState::Ended(part(None, 9)), "不完整"),
        ] {
            let shown = line(state, true, Lang::Zh).unwrap();
            assert!(shown.starts_with(words), "{shown}");
        }
    }

    #[test]
    fn the_end_of_a_path_stays() {
        assert_eq!(end_of("/a/b.synrec", 11), "/a/b.synrec");
        assert_eq!(end_of("/a/b.synrec", 10), "…/b.synrec");
        assert_eq!(end_of("/a/b.synrec", 1), "…");
        assert_eq!(end_of("/a/b.synrec", 0), "");
    }
}
