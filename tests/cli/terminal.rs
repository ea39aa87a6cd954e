//! What depends on the terminal: width, colours, the countdown; and the exit code of `diagnose`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use synprobe_lab::{Lab, PORT, SocketFamily};
use synprobe_tests::{
    binary::{self, command, ended, run},
    pty::Pty,
    recordings::folder,
};

use super::{DONE, netns_path, pages};

/// `diagnose --exit-code`: something is wrong.
const PROBLEMS: i32 = 10;

fn recording(name: &str) -> String {
    let file = folder().join(format!("{name}.synrec"));
    file.to_string_lossy().into_owned()
}

/// In a pseudo-terminal of this width.
fn on_terminal(arguments: &[&str], term: &str, columns: u16) -> Result<Pty> {
    let mut command = Command::new(binary::path()?);
    command
        .args(arguments)
        .env("TERM", term)
        .env_remove("NO_COLOR")
        .env_remove("COLUMNS");
    Pty::start(command, columns, 50)
}

pub fn exit_code() -> Result<()> {
    let cases = [
        ("healthy-ipv4", DONE),
        ("several-ipv4", PROBLEMS),
        ("synack-lost-ipv6", PROBLEMS),
        // It is meant so.
        ("defer-accept-ipv4", DONE),
    ];
    for (name, code) in cases {
        for format in ["text", "json"] {
            let file = recording(name);
            let arguments = ["diagnose", "--replay", &file, "--format", format];
            let ran = run(&[&arguments[..], &["--exit-code"]].concat())?;
            ensure!(ran.code == Some(code), "{name}: {ran:?}");
            ensure!(run(&arguments)?.code == Some(DONE), "{name}");
            let is_clear = ran.out.contains("\nNothing wrong was found.");
            ensure!(!is_clear || code == DONE, "{name}: {ran:?}");
        }
    }
    Ok(())
}

/// On a terminal a line says how long it lasts and what is known so far. Enter ends it, and the page is whole.
pub fn countdown() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let _full = lab.listen(PORT, 3)?;
    let mut clients = pages::fill_queue(&lab)?;
    clients.push(pages::call(&lab)?);
    let netns = netns_path(&lab.server);
    let fixed = ["diagnose", "--netns", &netns, "--duration", "10m"];
    let arguments = [&fixed[..], &["--exit-code"]].concat();
    let mut pty = on_terminal(&arguments, "xterm", 80)?;
    pty.until_shown("s left  so far: accept-queue-full :8080")?;
    pty.until_shown("; Enter ends now")?;
    pages::until_overflow(&lab)?;
    pty.keys("\n")?;
    let status = pty.ended()?;
    ensure!(status.code() == Some(PROBLEMS), "{status}");
    let lines = pty.lines();
    let whole = lines.join("\n");
    let last = whole.trim_end().rsplit("\n\n").next().unwrap_or_default();
    ensure!(
        last.starts_with("1 problem. Cause: accept-queue-full"),
        "{whole}"
    );
    ensure!(
        !lines.iter().any(|line| line.contains("s left")),
        "{lines:?}"
    );
    let written = String::from_utf8_lossy(&pty.written).into_owned();
    ensure!(
        written.contains("\x1b[1;31m1 problem."),
        "colours: {written}"
    );
    // A terminal that takes no escape sequences gets none.
    let fixed = ["diagnose", "--netns", &netns, "--duration", "1s"];
    let mut pty = on_terminal(&fixed, "dumb", 80)?;
    ensure!(pty.ended()?.success());
    ensure!(!pty.written.contains(&0x1b), "{:?}", pty.lines());
    pty.until_shown("watching for 1.00 s; Ctrl-C ends early")?;
    Ok(())
}

/// 80 columns of a terminal, of COLUMNS in a pipe, else 100.
pub fn page_fits() -> Result<()> {
    let file = recording("several-ipv4");
    let arguments = ["diagnose", "--replay", &file];
    let mut pty = on_terminal(
        &[&arguments[..], &["--color", "never"]].concat(),
        "xterm",
        80,
    )?;
    ensure!(pty.ended()?.success());
    ensure!(!pty.written.contains(&0x1b), "{:?}", pty.lines());
    let on_terminal = String::from_utf8(pty.written.clone())?.replace("\r\n", "\n");
    // Standard error has the same terminal, and comes first.
    let page = on_terminal.find("\nsynprobe 0").context("a page")?;
    let on_terminal = &on_terminal[page + 1..];
    let in_pipe = |columns: Option<&str>| -> Result<String> {
        let mut command = command(&[&arguments[..], &["--color", "always"]].concat())?;
        command.env_remove("COLUMNS");
        columns.map(|columns| command.env("COLUMNS", columns));
        let ran = ended(command.spawn()?)?;
        ensure!(ran.out.contains("\x1b[1;31m"), "{ran:?}");
        Ok(without_colours(&ran.out))
    };
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max();
    for (text, columns) in [
        (on_terminal.to_owned(), 80),
        (in_pipe(Some("80"))?, 80),
        (in_pipe(None)?, 100),
    ] {
        let widest = widest(&text).unwrap_or_default();
        ensure!(
            (columns - 10..=columns).contains(&widest),
            "{widest} of {columns}: {text}"
        );
    }
    ensure!(in_pipe(Some("80"))? == *on_terminal, "{on_terminal}");
    Ok(())
}

/// The date, a heading, and no row that is wider than the terminal; where there is room, more. Repeats are one row on
/// a terminal only.
pub fn watch() -> Result<()> {
    let file = recording("incident-firewall-ipv4");
    let arguments = ["watch", "--replay", &file];
    let shown = |options: &[&str], columns: u16| -> Result<Vec<String>> {
        let mut pty = on_terminal(&[&arguments[..], options].concat(), "dumb", columns)?;
        ensure!(pty.ended()?.success());
        let text = String::from_utf8(pty.written.clone())?.replace("\r\n", "\n");
        // Standard error has the same terminal.
        let lines = text.lines().filter(|line| !line.starts_with("synprobe: "));
        Ok(lines.map(str::to_owned).collect())
    };
    let widest = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max();
    let is_row = |line: &&String| {
        let time = line.get(..8).unwrap_or_default();
        time.len() == 8 && time.as_bytes()[2] == b':' && time.as_bytes()[5] == b':'
    };
    let folded = shown(&[], 80)?;
    ensure!(
        folded
            .iter()
            .any(|line| line.starts_with("2026-11-29 UTC  synprobe "))
    );
    ensure!(
        folded
            .iter()
            .any(|line| line.starts_with("TIME         #     PORT   PEER"))
    );
    ensure!(widest(&folded) <= Some(80), "{:?}", widest(&folded));
    let rows = folded.iter().filter(is_row).count();
    ensure!(rows < 300, "{rows} rows");
    let is_sum = |line: &&String| line.contains(" peers ") && line.contains("×");
    let sum = folded.iter().find(is_sum);
    ensure!(
        sum.is_some_and(|line| line.contains("  <8080  ")),
        "{sum:?}"
    );
    let each = shown(&["--no-fold"], 80)?;
    let all = each.iter().filter(is_row).count();
    ensure!(
        all > 3000 && !each.iter().any(|line| is_sum(&line)),
        "{all} rows"
    );
    ensure!(widest(&each) <= Some(80), "{:?}", widest(&each));
    let wide = shown(&["--no-fold"], 160)?;
    ensure!(
        wide.iter()
            .any(|line| line.contains(", at 198.18.0.2:8080"))
    );
    // A pipe has every row, and JSON every line.
    let piped = run(&arguments)?;
    let lines: Vec<String> = piped.out.lines().map(str::to_owned).collect();
    ensure!(lines.iter().filter(is_row).count() == all, "{all}");
    Ok(())
}

/// The SYNs are there while they are sent, and the page fits.
pub fn connect() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let _full = lab.listen(PORT, 3)?;
    let _clients = pages::fill_queue(&lab)?;
    let netns = netns_path(&lab.client);
    let target = lab.server_addr(PORT).to_string();
    let fixed = ["connect", "--netns", &netns, &target];
    let mut pty = on_terminal(&[&fixed[..], &["--timeout", "30s"]].concat(), "xterm", 80)?;
    pty.until_shown("trying each address for up to 30.0 s; Ctrl-C ends early")?;
    pty.until_shown("SYN+1 ")?;
    let has_page = |lines: &[String]| lines.iter().any(|line| line.contains("not connected"));
    ensure!(!has_page(&pty.lines()), "{:?}", pty.lines());
    pty.signal(libc::SIGINT)?;
    let status = pty.ended()?;
    ensure!(status.code() == Some(4), "{status}: {:?}", pty.lines());
    ensure!(has_page(&pty.lines()), "{:?}", pty.lines());
    let written = String::from_utf8_lossy(&pty.written).into_owned();
    ensure!(
        written.contains("\x1b[1;31mnot connected: 1 address"),
        "{written}"
    );
    let wide = without_colours(&written.replace("\r\n", "\n"));
    let too_wide = wide.lines().find(|line| {
        let is_step = line.starts_with("   try: ") || line.starts_with("        ");
        line.chars().count() > 80 && !is_step
    });
    ensure!(too_wide.is_none(), "{too_wide:?}");
    Ok(())
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    for (n, part) in text.split("\x1b[").enumerate() {
        match part.split_once('m') {
            Some((_, rest)) if n > 0 => plain.push_str(rest),
            _ => plain.push_str(part),
        }
    }
    plain
}
