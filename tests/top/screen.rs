//! The real program in a pseudo-terminal.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use synprobe_tests::{binary, pty::Pty, recordings::folder};

fn top(recording: &str) -> Result<Command> {
    let mut command = Command::new(binary::path()?);
    command
        .args(["top", "--replay"])
        .arg(folder().join(format!("{recording}.synrec")))
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR");
    Ok(command)
}

/// Every step waits for what it should show.
pub fn keys_resize_and_sigterm() -> Result<()> {
    let mut pty = Pty::start(top("incident-accept-queue-ipv4")?, 80, 24)?;
    pty.until_shown("PROBLEMS")?;
    ensure!(pty.screen.screen().alternate_screen() && pty.is_raw()?);
    // To the end, and 10 s back: the replay begins anew.
    pty.keys("}")?;
    pty.until_shown("(end)")?;
    pty.until_shown("accept-queue-full")?;
    pty.keys("?")?;
    pty.until_shown("Shift-Tab")?;
    pty.keys("G")?;
    pty.until_shown("Filter: every term")?;
    pty.keys("\x1b")?;
    pty.until_shown("1 PROBLEMS")?;
    pty.keys("\r")?;
    pty.until_shown("Enter handshakes")?;
    pty.keys("e")?;
    pty.until_shown("What it means")?;
    pty.keys("\x1b")?;
    pty.until_shown("Enter handshakes")?;
    pty.keys("\x1b")?;
    pty.until_shown("1 PROBLEMS")?;
    pty.keys("/port:1\r")?;
    pty.until_shown("filter port:1")?;
    pty.until_shown("none that is selected")?;
    pty.keys("\x1b")?;
    pty.until("without the filter", |lines| {
        !lines.iter().any(|l| l.contains("filter port:1"))
    })?;
    pty.keys("\t")?;
    pty.until(">2", |lines| {
        let heading = lines.iter().position(|l| l.contains("2 LISTENERS"));
        heading.is_some_and(|at| lines[at + 1].starts_with('>'))
    })?;
    pty.keys("r")?;
    pty.until_shown("only server")?;
    pty.keys("s")?;
    pty.until_shown("by SYN queue")?;
    pty.keys(" ")?;
    pty.until_shown("PAUSED")?;
    pty.keys("{")?;
    pty.until_shown("replay 0.0 s of")?;
    pty.keys(" ")?;
    pty.until("going on", |lines| {
        !lines.iter().any(|l| l.contains("PAUSED"))
    })?;

    pty.resize(120, 40)?;
    pty.until("40 rows", |lines| {
        lines.get(39).is_some_and(|line| line.contains("q quit"))
    })?;
    pty.resize(40, 10)?;
    pty.until("10 rows", |lines| {
        lines.get(9).is_some_and(|line| line.contains("q quit"))
    })?;
    pty.signal(libc::SIGTERM)?;
    let status = pty.ended()?;
    ensure!(status.code() == Some(0), "{status:?}");
    pty.ensure_restored()
}

/// By each way the program ends with 0, and leaves the terminal as it was.
pub fn quit_and_signals() -> Result<()> {
    type End = fn(&mut Pty) -> Result<()>;
    let ends: [(&str, End); 5] = [
        ("q", |pty| pty.keys("q")),
        ("Ctrl-C", |pty| pty.keys("\x03")),
        ("SIGINT", |pty| pty.signal(libc::SIGINT)),
        ("SIGHUP", |pty| pty.signal(libc::SIGHUP)),
        ("SIGQUIT", |pty| pty.signal(libc::SIGQUIT)),
    ];
    let mut other = Pty::start(top("several-ipv4")?, 80, 24)?;
    for (how, end) in ends {
        let mut pty = Pty::start(top("several-ipv4")?, 80, 24)?;
        pty.until_shown("PROBLEMS")?;
        pty.ensure_nothing_inherited().context(how)?;
        end(&mut pty).context(how)?;
        let status = pty.ended().context(how)?;
        ensure!(status.code() == Some(0), "{how}: {status:?}");
        pty.ensure_restored().context(how)?;
    }
    other.keys("q")?;
    other.ended()?;
    Ok(())
}

/// The message of a panic is on the terminal as it was before, where it can be read.
pub fn panic() -> Result<()> {
    let program = Command::new(env!("CARGO_BIN_EXE_top-panic"));
    let mut pty = Pty::start(program, 80, 24)?;
    let status = pty.ended()?;
    ensure!(status.code() == Some(101), "{status:?}");
    let written = String::from_utf8_lossy(&pty.written);
    ensure!(
        written.contains("\x1b[?1049h"),
        "it was a screen: {written:?}"
    );
    pty.ensure_restored()?;
    pty.until_shown("a panic on purpose")
}

/// NO_COLOR and a terminal without capabilities get no colour; others do.
pub fn no_colour() -> Result<()> {
    for (name, value, is_coloured) in [
        ("TERM", "xterm", true),
        ("NO_COLOR", "1", false),
        ("TERM", "dumb", false),
    ] {
        let mut command = top("accept-queue-full-ipv4")?;
        command.env(name, value);
        let mut pty = Pty::start(command, 80, 24)?;
        pty.keys("}")?;
        pty.until_shown("certain")?;
        // Another pane is selected, and the row of the problem is drawn again, as any other.
        pty.keys("2z")?;
        pty.until("one pane", |lines| {
            !lines.iter().any(|l| l.contains("1 PROBLEMS"))
        })?;
        pty.keys("z")?;
        pty.until_shown("certain")?;
        let screen = pty.screen.screen();
        let cells = (0..24).flat_map(|row| (0..80).map(move |column| (row, column)));
        let mut colours =
            cells.filter_map(|(row, column)| Some(screen.cell(row, column)?.fgcolor()));
        let has_colour = colours.any(|colour| colour != vt100::Color::Default);
        ensure!(
            has_colour == is_coloured,
            "{name}={value}: {:?}",
            pty.lines()
        );
        pty.keys("q")?;
        ensure!(pty.ended()?.code() == Some(0));
    }
    Ok(())
}
