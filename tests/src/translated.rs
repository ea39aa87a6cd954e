//! Pages of the recordings in English and in Chinese.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use synprobe::{
    filter::Selection,
    lang::Lang,
    model::{Body, Line},
    pipeline::{self, Recording, ReplayOptions},
    verdict::Mode,
    view::{Page, PageCounts, Style, View, WallClock},
};

use crate::recordings::folder;

/// Columns of the pages.
pub const WIDTH: usize = 80;
/// The recordings whose Chinese page is kept as a whole.
const SHOWN: [&str; 8] = [
    "accept-queue-full-ipv4",
    "forwarded-drop-ipv4",
    "healthy-ipv4",
    "incident-asymmetric-nat-ipv4",
    "own-reject-ipv6",
    "several-ipv4",
    "syn-flood-ipv4",
    "synack-lost-ipv6",
];

/// What a run says.
#[derive(Default)]
pub struct Pages {
    page: Page,
    /// The page in English.
    pub english: String,
    /// The page in Chinese.
    pub chinese: String,
    /// Evidence, and what was not explained.
    pub facts: Vec<String>,
    /// Remedies.
    pub remedies: Vec<String>,
}

impl View for Pages {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        for line in lines {
            let (evidence, remedy) = match &line.body {
                Body::Handshake(h) => (&h.evidence, &h.remedy),
                Body::Problem(p) => (&p.evidence, &p.remedy),
                Body::End(end) => {
                    self.facts.extend(end.unexplained.iter().cloned());
                    continue;
                }
                _ => continue,
            };
            self.facts.extend(evidence.iter().map(|e| e.fact.clone()));
            self.remedies.extend(remedy.clone());
        }
        self.page.show(lines, clock)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pages {
    /// # Errors
    ///
    /// When the recording cannot be replayed.
    pub fn of(recording: &Path) -> Result<Self> {
        let options = ReplayOptions {
            file: recording.to_owned(),
            selection: Selection::default(),
            netns: None,
            mode: Mode::AtTheEnd,
            duration: None,
            count: None,
            tables: None,
        };
        let mut pages = Self::default();
        let opened = Recording::open(recording)?;
        let replayed = pipeline::replay(opened, &options, &mut pages)?;
        let counts = PageCounts {
            at_start: replayed.progress.socket_states.as_ref(),
            at_end: &replayed.socket_states.unwrap_or_default(),
            in_progress: replayed.progress.in_progress,
        };
        let text = |lang| {
            let style = Style {
                lang,
                ..Style::plain(WIDTH)
            };
            pages.page.text(&counts, style)
        };
        (pages.english, pages.chinese) = (text(Lang::En), text(Lang::Zh));
        Ok(pages)
    }
}

/// The recordings whose Chinese page is kept, each with the file that has it.
pub fn kept() -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let of = |name: &str| {
        let page = folder().join("zh").join(name).with_extension("txt");
        (folder().join(name).with_extension("synrec"), page)
    };
    SHOWN.iter().map(move |name| of(name))
}

/// Writes the pages that are kept anew. How many changed.
///
/// # Errors
///
/// When one cannot be made or written.
pub fn bless() -> Result<usize> {
    fs::create_dir_all(folder().join("zh"))?;
    let mut changed = 0;
    for (recording, path) in kept() {
        let page = Pages::of(&recording).with_context(|| recording.display().to_string())?;
        if fs::read_to_string(&path).ok().as_ref() != Some(&page.chinese) {
            fs::write(&path, page.chinese)?;
            changed += 1;
        }
    }
    Ok(changed)
}
