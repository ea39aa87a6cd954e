//! Man pages, shell completions and help texts, from the one definition of the command line. A crate of its own:
//! the agent's binary does not contain the generators, and xtask builds without the agent.

mod default_file;
mod pages;
mod sections;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use synprobe::cli::{Cli, with_environment};

pub use default_file::default_file;
pub use pages::{ManPage, pages};

/// The program's name.
const NAME: &str = "synprobe";

/// The command line with everything that clap derives: names of the commands' pages, `--help`, the variables of
/// `serve`. Without the command `help`, which repeats the others.
pub fn command() -> Command {
    let mut command = with_environment(Cli::command()).disable_help_subcommand(true);
    command.build();
    command
}

/// A completion script, and the file name under which its shell looks for it.
pub struct Completion {
    /// The shell's name: `bash`, `zsh` or `fish`.
    pub shell: &'static str,
    /// The file's name.
    pub file_name: &'static str,
    /// The script.
    pub text: Vec<u8>,
}

/// The completion scripts.
pub fn completions() -> Vec<Completion> {
    let shells = [
        (Shell::Bash, "bash", "synprobe"),
        (Shell::Zsh, "zsh", "_synprobe"),
        (Shell::Fish, "fish", "synprobe.fish"),
    ];
    shells
        .into_iter()
        .map(|(generator, shell, file_name)| {
            let mut text = Vec::new();
            // The command `help` completes the names of the others.
            generate(generator, &mut Cli::command(), NAME, &mut text);
            Completion {
                shell,
                file_name,
                text,
            }
        })
        .collect()
}

/// What `-h` prints, for the program and for each command, one after the other.
pub fn help() -> String {
    let mut command = with_environment(Cli::command());
    // The width does not depend on a terminal.
    command = command.term_width(100);
    command.build();
    let mut all = String::new();
    let mut show = |command: &mut Command| {
        let name = command.get_bin_name().unwrap_or(NAME).to_owned();
        let text = command.render_help().to_string();
        all.push_str(&format!("$ {name} -h\n{}\n\n", text.trim_end()));
    };
    show(&mut command);
    for verb in command.get_subcommands_mut() {
        if verb.get_name() != "help" {
            show(verb);
        }
    }
    // clap pads lines with spaces.
    let lines: Vec<&str> = all.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}
