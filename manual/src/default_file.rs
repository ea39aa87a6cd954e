//! `/etc/default/synprobe`: every option of the service, commented out, with its default.

use clap::{Arg, Command};

use super::command;

const HEAD: &str = "\
# Options of the service synprobe, as of synprobe-serve(1): SYNPROBE_MAX_PEERS is --max-peers. An option that is not
# set here has its default. The service reads this file when it starts: systemctl restart synprobe
";

/// The file as the packages install it.
pub fn default_file() -> String {
    let program = command();
    let serve = program.find_subcommand("serve");
    let options = serve.into_iter().flat_map(Command::get_arguments);
    let mut text = HEAD.to_owned();
    for option in options {
        if let Some(name) = option.get_env() {
            text.push_str(&one(option, &name.to_string_lossy()));
        }
    }
    text
}

fn one(option: &Arg, name: &str) -> String {
    let help = option.get_help().map(ToString::to_string);
    let default = option.get_default_values().first();
    let values: Vec<String> = option
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    let mut comment = help.unwrap_or_default();
    if !values.is_empty() {
        comment = format!("{}: {}", comment.trim_end_matches('.'), values.join(", "));
    }
    let value = default.map(|value| value.to_string_lossy().into_owned());
    format!("\n# {comment}\n#{name}={}\n", value.unwrap_or_default())
}
