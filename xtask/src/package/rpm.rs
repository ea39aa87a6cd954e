//! The .rpm, by rpmbuild.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::{
    DESCRIPTION, Release, source,
    staging::{CONFIGURATION, Content, DOCUMENTS, Staging},
};
use crate::workspace::{output, root};

/// The folder of the licence texts.
const LICENCES: &str = "usr/share/licenses/synprobe";

/// Builds it.
///
/// # Errors
///
/// When rpmbuild is not installed, or fails.
pub fn build(release: &Release, content: &Content<'_>) -> Result<()> {
    let top = release.scratch.join("rpm");
    let staging = Staging::new(top.join("staged"), content, "usr/share/zsh/site-functions")?;
    staging.put(
        &format!("{DOCUMENTS}/CHANGELOG.md"),
        &source("CHANGELOG.md")?,
        0o644,
    )?;
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        staging.put(&format!("{LICENCES}/{name}"), &source(name)?, 0o644)?;
    }
    let mut list = vec!["%defattr(-,root,root,-)".to_owned()];
    for folder in [
        DOCUMENTS,
        LICENCES,
        "usr/share/synprobe",
        "usr/share/synprobe/prometheus",
    ] {
        list.push(format!("%dir /{folder}"));
    }
    for file in staging.files()? {
        let is_below = |folder: &str| file[1..].starts_with(folder);
        list.push(match () {
            () if file == CONFIGURATION => format!("%config(noreplace) {file}"),
            () if is_below(DOCUMENTS) => format!("%doc {file}"),
            () if is_below(LICENCES) => format!("%license {file}"),
            () => file,
        });
    }
    let file_list = top.join("files");
    fs::write(&file_list, list.join("\n") + "\n")?;

    let define = |name: &str, value: &str| ["--define".to_owned(), format!("{name} {value}")];
    let path = |name: &str| top.join(name).display().to_string();
    let kernel = release.processor.of_kernel();
    let definitions = [
        define("_topdir", &path("build")),
        define("_rpmdir", &release.output.display().to_string()),
        define("_rpmfilename", "synprobe-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"),
        define("staged", &path("staged")),
        define("file_list", &path("files")),
        define("version_of_release", &release.version),
        define("description_of_release", &DESCRIPTION.join("\n\n")),
        // The binary is stripped; its files stay as they are.
        define("debug_package", "%{nil}"),
        define("__os_install_post", "%{nil}"),
        define("_build_id_links", "none"),
        // What every rpm since 4.6 can unpack.
        define("_binary_payload", "w6.xzdio"),
        // Two builds give the same bytes.
        define("_buildhost", "localhost"),
        define("use_source_date_epoch_as_buildtime", "1"),
        define("clamp_mtime_to_source_date_epoch", "1"),
    ];
    output(
        Command::new("rpmbuild")
            .env("SOURCE_DATE_EPOCH", release.time.seconds())
            .args(["-bb", "--quiet", "--target", &format!("{kernel}-linux")])
            .args(definitions.iter().flatten())
            .arg(root().join("deploy/packages/synprobe.spec")),
    )
    .context("rpmbuild is of the package rpm-build, in Debian of rpm")?;
    Ok(())
}
