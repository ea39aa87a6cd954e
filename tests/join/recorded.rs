//! Recordings that a join must take, or refuse with one line. No root needed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use synprobe_tests::{
    binary::{Ran, command, ended},
    recordings::folder,
};

use crate::files::{Made, join};

/// Bytes of a block before its payload (docs/recording.md).
const PREFIX: usize = 72;

fn recording(name: &str) -> PathBuf {
    folder().join(format!("{name}.synrec"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// The same recording as another version would have written it, with right checksums.
fn of_version(content: &[u8], (major, minor): (u16, u16)) -> Result<Vec<u8>> {
    let mut bytes = content.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let block = bytes.get_mut(at..at + PREFIX).context("a prefix")?;
        block[8..10].copy_from_slice(&major.to_le_bytes());
        block[10..12].copy_from_slice(&minor.to_le_bytes());
        let checksum = crc32fast::hash(&block[..68]);
        block[68..].copy_from_slice(&checksum.to_le_bytes());
        let stored: [u8; 4] = block[20..24].try_into()?;
        at += PREFIX + u32::from_le_bytes(stored) as usize;
    }
    Ok(bytes)
}

fn says(ran: &Ran, code: i32, words: &str) -> Result<()> {
    ensure!(
        ran.code == Some(code) && ran.err.lines().count() == 1 && ran.err.contains(words),
        "{words}: {:?} {}",
        ran.code,
        ran.err
    );
    Ok(())
}

/// What a join prints, without the names of its files.
fn pairs(ran: &Ran) -> Result<Vec<&str>> {
    ensure!(ran.code == Some(0) && ran.err.is_empty(), "{ran:?}");
    let lines = ran.out.lines();
    let pairs: Vec<&str> = lines
        .filter(|line| !line.contains(r#""type":"join""#))
        .collect();
    ensure!(!pairs.is_empty(), "{}", ran.out);
    Ok(pairs)
}

/// A later minor version is read; another major version is refused, whichever of the two it is.
pub fn versions() -> Result<()> {
    let ours = recording("synack-lost-ipv4");
    let content = fs::read(&ours)?;
    let known = join(&[text(&ours), text(&ours), "--format", "json"])?;
    let minor = Made::of("minor.synrec", of_version(&content, (1, 7))?)?;
    for files in [[minor.path(), text(&ours)], [text(&ours), minor.path()]] {
        let ran = join(&[files[0], files[1], "--format", "json"])?;
        ensure!(pairs(&ran)? == pairs(&known)?, "{}", ran.out);
    }
    let major = Made::of("major.synrec", of_version(&content, (2, 0))?)?;
    for files in [[major.path(), text(&ours)], [text(&ours), major.path()]] {
        let words = "a recording of format version 2: this synprobe reads version 1";
        says(&join(&files)?, 2, words)?;
    }
    Ok(())
}

/// A recording that comes from a pipe is one that is named.
pub fn pipes() -> Result<()> {
    let ours = recording("synack-lost-ipv4");
    let known = join(&[text(&ours), text(&ours), "--format", "json"])?;
    for files in [["-", text(&ours)], [text(&ours), "-"]] {
        let child = command(&["join", files[0], files[1], "--format", "json"])?
            .stdin(fs::File::open(&ours)?)
            .spawn()?;
        let ran = ended(child)?;
        ensure!(pairs(&ran)? == pairs(&known)?, "{}", ran.out);
        ensure!(ran.out.contains("standard input"), "{}", ran.out);
    }
    let bad = Made::of("cut.synrec", &fs::read(&ours)?[..40])?;
    let child = command(&["join", "-", text(&ours)])?
        .stdin(fs::File::open(bad.path())?)
        .spawn()?;
    says(
        &ended(child)?,
        2,
        "standard input: a recording that is cut off",
    )
}

/// Two recordings of other hours.
pub fn other_hours() -> Result<()> {
    let (ours, theirs) = (recording("synack-lost-ipv4"), recording("refused-ipv4"));
    let ran = join(&[text(&ours), text(&theirs)])?;
    says(&ran, 0, "by their own clocks the runs do not overlap")
}
