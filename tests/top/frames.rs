//! The frames of the screen, in memory.

use std::{env, fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use ratatui::{
    Terminal, backend::TestBackend, buffer::Buffer, crossterm::event::KeyCode, style::Color,
};
use synprobe::{
    filter::Selection,
    lang::Lang,
    model::Role,
    pipeline::{Player, ReplayOptions},
    top::{App, Look, Observed, ReplayPosition, ReplayedEvents},
    verdict::Mode,
};
use synprobe_tests::{prose::english_in, recorded::ensure_same, recordings::folder};

/// Columns and rows.
const SIZES: [(u16, u16); 4] = [(80, 24), (120, 40), (40, 10), (200, 50)];

/// A state of the screen.
pub struct FrameCase {
    pub name: &'static str,
    recording: &'static str,
    /// Seconds from the first input, in three steps.
    at_s: u64,
    /// `\n` Enter, `\t` Tab, `\u{1b}` Esc, `\u{8}` down.
    keys: &'static str,
    ascii: bool,
    lang: Lang,
}

pub const fn case(
    name: &'static str,
    recording: &'static str,
    at_s: u64,
    keys: &'static str,
) -> FrameCase {
    FrameCase {
        name,
        recording,
        at_s,
        keys,
        ascii: false,
        lang: Lang::En,
    }
}

/// The same in Chinese.
const fn chinese(
    name: &'static str,
    recording: &'static str,
    at_s: u64,
    keys: &'static str,
) -> FrameCase {
    FrameCase {
        lang: Lang::Zh,
        ..case(name, recording, at_s, keys)
    }
}

const CASES: [FrameCase; 29] = [
    case("accept-queue-full", "accept-queue-full-ipv4", 4, ""),
    case(
        "accept-queue-full-ended",
        "accept-queue-full-ipv4",
        3600,
        "",
    ),
    case("listener", "accept-queue-full-ipv6", 4, "2\n"),
    case("problem", "accept-queue-full-ipv4", 4, "\n"),
    case("explanation", "synack-lost-ipv4", 4, "e"),
    case("many", "incident-synack-lost-ipv6", 3, ""),
    case(
        "many-by-again",
        "incident-synack-lost-ipv6",
        3,
        "3s\u{8}\u{8}",
    ),
    case("handshake", "incident-synack-lost-ipv4", 3, "3\n"),
    case("narrowed", "incident-accept-queue-ipv4", 3, "\n\n"),
    case("peer", "lossy-ipv4", 3600, "4\n"),
    case(
        "filtered",
        "several-ipv4",
        3600,
        "/role:client verdict:refused\nz",
    ),
    case("ladder", "synack-lost-ipv4", 8, "3\n"),
    case("ladder-line", "synack-lost-ipv4", 8, "3\n\n"),
    case("peer-handshakes", "synack-lost-ipv4", 8, "4\n\n"),
    case("events", "several-ipv4", 3600, "5"),
    case("event", "synack-lost-ipv4", 3600, "5\n"),
    case("networks", "incident-synack-lost-ipv4", 3, "w"),
    case("nothing", "healthy-ipv4", 3600, "r"),
    FrameCase {
        ascii: true,
        ..case("help-ascii", "healthy-ipv6", 1, "?")
    },
    chinese("zh-accept-queue-full", "accept-queue-full-ipv4", 4, ""),
    chinese("zh-many", "incident-synack-lost-ipv6", 3, ""),
    chinese("zh-firewall", "incident-firewall-ipv4", 3, ""),
    chinese("zh-listener", "accept-queue-full-ipv6", 4, "2\n"),
    chinese("zh-problem", "accept-queue-full-ipv4", 4, "\n"),
    chinese("zh-handshake", "incident-synack-lost-ipv4", 3, "3\n"),
    chinese("zh-ladder", "synack-lost-ipv4", 8, "3\n"),
    chinese("zh-explanation", "synack-lost-ipv4", 4, "e"),
    chinese("zh-help", "healthy-ipv6", 1, "?"),
    chinese("zh-networks", "incident-synack-lost-ipv4", 3, "w"),
];

impl FrameCase {
    /// The screen after its keys, and the state as plain text.
    pub fn app(&self, look: Look) -> Result<App> {
        let options = options_for(self.recording);
        let mut app = App::new(look, Duration::from_secs(1));
        let events = ReplayedEvents::default();
        let mut player = Player::open(options, Duration::from_secs(60), 20_000, events.outputs())?;
        let length_us = player.length_us();
        let target_us = (self.at_s * 1_000_000).min(length_us);
        for third in 1..=3 {
            player.ask(target_us * third / 3)?;
            let moment = player.wait().context("the state")?;
            app.observe(Observed {
                status: Arc::new(moment.status),
                position: Some(ReplayPosition {
                    at_us: moment.at_us,
                    length_us,
                    is_last: moment.is_last,
                }),
                slow_us: None,
                events: events.tail().last(),
                tail: events.tail(),
                notes: Vec::new(),
            });
        }
        for c in self.keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Down,
                c => KeyCode::Char(c),
            };
            app.key(code.into());
        }
        Ok(app)
    }

    fn look(&self) -> Look {
        Look {
            ascii: self.ascii,
            lang: self.lang,
            ..Look::default()
        }
    }
}

fn options_for(recording: &str) -> ReplayOptions {
    ReplayOptions {
        file: folder().join(format!("{recording}.synrec")),
        selection: Selection::default(),
        netns: None,
        mode: Mode::AtOnce,
        duration: None,
        count: None,
        tables: None,
    }
}

pub fn drawn(app: &App, columns: u16, rows: u16) -> Result<Buffer> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows))?;
    terminal.draw(|frame| app.draw(frame))?;
    Ok(terminal.backend().buffer().clone())
}

/// Whether a character takes two columns: those of East Asia (UAX #11), as far as frames have them.
fn is_wide(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}' | '\u{ff01}'..='\u{ff60}')
}

fn text(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let row = |y| -> String {
        let mut cells = (0..area.width).map(|x| buffer[(x, y)].symbol());
        let mut line = String::new();
        while let Some(symbol) = cells.next() {
            line.push_str(symbol);
            if symbol.chars().any(is_wide) {
                // The second half of it.
                cells.next();
            }
        }
        line
    };
    (0..area.height)
        .map(|y| row(y).trim_end().to_owned())
        .collect()
}

fn kept(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("top/frames/{name}.txt"))
}

/// Back in a replay, in a narrower selection too, the state is what it was there before, and its end is its end.
pub fn back_is_where_it_was() -> Result<()> {
    for role in [None, Some(Role::Client)] {
        let options = ReplayOptions {
            selection: Selection {
                role,
                ..Selection::default()
            },
            ..options_for("several-ipv4")
        };
        let events = ReplayedEvents::default();
        let mut player = Player::open(options, Duration::from_secs(60), 20_000, events.outputs())?;
        let length_us = player.length_us();
        let mut text_at = |at_us| -> Result<(String, bool)> {
            player.ask(at_us)?;
            let moment = player.wait().context("the state")?;
            ensure!(moment.at_us == at_us, "{} is not {at_us}", moment.at_us);
            let is_last = moment.is_last;
            let mut app = App::new(Look::default(), Duration::from_secs(1));
            app.observe(Observed {
                status: Arc::new(moment.status),
                position: None,
                slow_us: None,
                events: events.tail().last(),
                tail: events.tail(),
                notes: Vec::new(),
            });
            Ok((app.text(200), is_last))
        };
        let middle = text_at(4_000_000)?;
        let end = text_at(length_us)?;
        ensure!(!middle.1 && end.1 && middle.0 != end.0);
        ensure!(
            role.is_none() || !middle.0.contains("SYN_RECV"),
            "{}",
            middle.0
        );
        ensure!(text_at(4_000_000)? == middle, "the middle again");
        ensure!(text_at(length_us)? == end, "the end again");
        ensure!(text_at(length_us)? == end, "and once more");
    }
    Ok(())
}

pub fn are_those_that_are_kept() -> Result<()> {
    let bless = env::var_os("SYNPROBE_BLESS").is_some();
    for case in &CASES {
        let app = case.app(case.look())?;
        let mut frames = String::new();
        for (columns, rows) in SIZES {
            frames.push_str(&format!("== {columns}x{rows}\n"));
            for line in text(&drawn(&app, columns, rows)?) {
                frames.push_str(&line);
                frames.push('\n');
            }
        }
        if bless {
            fs::write(kept(case.name), &frames)?;
            continue;
        }
        let wanted = fs::read_to_string(kept(case.name)).context(case.name)?;
        ensure_same(case.name, &wanted, &frames)?;
    }
    Ok(())
}

/// In Chinese nothing is English but names, no line is wider than the screen, and no sign has a width that depends on
/// the terminal.
pub fn chinese_is_chinese() -> Result<()> {
    for case in CASES.iter().filter(|case| case.lang == Lang::Zh) {
        let app = case.app(case.look())?;
        for (columns, rows) in SIZES {
            let lines = text(&drawn(&app, columns, rows)?);
            // Events are rows of `watch`.
            let mut is_of_events = false;
            for line in lines {
                is_of_events &= !line.starts_with("依据");
                if is_of_events {
                    continue;
                }
                is_of_events = [" 5 事件", "它的事件"]
                    .iter()
                    .any(|of| line.starts_with(of));
                let wide = line.chars().filter(|c| is_wide(*c)).count();
                ensure!(
                    line.chars().count() + wide <= columns.into(),
                    "{}: {line}",
                    case.name
                );
                let signs = |c: &char| !c.is_ascii() && !is_wide(*c) && *c != 'µ';
                let sign = line.chars().find(signs);
                ensure!(sign.is_none(), "{}: {sign:?} in {line}", case.name);
                let english = english_in(&line);
                ensure!(english.is_none(), "{}: {english:?} in {line}", case.name);
            }
        }
    }
    Ok(())
}

/// Without colour and attributes nothing of the text is missing, and with them nothing is added. In ASCII there is
/// nothing else, and every column stays where it is.
pub fn fit_and_need_no_colour() -> Result<()> {
    for case in &CASES {
        let [plain, coloured, ascii] = [
            Look::default(),
            Look {
                ascii: false,
                colour: true,
                attributes: true,
                lang: Lang::En,
            },
            Look {
                ascii: true,
                ..Look::default()
            },
        ]
        .map(|look| case.app(look));
        let (plain, coloured, ascii) = (plain?, coloured?, ascii?);
        for (columns, rows) in SIZES {
            let plainly = drawn(&plain, columns, rows)?;
            ensure!(
                plainly
                    .content
                    .iter()
                    .all(|cell| cell.fg == Color::Reset && cell.modifier.is_empty())
            );
            let lines = text(&plainly);
            ensure!(
                lines == text(&drawn(&coloured, columns, rows)?),
                "{}",
                case.name
            );
            let in_ascii = text(&drawn(&ascii, columns, rows)?);
            for (line, ascii) in lines.iter().zip(&in_ascii) {
                ensure!(ascii.is_ascii(), "{}: {ascii}", case.name);
                ensure!(
                    line.chars().count() == ascii.len(),
                    "{}: {line} {ascii}",
                    case.name
                );
            }
            ensure!(
                !lines.last().is_none_or(String::is_empty),
                "{}: no keys",
                case.name
            );
        }
    }
    Ok(())
}
