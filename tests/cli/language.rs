//! `--lang` and the locale.

use anyhow::{Result, ensure};
use synprobe_tests::{
    binary::{Ran, command, ended, run},
    recordings::folder,
};

use super::{DONE, USAGE};

/// `diagnose` of a recording with these options and variables.
fn diagnose(options: &[&str], variables: &[(&str, &str)]) -> Result<Ran> {
    let recording = folder().join("accept-queue-full-ipv4.synrec");
    let mut command = command(&["diagnose", "--replay"])?;
    command.arg(recording).args(options);
    command.envs(variables.iter().copied());
    ended(command.spawn()?)
}

/// The page is in the language that is asked for, else in that of the locale. JSON is English.
pub fn of_the_page() -> Result<()> {
    let english = diagnose(&[], &[])?;
    ensure!(english.code == Some(DONE), "{english:?}");
    let cause = "1 problem. Cause: accept-queue-full, server 0.0.0.0:8080";
    ensure!(english.out.contains(cause), "{english:?}");
    let chinese = diagnose(&["--lang", "zh"], &[])?;
    // What is missing from the recording, on standard error.
    let same = chinese.code == Some(DONE) && chinese.err == english.err;
    ensure!(same, "{chinese:?}");
    let cause = "1 个问题。原因：accept-queue-full，服务端 0.0.0.0:8080";
    ensure!(chinese.out.contains(cause), "{chinese:?}");
    let zh = "zh_CN.UTF-8";
    let check = |options: &[&str], variables: &[(&str, &str)], wanted: &Ran| -> Result<()> {
        let ran = diagnose(options, variables)?;
        ensure!(ran.out == wanted.out, "{options:?} {variables:?}: {ran:?}");
        Ok(())
    };
    check(&[], &[("LANG", zh)], &chinese)?;
    let messages = [("LC_ALL", ""), ("LC_MESSAGES", zh), ("LANG", "C")];
    check(&[], &messages, &chinese)?;
    check(&[], &[("LC_ALL", "C.UTF-8"), ("LANG", zh)], &english)?;
    check(&[], &[("LANG", "zh_TW.UTF-8")], &english)?;
    check(&["--lang", "en"], &[("LC_ALL", zh)], &english)?;
    check(&["--lang", "zh"], &[("LC_ALL", "en_US.UTF-8")], &chinese)?;
    let json = diagnose(&["--format", "json"], &[])?;
    let in_chinese = diagnose(&["--format", "json", "--lang", "zh"], &[("LC_ALL", zh)])?;
    ensure!(
        json.out == in_chinese.out && !json.out.is_empty(),
        "{in_chinese:?}"
    );
    Ok(())
}

/// A language that there is not.
pub fn unknown() -> Result<()> {
    let ran = run(&["diagnose", "--lang", "fr"])?;
    ensure!(ran.code == Some(USAGE) && ran.out.is_empty(), "{ran:?}");
    let line = ran.one_line()?;
    ensure!(
        ["--lang", "fr", "en", "zh"]
            .iter()
            .all(|word| line.contains(word)),
        "{line}"
    );
    Ok(())
}
