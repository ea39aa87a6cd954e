//! The pages, the completions and the help, against the definition of the command line and against the tools that
//! read them.

#![allow(clippy::expect_used)]

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use synprobe_manual::{command, completions, default_file, help, pages};

/// A day for the pages.
const DATE: &str = "2026-01-31";

/// A file that a change of the command line changes. Written anew by `cargo xtask man --bless`.
fn is_as_in_snapshot(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(name);
    if env::var_os("SYNPROBE_BLESS").is_some() {
        return fs::write(&file, text).expect("the snapshot can be written");
    }
    let expected = fs::read_to_string(&file).expect("the snapshot is in the tree");
    let mut pairs = text.lines().zip(expected.lines());
    let differs = pairs.find(|(is, was)| is != was);
    assert!(
        text == expected,
        "{name} has changed, first in {differs:?}: if that is meant, cargo xtask man --bless"
    );
}

/// Runs a program with this input; `None`: it is not installed.
fn run(program: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let child = Command::new(program)
        .args(arguments)
        .env("MANWIDTH", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("not run: {program} is not installed");
        return None;
    };
    // A program may end before it has read everything.
    let _ = child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes());
    let ended = child.wait_with_output().expect("it can be waited for");
    let printed = [ended.stdout, ended.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    Some((ended.status.success(), printed))
}

#[test]
fn help_is_as_in_the_snapshot() {
    is_as_in_snapshot("help.txt", &help());
}

#[test]
fn a_page_is_as_in_the_snapshot() {
    let pages = pages(DATE).expect("in memory");
    let version = format!("\"synprobe {}\"", env!("CARGO_PKG_VERSION"));
    let page = pages
        .iter()
        .find(|page| page.file_name == "synprobe-connect.1");
    let page = page.expect("it is a command");
    is_as_in_snapshot(
        "synprobe-connect.1",
        &page.text.replace(&version, "\"synprobe VERSION\""),
    );
}

/// Every command has a page, and every option, variable and value is on it.
#[test]
fn pages_have_everything() {
    let pages = pages(DATE).expect("in memory");
    let program = command();
    let mut commands = vec![&program];
    commands.extend(program.get_subcommands());
    assert_eq!(pages.len(), commands.len());
    for (page, command) in pages.iter().zip(commands) {
        let name = command.get_name();
        let file = if name == "synprobe" {
            "synprobe.1".to_owned()
        } else {
            format!("synprobe-{name}.1")
        };
        assert_eq!(page.file_name, file);
        // As roff writes it.
        let has = |word: &str| page.text.contains(&word.replace('-', "\\-"));
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "\"EXIT STATUS\"",
            "ENVIRONMENT",
            "\"SEE ALSO\"",
        ] {
            assert!(
                page.text.contains(&format!(".SH {section}\n")),
                "{file}: no {section}"
            );
        }
        assert!(page.text.contains(".SH EXAMPLES"), "{file}: no examples");
        for argument in command.get_arguments() {
            let long = argument.get_long().map(|long| format!("\\fB--{long}\\fR"));
            let value = argument.get_value_names().and_then(<[_]>::first);
            let value = value.map(ToString::to_string).unwrap_or_default();
            assert!(has(&long.unwrap_or(value)), "{file}: {argument:?}");
            if let Some(variable) = argument.get_env() {
                assert!(has(&variable.to_string_lossy()), "{file}: {argument:?}");
            }
            let takes_value = argument.get_num_args().is_some_and(|n| n.takes_values());
            for value in argument
                .get_possible_values()
                .iter()
                .filter(|_| takes_value)
            {
                assert!(has(value.get_name()), "{file}: {value:?}");
            }
        }
        for verb in command.get_subcommands() {
            assert!(
                has(&format!("synprobe-{}", verb.get_name())),
                "{file}: {}",
                verb.get_name()
            );
        }
    }
}

/// The description of a command is not that of no command: a new one needs its own.
#[test]
fn descriptions_are_their_own() {
    for page in pages(DATE).expect("in memory") {
        let description = page
            .text
            .split(".SH DESCRIPTION\n")
            .nth(1)
            .unwrap_or_default();
        assert!(
            !description.starts_with("It needs"),
            "{}: no description",
            page.file_name
        );
    }
}

#[test]
fn pages_render_without_warnings() {
    for page in pages(DATE).expect("in memory") {
        let name = &page.file_name;
        if let Some((succeeded, printed)) =
            run("mandoc", &["-T", "lint", "-W", "warning"], &page.text)
        {
            assert!(succeeded && printed.is_empty(), "{name}: {printed}");
        }
        if let Some((succeeded, printed)) =
            run("man", &["--warnings", "-E", "UTF-8", "-l", "-"], &page.text)
        {
            assert!(
                succeeded && !printed.contains("warning"),
                "{name}: {printed}"
            );
            assert!(printed.contains("SEE ALSO"), "{name}: {printed}");
        }
    }
}

/// The examples are commands that the command line takes.
#[test]
fn examples_are_valid() {
    for page in pages(DATE).expect("in memory") {
        let examples = page
            .text
            .split(".SH EXAMPLES\n.nf\n")
            .nth(1)
            .unwrap_or_default();
        let examples = examples.split(".fi\n").next().unwrap_or_default();
        for line in examples.lines() {
            let plain = line.replace("\\-", "-").replace("\\*(Aq", "");
            let words = plain.trim_start_matches("sudo ").split_whitespace();
            let parsed = command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{plain}: {parsed:?}");
        }
    }
}

#[test]
fn completions_are_valid_scripts() {
    for completion in completions() {
        let text = String::from_utf8(completion.text).expect("UTF-8");
        for verb in command().get_subcommands() {
            assert!(
                text.contains(verb.get_name()),
                "{}: {}",
                completion.shell,
                verb.get_name()
            );
        }
        if let Some((succeeded, printed)) = run(completion.shell, &["-n"], &text) {
            assert!(succeeded, "{}: {printed}", completion.shell);
        }
    }
}

/// bash, asked as by the Tab key.
#[test]
fn bash_completes_options_and_values() {
    let all = completions();
    let bash = all
        .iter()
        .find(|completion| completion.shell == "bash")
        .expect("it is there");
    let script = String::from_utf8_lossy(&bash.text);
    for (words, wanted) in [
        ("synprobe wat", "watch"),
        ("synprobe watch --dur", "--duration"),
        ("synprobe watch --mode ex", "exact"),
        ("synprobe serve --lis", "--listen"),
    ] {
        let count = words.split(' ').count() - 1;
        let last = words.rsplit(' ').next().expect("a word");
        let before = words.split(' ').nth(count - 1).expect("a word before it");
        let asked = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={count}; _synprobe synprobe {last} {before}\n\
             echo \"<${{COMPREPLY[*]}}>\"\n"
        );
        if let Some((succeeded, printed)) = run("bash", &["--norc"], &asked) {
            assert!(
                succeeded && printed.trim() == format!("<{wanted}>"),
                "{words}: {printed}"
            );
        }
    }
}

/// The file of the service: what it sets when its lines are taken out of the comments is what holds without it.
#[test]
fn the_default_file_has_the_defaults() {
    let text = default_file();
    let program = command();
    let serve = program.find_subcommand("serve").expect("it is a command");
    let mut arguments = vec!["synprobe".to_owned(), "serve".to_owned()];
    let mut variables = 0;
    for line in text.lines().filter(|line| line.starts_with("#SYNPROBE_")) {
        let (variable, value) = line[1..].split_once('=').expect("a value");
        let option = serve
            .get_arguments()
            .find(|a| a.get_env().is_some_and(|name| name == variable));
        let long = option.and_then(clap::Arg::get_long).expect("an option");
        variables += 1;
        if !value.is_empty() && value != "false" {
            arguments.push(format!("--{long}={value}"));
        }
    }
    assert_eq!(
        variables,
        serve
            .get_arguments()
            .filter(|a| a.get_env().is_some())
            .count()
    );
    // These two need another option.
    arguments.retain(|argument| {
        // They need another option, which has no default.
        !["--keep", "--max-size", "--otlp-interval"]
            .iter()
            .any(|option| argument.starts_with(option))
    });
    let parsed = command().try_get_matches_from(&arguments);
    assert!(parsed.is_ok(), "{arguments:?}: {parsed:?}");
    let comment = |line: &str| line.is_empty() || line.starts_with('#');
    assert!(text.lines().all(comment), "{text}");
}
