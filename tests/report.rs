//! Reports of every recording: well-formed, self-contained, and of the same mind as `diagnose`. No root, no kernel.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, ensure};
use synprobe::{
    filter::Selection,
    lang::Lang,
    model::{Body, Line, Problem, Role, VerdictKind},
    pipeline::{self, Recording, ReplayOptions},
    report::HtmlReport,
    verdict::Mode,
    view::{View, WallClock},
};
use synprobe_tests::{
    binary::{self, run},
    prose::english_in,
    recorded::Scratch,
    recordings::{all, folder},
};

const WORKERS: usize = 4;
/// The sections of every report.
const SECTIONS: [&str; 10] = [
    "problems",
    "ladders",
    "timeline",
    "queues",
    "peers",
    "durations",
    "flow",
    "unseen",
    "troubled",
    "refused",
];
/// Elements without an end tag (HTML Standard, section 13.1.2).
const VOID: [&str; 4] = ["meta", "br", "link", "img"];
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// Keeps the problems.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl View for Problems {
    fn show(&mut self, lines: &[Line], _: WallClock) -> io::Result<()> {
        let problems = lines.iter().filter_map(|line| match &line.body {
            Body::Problem(problem) => Some(problem.as_ref().clone()),
            _ => None,
        });
        self.0.extend(problems);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn replay(file: &Path, mode: Mode, view: &mut dyn View) -> Result<pipeline::Replayed> {
    let options = ReplayOptions {
        file: file.to_owned(),
        selection: Selection::default(),
        netns: None,
        mode,
        duration: None,
        count: None,
        tables: None,
    };
    Ok(pipeline::replay(Recording::open(file)?, &options, view)?)
}

fn report_of(file: &Path) -> Result<String> {
    report_in(file, Lang::En)
}

fn report_in(file: &Path, lang: Lang) -> Result<String> {
    let mut report = HtmlReport::new(lang);
    let replayed = replay(file, Mode::AllAtTheEnd, &mut report)?;
    Ok(report.html(&replayed.socket_states.unwrap_or_default()))
}

/// Checks every recording.
fn of_each(check: impl Fn(&Path) -> Result<()> + Sync) -> Result<()> {
    let recordings = all()?;
    let check = |recording: &PathBuf| {
        let name = recording.file_name().unwrap_or_default().to_string_lossy();
        let failed = check(recording).err();
        failed.map(|error| format!("{name}: {error:#}"))
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = recordings
            .chunks(recordings.len().div_ceil(WORKERS))
            .map(|some| scope.spawn(move || some.iter().filter_map(check).collect::<Vec<_>>()))
            .collect();
        let panicked = |_| vec!["a check panicked".to_owned()];
        let joined = workers.into_iter().map(|worker| worker.join());
        joined
            .flat_map(|failures| failures.unwrap_or_else(panicked))
            .collect()
    });
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// As the report escapes text; no recording has control characters in it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// The text without its first letter, which may be a capital in the report.
fn tail(text: &str) -> String {
    let mut chars = text.chars();
    chars.next();
    escaped(chars.as_str())
}

#[test]
fn a_report_names_what_diagnose_names() -> Result<()> {
    of_each(|file| {
        let mut problems = Problems::default();
        replay(file, Mode::AtTheEnd, &mut problems)?;
        let mut of_report = Problems::default();
        replay(file, Mode::AllAtTheEnd, &mut of_report)?;
        ensure!(
            problems.0 == of_report.0,
            "other problems than diagnose finds"
        );
        let html = report_of(file)?;
        for p in &problems.0 {
            let heading = format!(
                "<h3>{}. {} <span",
                p.rank,
                p.verdict.map_or("no verdict", |v| v.name())
            );
            ensure!(html.contains(&heading), "no {heading}");
            for evidence in &p.evidence {
                let fact = format!("<li>{}</li>", escaped(&evidence.fact));
                ensure!(html.contains(&fact), "no {fact}");
            }
            let remedy = p.remedy.as_deref().unwrap_or_default();
            for step in remedy.split(" # ").next().unwrap_or_default().split("; ") {
                // A sentence and a command may stand apart.
                let parts: Vec<&str> = step.split(": ").collect();
                for part in parts {
                    ensure!(html.contains(&tail(part)), "no {part:?} of {remedy:?}");
                }
            }
        }
        // What is meant so is no fault.
        let is_fault = |p: &&Problem| match p.verdict {
            None | Some(VerdictKind::DeferAccept) => false,
            Some(VerdictKind::ResetAfterHandshake) => p.role != Role::Server,
            Some(_) => true,
        };
        let real = problems.0.iter().filter(is_fault).count();
        let begins = match real {
            0 => "<h1>No".to_owned(),
            1 => "<h1>1 problem. Cause: ".to_owned(),
            n => format!("<h1>{n} problems. The worst: "),
        };
        ensure!(html.contains(&begins), "no {begins}");
        Ok(())
    })
}

/// A sentence about a drop or about two ways that the picture does not know any more would leave it out.
#[test]
fn the_path_of_a_dropped_packet_is_drawn() -> Result<()> {
    of_each(|file| {
        let html = report_of(file)?;
        for card in html.split("<article class=\"card ").skip(1) {
            let card = card.split("</article>").next().unwrap_or_default();
            let facts = card.split("<h4>Evidence against it").next();
            let facts = facts.unwrap_or_default();
            let tells = [
                "this host dropped ",
                "the answer leaves ",
                "is answered by another way",
            ];
            let is_told = tells.iter().any(|words| facts.contains(words));
            let is_drawn = card.contains("The path of the packets");
            ensure!(is_told == is_drawn, "{is_told}, {is_drawn}: {card}");
        }
        Ok(())
    })
}

#[test]
fn a_report_is_well_formed_and_self_contained() -> Result<()> {
    of_each(|file| {
        let html = report_of(file)?;
        ensure!(html.len() < 2 << 20, "{} bytes", html.len());
        for id in SECTIONS {
            ensure!(
                html.matches(&format!("<section id=\"{id}\"")).count() == 1,
                "no section {id}"
            );
        }
        for elsewhere in [
            "<script",
            "<link",
            "<img",
            "<iframe",
            "<object",
            "<embed",
            "javascript:",
            "http://",
            "https://",
            "//cdn",
            " src=",
            "@import",
            "url(",
            " onload=",
            " onclick=",
        ] {
            ensure!(!html.contains(elsewhere), "{elsewhere}");
        }
        let hrefs = html.match_indices("href=\"");
        for (at, href) in hrefs {
            let target = html[at + href.len()..]
                .split('"')
                .next()
                .unwrap_or_default();
            let id = target.strip_prefix('#').context("a link elsewhere")?;
            ensure!(
                html.contains(&format!("id=\"{id}\"")),
                "a link to nowhere: {id}"
            );
        }
        tags_are_balanced(&html)?;
        ids_are_unique(&html)
    })
}

/// Every element is closed, in the order in which they were opened, and every attribute is quoted.
fn tags_are_balanced(html: &str) -> Result<()> {
    let mut rest = html.strip_prefix("<!doctype html>").context("a doctype")?;
    let mut open: Vec<&str> = Vec::new();
    while let Some(begin) = rest.find('<') {
        ensure!(
            !rest[..begin].contains('>') || open.last() == Some(&"style"),
            "a stray > in {:?}",
            &rest[..begin]
        );
        let tag = &rest[begin + 1..];
        let end = tag.find('>').context("an open <")?;
        let (tag, after) = (&tag[..end], &tag[end + 1..]);
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            let opened = open.pop();
            ensure!(opened == Some(name), "</{name}> closes {opened:?}");
            continue;
        }
        ensure!(tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        ensure!(
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()),
            "<{tag}>"
        );
        if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    ensure!(open.is_empty(), "not closed: {open:?}");
    Ok(())
}

fn ids_are_unique(html: &str) -> Result<()> {
    let mut ids: Vec<&str> = html
        .match_indices(" id=\"")
        .map(|(at, id)| html[at + id.len()..].split('"').next().unwrap_or_default())
        .collect();
    ids.sort_unstable();
    for pair in ids.windows(2) {
        ensure!(pair[0] != pair[1], "two elements have the id {}", pair[0]);
    }
    Ok(())
}

/// Elements whose content is the same in every language.
const KEPT: [&str; 3] = ["style", "pre", "code"];

/// A file, taken apart.
#[derive(Default)]
struct Markup<'h> {
    /// Its tags in their order, without texts for readers in them.
    tags: Vec<String>,
    /// What stands in elements that are the same in every language.
    kept: Vec<&'h str>,
    /// Everything else that is read.
    texts: Vec<&'h str>,
}

impl<'h> Markup<'h> {
    fn of(html: &'h str) -> Self {
        let mut markup = Self::default();
        let mut rest = html;
        let mut kept = 0;
        while let Some((text, tagged)) = rest.split_once('<') {
            let (tag, after) = tagged.split_once('>').unwrap_or((tagged, ""));
            let list = if kept > 0 {
                &mut markup.kept
            } else {
                &mut markup.texts
            };
            if !text.trim().is_empty() {
                list.push(text);
            }
            rest = after;
            let name = tag.split(' ').next().unwrap_or_default();
            match name.strip_prefix('/') {
                Some(name) => kept -= usize::from(KEPT.contains(&name)),
                None => kept += usize::from(KEPT.contains(&name)),
            }
            const LABEL: &str = "aria-label=\"";
            let tag = match tag.split_once(LABEL) {
                Some((before, label)) => {
                    let (label, after) = label.split_once('"').unwrap_or((label, ""));
                    markup.texts.push(label);
                    format!("{before}{LABEL}{after}")
                }
                None => tag.to_owned(),
            };
            markup.tags.push(tag);
        }
        markup
    }
}

#[test]
fn a_chinese_report_is_the_same_in_chinese() -> Result<()> {
    of_each(|file| {
        let (english, chinese) = (report_in(file, Lang::En)?, report_in(file, Lang::Zh)?);
        tags_are_balanced(&chinese)?;
        ensure!(chinese.contains("<html lang=\"zh-CN\">"), "no language");
        let (of_english, of_chinese) = (Markup::of(&english), Markup::of(&chinese));
        let tags = |markup: &Markup<'_>| markup.tags.join("\n").replace("\"zh-CN\"", "\"en\"");
        ensure!(tags(&of_english) == tags(&of_chinese), "other tags");
        ensure!(of_english.kept == of_chinese.kept, "other commands");
        ensure!(
            of_english.texts.len() == of_chinese.texts.len(),
            "other texts"
        );
        let left: Vec<String> = of_chinese
            .texts
            .iter()
            .filter_map(|text| {
                let english = english_in(text)?;
                Some(format!("{english:?} in {text:?}"))
            })
            .collect();
        ensure!(left.is_empty(), "English is left: {}", left.join("\n"));
        Ok(())
    })
}

#[test]
fn what_is_no_well_formed_page_is_found() {
    let page = |body: &str| format!("<!doctype html>\n<html><body>{body}</body></html>");
    assert!(tags_are_balanced(&page("<p>a &lt; b</p><br><svg><path d=\"M0 0\"/></svg>")).is_ok());
    for wrong in [
        "<p>",
        "<p></b>",
        "</p>",
        "a > b",
        "<p class=\"x>y</p>",
        "< p></p>",
    ] {
        assert!(tags_are_balanced(&page(wrong)).is_err(), "{wrong}");
    }
    assert!(ids_are_unique(&page("<p id=\"a\"></p><p id=\"a\"></p>")).is_err());
}

#[test]
fn the_command_writes_one_file_or_none() {
    let recording = folder().join("synack-lost-ipv4.synrec");
    let recording = recording.to_str().unwrap();
    let output = Scratch::new();
    let ran = run(&["report", "--output", output.text(), "--replay", recording]).unwrap();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.out
            .starts_with("1 problem. Cause: likely synack-lost, "),
        "{ran:?}"
    );
    let html = fs::read_to_string(&output.0).unwrap();
    assert!(html.ends_with("</html>\n"));
    // A longer file is replaced, not overwritten in part.
    fs::write(&output.0, "x".repeat(1 << 20)).unwrap();
    run(&["report", "--output", output.text(), "--replay", recording]).unwrap();
    assert_eq!(fs::read_to_string(&output.0).unwrap(), html);
    // No recording: the report that is there stays, and none is made.
    let none = Scratch::new();
    for (file, is_there) in [(&output, true), (&none, false)] {
        let ran = run(&["report", "--output", file.text(), "--replay", "/dev/null"]).unwrap();
        assert_eq!(ran.code, Some(USAGE), "{ran:?}");
        ran.one_line().unwrap();
        assert_eq!(file.0.exists(), is_there);
    }
    assert_eq!(fs::read_to_string(&output.0).unwrap(), html);
    for (arguments, code, words) in [
        (
            ["--output", "/no/such/folder/x.html", "--replay", recording],
            FAILED,
            "/no/such/folder/x.html",
        ),
        (
            ["--output", "/tmp", "--replay", recording],
            FAILED,
            "is a folder",
        ),
        (["--output", output.text(), "--lang", "xx"], USAGE, "xx"),
    ] {
        let ran = run(&[&["report"], &arguments[..]].concat()).unwrap();
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.out.is_empty(), "{ran:?}");
        assert!(
            ran.err.lines().next().unwrap_or_default().contains(words),
            "{ran:?}"
        );
    }
    // The recording itself is never overwritten.
    let copy = Scratch::new();
    fs::copy(recording, &copy.0).unwrap();
    let ran = run(&["report", "--output", copy.text(), "--replay", copy.text()]).unwrap();
    assert_eq!(ran.code, Some(USAGE), "{ran:?}");
    assert_eq!(fs::read(&copy.0).unwrap(), fs::read(recording).unwrap());
    binary::remove();
}
