//! `cargo xtask ebpf --check`: are the committed objects what the source gives?
//!
//! Only the recorded toolchain can give the same bytes. With another one, what it built is put into
//! a copy of the workspace, loaded into this kernel there, and the kernel tests run on it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::toolchain::{Record, Toolchain};
use crate::workspace::{cargo, is_root, output, root, run, target_dir};

/// Compares, or tests.
///
/// # Errors
///
/// When an object is not what the source gives, or does not work.
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
        "xtask: another toolchain than the recorded one ({}): bytes are not compared; what it \
         built is loaded, and the kernel tests run on it",
        differences.join("; ")
    );
    try_out(objects)
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
            "not what the source gives: {}. Run `cargo xtask ebpf` and commit the result",
            differing.join(", ")
        );
    }
    eprintln!("xtask: the committed objects are, byte for byte, what the source gives");
    Ok(())
}

fn try_out(objects: &[(&str, Vec<u8>)]) -> Result<()> {
    if !is_root() {
        bail!("loading what was built needs root; or use the recorded toolchain");
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
    eprintln!("xtask: loading what was built");
    run(cargo_there()
        .args(["run", "--quiet", "--package", "synprobe", "--"])
        .args(["watch", "--format", "json", "--duration", "500ms"])
        .stdout(Stdio::null()))
    .context("what was built cannot be loaded")?;
    let passed = passing_tests(cargo_there().args(["test", "--package", "synprobe-tests"]))
        .context("the kernel tests on what was built")?;
    if passed == 0 {
        bail!("what was built loads, but no kernel test ran on it");
    }
    eprintln!(
        "xtask: what the toolchain at hand built loads, and {passed} kernel tests pass on it"
    );
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

/// Copies every file that git tracks, or would.
fn copy_workspace(tree: &Path) -> Result<()> {
    let listed = output(Command::new("git").current_dir(root()).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    // Files keep their times, so that a second check compiles only what has changed.
    let _ = fs::remove_dir_all(tree);
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root().join(name), tree.join(name));
        // A file that is deleted but not yet committed so.
        let Ok(meta) = fs::metadata(&from) else {
            continue;
        };
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::copy(&from, &to).with_context(|| name.to_owned())?;
        let copy = fs::File::options().write(true).open(&to);
        if let (Ok(copy), Ok(time)) = (copy, meta.modified()) {
            // Without it the check only takes longer.
            let _ = copy.set_modified(time);
        }
    }
    Ok(())
}
