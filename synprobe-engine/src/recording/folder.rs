//! The folder of a rolling recording: its lock, its segments and their names.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::EXTENSION;

/// Mode of every file: a recording names peers, processes and commands.
pub(super) const FILE_MODE: u32 = 0o600;
/// Mode of the folder of a rolling recording.
const FOLDER_MODE: u32 = 0o700;
/// The lock file's name. It holds the recorder's process id.
const LOCK: &str = "lock";
/// A segment's name: when it was begun, UTC. Names sort by time.
const NAME_FORMAT: &str = "%Y%m%dT%H%M%S.%3fZ";

/// Why a folder cannot hold a rolling recording, or has none.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another recorder has it.
    #[error("another recorder{} uses the folder {}", holder(*pid), path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// That recorder's process id; `None` where it cannot be read.
        pid: Option<u32>,
    },
    /// The path is something else.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// The system refuses.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The folder, or a file in it.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl FolderError {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// Creates the folder, closed to others, unless it is there.
pub(super) fn create_folder(path: &Path) -> Result<(), FolderError> {
    let created = DirBuilder::new().mode(FOLDER_MODE).create(path);
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(path).map_err(FolderError::io(path))?;
            if metadata.is_dir() {
                Ok(())
            } else {
                Err(FolderError::NotAFolder(path.to_owned()))
            }
        }
        other => other.map_err(FolderError::io(path)),
    }
}

/// Takes the folder's lock. It is held as long as the file is open, and ends with the process.
pub(super) fn lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join(LOCK);
    let failed = FolderError::io(&path);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(&failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Its owner may be about to write it: then it is not known.
            let _ = file.take(16).read_to_string(&mut pid);
            return Err(FolderError::Locked {
                path: folder.to_owned(),
                pid: pid.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(pid.as_bytes()))
        .map_err(failed)?;
    Ok(file)
}

/// Is a recorder at work in the folder?
pub(super) fn is_locked(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK)) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// A segment as the folder lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentFile {
    pub(super) path: PathBuf,
    /// When it was begun, milliseconds since 1970, as its name says.
    pub(super) began_ms: i64,
}

/// The segments of a folder, the oldest first. Other files are not looked at.
pub(super) fn segments(folder: &Path) -> Result<Vec<SegmentFile>, FolderError> {
    let failed = FolderError::io(folder);
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let began_ms = entry.file_name().to_str().and_then(began_ms);
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if let (Some(began_ms), true) = (began_ms, is_file) {
            let path = entry.path();
            segments.push(SegmentFile { path, began_ms });
        }
    }
    segments.sort_by_key(|segment| segment.began_ms);
    Ok(segments)
}

/// The name of a segment begun then.
pub(super) fn segment_name(began_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(began_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{}.{EXTENSION}", time.strftime(NAME_FORMAT))
}

fn began_ms(name: &str) -> Option<i64> {
    let stem = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S.%3fZ", stem).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    // What is not written as this program writes it belongs to someone else.
    (segment_name(time.as_millisecond()) == name).then(|| time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::tests::TempFolder;

    #[test]
    fn names_sort_by_time_and_are_read_back() {
        let name = segment_name(1_764_403_306_123);
        assert_eq!(name, "20251129T080146.123Z.synrec");
        assert_eq!(began_ms(&name), Some(1_764_403_306_123));
        assert!(segment_name(1_764_403_306_124) > name);
        for foreign in [
            "lock",
            "incident.synrec",
            "20251129T080146.1Z.synrec",
            "20251129T080146.123Z",
        ] {
            assert_eq!(began_ms(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_folder_has_one_recorder() {
        let folder = TempFolder::new("lock");
        let held = lock(folder.root()).unwrap();
        assert!(is_locked(folder.root()));
        let refused = lock(folder.root()).unwrap_err().to_string();
        let expected = format!(
            "another recorder (pid {}) uses the folder {}",
            std::process::id(),
            folder.root().display()
        );
        assert_eq!(refused, expected);
        drop(held);
        assert!(!is_locked(folder.root()));
        lock(folder.root()).unwrap();
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = TempFolder::new("folder");
        let path = folder.path("file");
        fs::write(&path, "").unwrap();
        assert!(matches!(
            create_folder(&path),
            Err(FolderError::NotAFolder(_))
        ));
        create_folder(&folder.path("new")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(folder.path("new")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o700);
    }
}
