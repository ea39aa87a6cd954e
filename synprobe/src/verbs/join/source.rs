//! A file to join: a recording or JSON lines, read as often as needed on a thread of its own.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use super::{
    super::{FAILED, Failure, USAGE},
    fact_stream::{FactStream, ReadReport, fact_stream},
    ndjson, panicked, recorded,
};
use crate::{sys::privileges, util::format};

/// What standard input is called in messages.
const STDIN: &str = "standard input";

/// See the module.
pub(super) struct JoinSource {
    path: PathBuf,
    /// Standard input or another pipe, kept: it is read twice.
    spooled: Option<File>,
    is_recording: bool,
    damage: ReadReport,
}

/// A reader's thread.
pub(super) struct SourceText(JoinHandle<Result<ReadReport, Failure>>);

impl SourceText {
    /// Waits for its end.
    pub(super) fn finish(self) -> Result<ReadReport, Failure> {
        self.0.join().unwrap_or_else(|_| Err(panicked()))
    }
}

impl JoinSource {
    /// Opens a file, and finds out what it is.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = name_of(path);
        let fails = |error: io::Error| Failure(format!("{name}: {error}"), USAGE);
        let keeps =
            |from: &mut dyn Read| spool(from).map_err(|e| Failure(format!("{name}: {e}"), FAILED));
        let spooled = match is_stdin(path) {
            true => Some(keeps(&mut io::stdin().lock())?),
            false => {
                let opened = privileges::as_the_caller(|| File::open(path)).flatten();
                let mut file = opened.map_err(fails)?;
                let is_pipe = file.metadata().map_err(fails)?.file_type().is_fifo();
                is_pipe.then(|| keeps(&mut file)).transpose()?
            }
        };
        let mut source = Self {
            path: path.to_owned(),
            spooled,
            is_recording: false,
            damage: None,
        };
        let mut beginning = [0; 512];
        let mut file = source.file().map_err(fails)?;
        let length = file.read(&mut beginning).map_err(fails)?;
        let first = beginning[..length]
            .iter()
            .find(|byte| !byte.is_ascii_whitespace());
        match first {
            None => {
                let name = source.name();
                return Err(Failure(format!("{name}: the file is empty"), USAGE));
            }
            Some(b'{') => (),
            Some(_) => source.is_recording = true,
        }
        Ok(source)
    }

    /// As it is called in messages.
    pub(super) fn name(&self) -> String {
        name_of(&self.path)
    }

    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    pub(super) fn take_report(&mut self, report: ReadReport) {
        self.damage = report;
    }

    fn file(&self) -> io::Result<File> {
        match &self.spooled {
            None => privileges::as_the_caller(|| File::open(&self.path)).flatten(),
            Some(spooled) => {
                let mut file = spooled.try_clone()?;
                file.seek(SeekFrom::Start(0))?;
                Ok(file)
            }
        }
    }

    /// Reads it from the beginning.
    pub(super) fn read(&self) -> Result<(FactStream, SourceText), Failure> {
        let (mut sink, stream) = fact_stream();
        let name = self.name();
        let file = self
            .file()
            .map_err(|e| Failure(format!("{name}: {e}"), USAGE))?;
        let is_recording = self.is_recording;
        let read = move || {
            let report = match is_recording {
                true => recorded::read(file, &name, &mut sink)?,
                false => ndjson::read(file, &name, &mut sink)?,
            };
            sink.flush();
            Ok(report)
        };
        let thread = std::thread::Builder::new()
            .name("read".into())
            .spawn(read)
            .map_err(|e| Failure(format!("a thread: {e}"), FAILED))?;
        Ok((stream, SourceText(thread)))
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn name_of(path: &Path) -> String {
    match is_stdin(path) {
        true => STDIN.to_owned(),
        false => format::safe(&path.to_string_lossy()).into_owned(),
    }
}

/// Copies a pipe into a file without a name.
fn spool(from: &mut dyn Read) -> io::Result<File> {
    let mut file = unnamed()?;
    io::copy(from, &mut file)?;
    Ok(file)
}

fn unnamed() -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    options
        .custom_flags(libc::O_TMPFILE)
        .open(std::env::temp_dir())
}
