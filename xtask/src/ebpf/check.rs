//! `cargo xtask ebpf --check`: checks that the committed objects match the source.
//!
//! Only the recorded toolchain gives the same bytes. With another one, the check puts its objects into a copy
//! of the workspace, loads them into this kernel, and runs the kernel tests with them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::toolchain::{Record, Toolchain};
use crate::workspace::{cargo, is_root, output, root, run, target_dir};

/// Compares the objects, or tests them where the toolchain differs.
///
/// # Errors
///
/// When an object differs from the source's, or does not work.
pub fn check(
    recorded: Option<&Record>,
    toolchain: &Toolchain,
    objects: &[(&str, Vec<u8>)],
) -> Result<()> {
    let Some(recorded) = recorded else {
        bail!("synprobe/bpf/TOOLCHAIN is missing: run `cargo xtask ebpf` and commit the result");
    };
    let differences = recorded.differences(toolchain.record());
    if differences.is_empty() {
        return compare(objects);
    }
    eprintln!(
        "xtask: the toolchain differs from the recorded one ({}): bytes are not compared; its objects \
         are loaded and the kernel tests run with them",
        differences.join("; ")
    );
    test_objects(objects)
}

fn compare(objects: &[(&str, Vec<u8>)]) -> Result<()> {
    let mut differing = Vec::new();
    for (name, bytes) in objects {
        let committed = fs::read(root().join(name)).unwrap_or_default();
        if committed != *bytes {
            differing.push((*name).to_owned());
        }
    }
    if !differing.is_empty() {
        bail!(
            "these objects do not match the source: {}. Run `cargo xtask ebpf` and commit the result",
            differing.join(", ")
        );
    }
    eprintln!("xtask: the committed objects match the source, byte for byte");
    Ok(())
}

fn test_objects(objects: &[(&str, Vec<u8>)]) -> Result<()> {
    if !is_root() {
        bail!("loading the objects needs root; or use the recorded toolchain");
    }
    let tree = target_dir().join("bpf-check/tree");
    copy_workspace(&tree)?;
    for (name, bytes) in objects {
        let path = tree.join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    let cargo_there = || {
        let mut command = Command::new(cargo());
        command
            .current_dir(&tree)
            .env("CARGO_TARGET_DIR", target_dir().join("bpf-check/target"));
        command
    };
    eprintln!("xtask: loading the built objects");
    run(cargo_there()
        .args(["run", "--quiet", "--package", "synprobe", "--"])
        .args(["watch", "--format", "json", "--duration", "500ms"])
        .stdout(Stdio::null()))
    .context("the built objects cannot be loaded")?;
    let passed = passing_tests(cargo_there().args(["test", "--package", "synprobe-tests"]))
        .context("the kernel tests with the built objects")?;
    if passed == 0 {
        bail!("the built objects load, but no kernel test ran");
    }
    eprintln!("xtask: the built objects load, and {passed} kernel tests pass with them");
    Ok(())
}

/// Runs tests, shows what they print, and counts those that passed.
fn passing_tests(command: &mut Command) -> Result<u64> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut passed = 0;
    for line in child
        .stdout
        .take()
        .into_iter()
        .flat_map(|out| BufReader::new(out).lines())
    {
        let line = line?;
        println!("{line}");
        let summary = line.strip_prefix("test result: ok. ");
        let count = summary.and_then(|s| s.split_once(" passed"));
        passed += count.and_then(|(n, _)| n.parse::<u64>().ok()).unwrap_or(0);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(passed)
}

/// Copies every file that git tracks or does not ignore.
fn copy_workspace(tree: &Path) -> Result<()> {
    let listed = output(Command::new("git").current_dir(root()).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    // Files keep their times, so that a second check compiles only changes.
    let _ = fs::remove_dir_all(tree);
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root().join(name), tree.join(name));
        // A file may be deleted without a commit.
        let Ok(meta) = fs::metadata(&from) else {
            continue;
        };
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::copy(&from, &to).with_context(|| name.to_owned())?;
        let copy = fs::File::options().write(true).open(&to);
        if let (Ok(copy), Ok(time)) = (copy, meta.modified()) {
            // A failure only makes the check slower.
            let _ = copy.set_modified(time);
        }
    }
    Ok(())
}
