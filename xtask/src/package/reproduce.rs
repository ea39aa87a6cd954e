//! Whether the same commit gives the same packages in another place.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::{Processor, emptied};
use crate::workspace::{cargo, cargo_home, output, root, run, target_dir};

/// Builds the packages of the committed tree once more, and compares them with those in `packages`. The other build
/// has its own folders of source, output and Cargo's home, another umask, time zone and language.
///
/// # Errors
///
/// When the tree has changes, the build fails, or a file differs.
pub fn check(packages: &Path, processors: &[Processor]) -> Result<()> {
    let changed = output(
        Command::new("git")
            .current_dir(root())
            .args(["status", "--porcelain"]),
    )?;
    ensure!(
        changed.is_empty(),
        "the tree has changes, which the other build would not have:\n{changed}"
    );
    let place = target_dir().join("packages.elsewhere");
    emptied(&place)?;
    let (tree, again) = (place.join("a clone"), place.join("packages"));
    run(Command::new("git")
        .args(["clone", "--quiet"])
        .arg(root())
        .arg(&tree))?;
    let mut package = Command::new("sh");
    package
        .current_dir(&tree)
        .args(["-c", "umask 077 && exec \"$@\"", "sh"])
        .arg(cargo())
        .args(["run", "--quiet", "--package", "xtask", "--", "package"])
        .arg("--output")
        .arg(&again)
        .env("CARGO_HOME", other_home(&place)?)
        .env("CARGO_TARGET_DIR", place.join("built"))
        .env("TZ", "Asia/Tokyo")
        .env("LC_ALL", "C.UTF-8");
    for processor in processors {
        let name = processor.to_possible_value().context("a name")?;
        package.args(["--arch", name.get_name()]);
    }
    run(&mut package)?;
    let differing = differing(packages, &again)?;
    ensure!(
        differing.is_empty(),
        "another build of the same commit differs: {}; compare {} with {}",
        differing.join(", "),
        packages.display(),
        again.display()
    );
    println!("the same, byte for byte, as built in {}", tree.display());
    fs::remove_dir_all(&place)?;
    Ok(())
}

/// A home of Cargo under another path, with what is in the real one.
fn other_home(place: &Path) -> Result<PathBuf> {
    let real = cargo_home().context("no home of Cargo: HOME is not set")?;
    let home = place.join("cargo-home");
    fs::create_dir_all(&home)?;
    for entry in fs::read_dir(&real).with_context(|| real.display().to_string())? {
        let entry = entry?;
        // Of locks and caches that this build makes anew none is needed.
        symlink(entry.path(), home.join(entry.file_name()))?;
    }
    Ok(home)
}

/// Names of files that are not the same in both folders.
fn differing(one: &Path, other: &Path) -> Result<Vec<String>> {
    let names = |folder: &Path| -> Result<Vec<OsString>> {
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let mut names: Vec<_> = entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    };
    let mut all = names(one)?;
    all.extend(names(other)?);
    all.sort();
    all.dedup();
    let read = |folder: &Path, name: &OsString| fs::read(folder.join(name)).ok();
    all.retain(|name| {
        let first = read(one, name);
        first.is_none() || first != read(other, name)
    });
    Ok(all
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() -> Result<()> {
        let place = std::env::temp_dir().join(format!("synprobe-reproduce-{}", std::process::id()));
        let (one, other) = (place.join("one"), place.join("other"));
        for (folder, files) in [
            (&one, [("same", "1"), ("changed", "2"), ("gone", "3")]),
            (&other, [("same", "1"), ("changed", "3"), ("new", "4")]),
        ] {
            fs::create_dir_all(folder)?;
            for (name, text) in files {
                fs::write(folder.join(name), text)?;
            }
        }
        let found = differing(&one, &other);
        fs::remove_dir_all(&place)?;
        assert_eq!(found?, ["changed", "gone", "new"]);
        Ok(())
    }
}
