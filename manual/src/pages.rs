//! The man pages: what clap knows, then the sections of [`super::sections`].

use std::io;

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, roman},
};

use super::{
    NAME, command,
    sections::{self, Entry},
};

/// One man page.
pub struct ManPage {
    /// The file's name: `synprobe-watch.1`.
    pub file_name: String,
    /// The page as roff.
    pub text: String,
}

/// One page for the program, and one for each command. `date`: the day of the release, `YYYY-MM-DD`.
///
/// # Errors
///
/// None: they are written to memory.
pub fn pages(date: &str) -> io::Result<Vec<ManPage>> {
    let program = command();
    let mut pages = vec![page(&program, &program, date)?];
    for verb in program.get_subcommands() {
        pages.push(page(&program, verb, date)?);
    }
    Ok(pages)
}

fn page(program: &Command, command: &Command, date: &str) -> io::Result<ManPage> {
    let source = format!("{NAME} {}", program.get_version().unwrap_or_default());
    let man = Man::new(command.clone())
        .date(date)
        .source(source)
        .manual("User Commands");
    let verb = (command.get_name() != NAME).then(|| command.get_name());
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    paragraphs(&mut roff, &sections::description(verb));
    roff.to_writer(&mut text)?;
    if command.get_subcommands().next().is_some() {
        let mut roff = Roff::new();
        commands(&mut roff, command);
        roff.to_writer(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    let mut roff = Roff::new();
    table(&mut roff, "EXIT STATUS", &sections::exit_status(verb));
    table(&mut roff, "ENVIRONMENT", &environment(command, verb));
    table(&mut roff, "FILES", &sections::files(verb));
    examples(&mut roff, sections::examples(verb));
    see_also(&mut roff, program, command);
    roff.to_writer(&mut text)?;
    Ok(ManPage {
        file_name: man.get_filename(),
        text: tidied(&String::from_utf8_lossy(&text)),
    })
}

/// The generator defines the apostrophe anew for each section, and makes an empty line where a request for one is
/// meant, also between the paragraphs of an option: mandoc warns of both.
fn tidied(text: &str) -> String {
    let apostrophe: String = text.split_inclusive('\n').take(2).collect();
    let once = text.replace(&apostrophe, "");
    let lines = once
        .replace("\n.br\n\n.br\n", "\n.sp\n")
        .replace("\n\n", "\n.sp\n");
    apostrophe + &lines.replace("\n.sp\n.br\n", "\n.sp\n")
}

fn paragraphs(roff: &mut Roff, texts: &[&str]) {
    for (n, text) in texts.iter().enumerate() {
        if n > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(*text)]);
    }
}

/// The commands, each with the name of its page.
fn commands(roff: &mut Roff, program: &Command) {
    roff.control("SH", ["COMMANDS"]);
    for verb in program.get_subcommands() {
        let about = verb.get_about().map(ToString::to_string);
        roff.control("TP", []);
        roff.text(reference(&format!("{NAME}-{}", verb.get_name()), 1));
        roff.text([roman(about.unwrap_or_default())]);
    }
}

fn table(roff: &mut Roff, title: &str, entries: &[Entry]) {
    if entries.is_empty() {
        return;
    }
    roff.control("SH", [title]);
    for (term, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(term)]);
        roff.text([roman(meaning)]);
    }
}

/// The variables that options come from, then the others.
fn environment(command: &Command, verb: Option<&str>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for argument in command.get_arguments() {
        if let (Some(name), Some(long)) = (argument.get_env(), argument.get_long()) {
            let meaning = format!("As --{long}, which comes first.");
            entries.push((name.to_string_lossy().into_owned(), meaning));
        }
    }
    entries.extend(sections::environment(verb));
    entries
}

fn examples(roff: &mut Roff, commands: &[&str]) {
    if commands.is_empty() {
        return;
    }
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for command in commands {
        roff.text([roman(*command)]);
    }
    roff.control("fi", []);
}

fn see_also(roff: &mut Roff, program: &Command, command: &Command) {
    roff.control("SH", ["SEE ALSO"]);
    let mut names = vec![(NAME.to_owned(), 1)];
    names.extend(
        program
            .get_subcommands()
            .map(|verb| (format!("{NAME}-{}", verb.get_name()), 1)),
    );
    let own = command.get_display_name().unwrap_or(NAME);
    names.retain(|(name, _)| name != own);
    names.extend([("ss".to_owned(), 8), ("tcp".to_owned(), 7)]);
    let mut line: Vec<Inline> = Vec::new();
    for (name, section) in names {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend(reference(&name, section));
    }
    roff.text(line);
    roff.control("PP", []);
    roff.text([roman(sections::DOCUMENTS)]);
}

/// `name(1)`
fn reference(name: &str, section: u8) -> Vec<Inline> {
    vec![bold(name), roman(format!("({section})"))]
}
