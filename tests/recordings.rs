//! The recordings of `tests/recordings/` give the lines that they gave. No root, no kernel.
//!
//! Where other lines are right: `cargo xtask recordings --bless`, and read the difference.

use std::{fs, path::PathBuf, thread};

use synprobe::{
    filter::Selection,
    pipeline::{self, ReplayOptions},
    verdict::Mode,
    view::{Page, PageCounts, Style},
};
use synprobe_lab::SocketFamily;
use synprobe_tests::{
    harness::family_name,
    recorded::ensure_same,
    recordings::{all, expectation, expectation_of, folder},
};

/// What the folder may take, bytes.
const MOST: u64 = 5 << 19;
const WORKERS: usize = 4;

#[test]
fn recordings_give_the_lines_that_they_gave() {
    let recordings = all().unwrap();
    let check = |recording: &PathBuf| {
        let name = recording.file_name().unwrap_or_default().to_string_lossy();
        let wanted = fs::read_to_string(expectation_of(recording)).unwrap();
        match expectation(recording) {
            Ok(got) => ensure_same(&name, &wanted, &got)
                .err()
                .map(|error| error.to_string()),
            Err(error) => Some(format!("{name}: {error:#}")),
        }
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = recordings
            .chunks(recordings.len().div_ceil(WORKERS))
            .map(|some| scope.spawn(move || some.iter().filter_map(check).collect::<Vec<_>>()))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(
        failures.is_empty(),
        "{}\nif this is right: cargo xtask recordings --bless",
        failures.join("\n")
    );
}

/// Every page fits 80 and 120 columns: only a word that is longer may exceed them.
#[test]
fn pages_fit_the_width() {
    for recording in all().unwrap() {
        let mut page = Page::default();
        let options = ReplayOptions {
            file: recording.clone(),
            selection: Selection::default(),
            netns: None,
            mode: Mode::AtTheEnd,
            duration: None,
            count: None,
            tables: None,
        };
        let opened = pipeline::Recording::open(&recording).unwrap();
        let replayed = pipeline::replay(opened, &options, &mut page).unwrap();
        let counts = PageCounts {
            at_start: None,
            at_end: &replayed.socket_states.unwrap_or_default(),
            in_progress: replayed.progress.in_progress,
        };
        for width in [80, 120] {
            let text = page.text(&counts, Style::plain(width));
            let conclusion = text.lines().last().unwrap();
            assert!(
                text.lines().filter(|l| *l == conclusion).count() >= 2,
                "{text}"
            );
            for line in text.lines() {
                let longest = line.split(' ').map(|word| word.chars().count()).max();
                let is_quoted = line.contains('\'');
                assert!(
                    line.chars().count() <= width || is_quoted || longest >= Some(width - 20),
                    "{}: {width} columns: {line}",
                    recording.display()
                );
            }
        }
    }
}

#[test]
fn every_scenario_is_recorded_in_both_families() {
    for scenario in synprobe_lab::all() {
        for family in [SocketFamily::V4, SocketFamily::V6] {
            let name = format!("{}-{}.synrec", scenario.name(), family_name(family));
            let is_there = folder().join(&name).exists();
            assert_eq!(is_there, scenario.supports(family), "{name}");
        }
    }
}

#[test]
fn the_folder_is_small() {
    let bytes: u64 = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= MOST, "{bytes} bytes");
}

/// Nothing of the machine on which they were made.
#[test]
fn recordings_name_no_machine() {
    for recording in all().unwrap() {
        let (_, reader) = {
            let file = fs::File::open(&recording).unwrap();
            synprobe::recording::Reader::open(file).unwrap()
        };
        drop(reader);
        let opened = synprobe::pipeline::Recording::open(&recording).unwrap();
        let host = &opened.config.start.host;
        assert!(host.hostname.is_none() && host.machine_id.is_none() && host.boot_id.is_none());
        let lines = fs::read_to_string(expectation_of(&recording)).unwrap();
        for line in lines.lines().skip(1) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            for (field, neutral) in [("comm", "lab"), ("cgroup", "/lab")] {
                let value = &line[field];
                assert!(value.is_null() || value == neutral, "{line}");
            }
        }
    }
}
