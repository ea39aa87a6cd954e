//! `top --batch`: plain text.

use anyhow::{Context, Result, ensure};
use synprobe_tests::{
    binary::{command, ended},
    recordings::folder,
};

/// As many frames as were asked for, in as many columns, and no escape sequence.
pub fn frames_as_text() -> Result<()> {
    let file = folder().join("incident-accept-queue-ipv4.synrec");
    let file = file.to_str().context("a name")?;
    for (columns, most) in [(Some("80"), 80), (None, 100)] {
        let mut top = command(&["top", "-b", "-n", "3", "--replay", file])?;
        top.env_remove("COLUMNS").env("TERM", "xterm-256color");
        if let Some(columns) = columns {
            top.env("COLUMNS", columns);
        }
        let ran = ended(top.spawn()?)?;
        ensure!(ran.code == Some(0), "{ran:?}");
        let heads = ran
            .out
            .lines()
            .filter(|line| line.starts_with("synprobe top"));
        ensure!(heads.count() == 3, "{ran:?}");
        ensure!(
            ran.out.contains(" (end)") && ran.out.contains("accept-queue-full"),
            "{ran:?}"
        );
        ensure!(!ran.out.contains('\x1b'), "{ran:?}");
        let widest = ran.out.lines().map(|line| line.chars().count()).max();
        ensure!(widest <= Some(most), "{widest:?} of {most}: {}", ran.out);
    }
    let mut top = command(&["top", "-b", "-n", "1", "--ascii", "--replay", file])?;
    let ran = ended(top.spawn()?)?;
    ensure!(ran.code == Some(0) && ran.out.is_ascii(), "{ran:?}");
    Ok(())
}

/// Without a terminal a screen is refused, in one line that says what to do.
pub fn no_terminal() -> Result<()> {
    let ran = ended(command(&["top", "--replay", "none.synrec"])?.spawn()?)?;
    ensure!(
        ran.code == Some(2) && ran.one_line()?.contains("--batch"),
        "{ran:?}"
    );
    let ran = ended(command(&["top", "-b", "--replay", "none.synrec"])?.spawn()?)?;
    ensure!(
        ran.code == Some(2) && ran.one_line()?.contains("none.synrec"),
        "{ran:?}"
    );
    Ok(())
}
