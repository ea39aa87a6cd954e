//! The .deb, by dpkg-deb.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::{
    DESCRIPTION, HOMEPAGE, MAINTAINER, Release, SUMMARY, source,
    staging::{CONFIGURATION, Content, DOCUMENTS, Staging},
};
use crate::workspace::output;

/// Debian's revision of a version.
const REVISION: u32 = 1;
/// Width of a description.
const WIDTH: usize = 78;

/// Builds it.
///
/// # Errors
///
/// When dpkg-deb is not installed, or fails.
pub fn build(release: &Release, content: &Content<'_>) -> Result<()> {
    let folder = release.scratch.join("deb");
    let staging = Staging::new(folder, content, "usr/share/zsh/vendor-completions")?;
    let version = format!("{}-{REVISION}", release.version);
    let document = |name: &str| format!("{DOCUMENTS}/{name}");
    staging.put(
        &document("copyright"),
        &source("deploy/packages/debian/copyright")?,
        0o644,
    )?;
    staging.put_compressed(&document("changelog"), &source("CHANGELOG.md")?)?;
    let changelog = format!(
        "synprobe ({version}) unstable; urgency=medium\n\n  * Release {}: changelog.gz has what changed.\n\n \
         -- {MAINTAINER}  {}\n",
        release.version,
        release.time.rfc2822()?
    );
    staging.put_compressed(&document("changelog.Debian"), changelog.as_bytes())?;
    let overrides = source("deploy/packages/debian/lintian-overrides")?;
    staging.put("usr/share/lintian/overrides/synprobe", &overrides, 0o644)?;

    let files = staging.files()?;
    let mut bytes = 0;
    for file in &files {
        bytes += fs::metadata(staging.0.join(file.trim_start_matches('/')))?.len();
    }
    let control = format!(
        "Package: synprobe\nVersion: {version}\nArchitecture: {}\nMaintainer: {MAINTAINER}\nInstalled-Size: {}\n\
         Section: net\nPriority: optional\nHomepage: {HOMEPAGE}\nDescription: {SUMMARY}\n{}",
        release.processor.of_debian(),
        bytes.div_ceil(1024),
        description(),
    );
    staging.put("DEBIAN/control", control.as_bytes(), 0o644)?;
    staging.put(
        "DEBIAN/conffiles",
        format!("{CONFIGURATION}\n").as_bytes(),
        0o644,
    )?;
    // Of the files, not of what describes the package.
    let relative = files.iter().map(|file| file.trim_start_matches('/'));
    let sums = output(
        Command::new("md5sum")
            .current_dir(&staging.0)
            .args(relative.filter(|file| !file.starts_with("etc/"))),
    )?;
    staging.put("DEBIAN/md5sums", format!("{sums}\n").as_bytes(), 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        let text = source(&format!("deploy/packages/debian/{script}"))?;
        staging.put(&format!("DEBIAN/{script}"), &text, 0o755)?;
    }
    let name = format!("synprobe_{version}_{}.deb", release.processor.of_debian());
    output(
        Command::new("dpkg-deb")
            .env("SOURCE_DATE_EPOCH", release.time.seconds())
            .args([
                "--root-owner-group",
                "-Zxz",
                "-z6",
                "--threads-max=1",
                "--build",
            ])
            .arg(&staging.0)
            .arg(release.output.join(name)),
    )
    .context("dpkg-deb is of Debian's package dpkg")?;
    Ok(())
}

/// In the form of a control file: lines with a space before them, and a dot for an empty one.
fn description() -> String {
    let paragraphs: Vec<String> = DESCRIPTION.iter().map(|text| wrapped(text)).collect();
    paragraphs.join(" .\n")
}

fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            lines.push_str(&format!("{line}\n"));
            line.clear();
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}
