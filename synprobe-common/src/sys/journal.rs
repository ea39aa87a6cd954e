//! Messages on standard error. Where the journal reads them, each begins with its priority (sd-daemon(3)).

use std::{env, fs::File, io, os::fd::AsFd, os::unix::fs::MetadataExt, sync::OnceLock};

use super::{patient, terminal};
use crate::util::{fill::fill, format};

/// How urgent a message is, in the levels of syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// The run fails.
    Error,
    /// The run goes on, and something is missing.
    Warning,
    /// Nothing is wrong.
    Info,
    /// For developers.
    Debug,
}

impl Priority {
    /// What a line of this priority begins with: `<4>` where the journal reads standard error, else nothing.
    pub fn prefix(self) -> &'static str {
        match (journal_reads(), self) {
            (false, _) => "",
            (true, Self::Error) => "<3>",
            (true, Self::Warning) => "<4>",
            (true, Self::Info) => "<6>",
            (true, Self::Debug) => "<7>",
        }
    }
}

/// Prints one line on standard error; on a terminal, as many as it takes. What is hazardous there is escaped.
pub fn message(priority: Priority, text: &str) {
    patient::message(&format!(
        "{}{}\n",
        priority.prefix(),
        laid_out("synprobe: ", text)
    ));
}

/// The same without the name of the program: for who sits before the terminal.
pub fn note(text: &str) {
    patient::message(&format!("{}\n", laid_out("", text)));
}

/// Prints lines that are laid out already, as they are: a page beside standard output.
pub fn lines(text: &str) {
    patient::message(text);
}

/// The text behind `first`, escaped. On a terminal no line breaks in the middle of a word.
pub fn laid_out(first: &str, text: &str) -> String {
    match terminal::columns(&io::stderr()) {
        Some(columns) => fill(first, "  ", text, columns).join("\n"),
        None => format!("{first}{}", format::safe(text)),
    }
}

/// Whether standard error is a stream of the journal. Found out once: descriptors do not change.
pub fn journal_reads() -> bool {
    static READS: OnceLock<bool> = OnceLock::new();
    *READS.get_or_init(|| {
        let Ok(stream) = env::var("JOURNAL_STREAM") else {
            return false;
        };
        stderr_file().is_ok_and(|file| stream == file)
    })
}

/// Standard error in the form of JOURNAL_STREAM: device and inode, in decimal (systemd.exec(5)). A process whose
/// standard error was redirected inherits the variable, but has another file there.
fn stderr_file() -> io::Result<String> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned()?).metadata()?;
    Ok(format!("{}:{}", file.dev(), file.ino()))
}
