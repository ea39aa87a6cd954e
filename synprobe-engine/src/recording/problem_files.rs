//! Recordings that are cut because a problem opened, in the folder of a rolling recording. They stay when its
//! segments go: the newest of them, bounded in number and size.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{CutError, EXTENSION, FolderError, cut, folder::segments};

/// What their names begin with.
const PREFIX: &str = "problem-";
/// When they were cut, UTC. Names sort by time.
const TIME_FORMAT: &str = "%Y%m%dT%H%M%S.%3fZ";
/// What a file takes is counted in units of this, bytes.
const FS_BLOCK: u64 = 4096;

/// See the module.
#[derive(Clone, Debug)]
pub struct ProblemFiles {
    folder: PathBuf,
    most: usize,
    most_bytes: u64,
}

/// One of them.
struct ProblemFile {
    path: PathBuf,
    bytes: u64,
}

impl ProblemFiles {
    /// At most `most` files (at least one), which take `most_bytes` at most, beside the segments of `folder`.
    pub fn new(folder: &Path, most: usize, most_bytes: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            most: most.max(1),
            most_bytes,
        }
    }

    /// Cuts what the segments hold now into a file, and removes the oldest ones that are too many or too large
    /// with it. `verdict`: that of the problem; `realtime_ns`: the time, nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// The folder cannot be read, or the file cannot be written; it is then removed.
    pub fn cut(&self, realtime_ns: i64, verdict: &str) -> Result<PathBuf, CutError> {
        let held = segments(&self.folder)?;
        let held: u64 = held.iter().map(|segment| occupied(&segment.path)).sum();
        self.prune(self.most - 1, self.most_bytes.saturating_sub(held))?;
        let path = self.folder.join(name(realtime_ns, verdict));
        let made = cut(&self.folder, None, &path);
        if let Err(error) = made {
            // It would only be in the way.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        // The segments may have grown meanwhile.
        self.prune(self.most, self.most_bytes)?;
        Ok(path)
    }

    /// Removes the oldest until at most `most` are left, of `bytes` together.
    fn prune(&self, most: usize, bytes: u64) -> Result<(), FolderError> {
        let mut files = self.list()?;
        let mut sum: u64 = files.iter().map(|file| file.bytes).sum();
        let too_many = |left: usize, sum: u64| left > most || sum > bytes;
        let mut left = files.len();
        for file in files.drain(..) {
            if !too_many(left, sum) {
                break;
            }
            match fs::remove_file(&file.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FolderError::Io {
                        path: file.path,
                        source: error,
                    });
                }
                _ => (),
            }
            (left, sum) = (left - 1, sum - file.bytes);
        }
        Ok(())
    }

    /// Those of earlier runs included, the oldest first.
    fn list(&self) -> Result<Vec<ProblemFile>, FolderError> {
        let failed = |source| FolderError::Io {
            path: self.folder.clone(),
            source,
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let is_one = entry.file_name().to_str().is_some_and(is_problem_file);
            if is_file && is_one {
                let path = entry.path();
                let bytes = occupied(&path);
                files.push(ProblemFile { path, bytes });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

/// What a file takes on disk; one that is gone takes nothing.
fn occupied(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len().next_multiple_of(FS_BLOCK))
}

fn name(realtime_ns: i64, verdict: &str) -> String {
    let time = jiff::Timestamp::from_nanosecond(realtime_ns.into());
    let time = time.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!(
        "{PREFIX}{}-{verdict}.{EXTENSION}",
        time.strftime(TIME_FORMAT)
    )
}

/// Whether a name is one that this program gives: `problem-20261129T080146.123Z-refused.synrec`.
fn is_problem_file(name: &str) -> bool {
    let stem = name
        .strip_prefix(PREFIX)
        .and_then(|name| name.strip_suffix(EXTENSION));
    let Some((time, verdict)) = stem.and_then(|stem| stem.strip_suffix('.')?.split_once('-'))
    else {
        return false;
    };
    let is_time = jiff::civil::DateTime::strptime(TIME_FORMAT, time).is_ok();
    let is_verdict = |c: char| c.is_ascii_lowercase() || c == '-';
    is_time && !verdict.is_empty() && verdict.chars().all(is_verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::tests::TempFolder;

    #[test]
    fn names_sort_by_time_and_others_are_left_alone() {
        let first = name(1_764_403_306_123_000_000, "refused");
        assert_eq!(first, "problem-20251129T080146.123Z-refused.synrec");
        assert!(name(1_764_403_306_124_000_000, "filtered") > first);
        assert!(is_problem_file(&first));
        for foreign in [
            "20251129T080146.123Z.synrec",
            "problem-of-monday.synrec",
            "problem-20251129T080146.123Z-.synrec",
            "problem-20251129T080146.123Z-refused",
        ] {
            assert!(!is_problem_file(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_oldest_go_beyond_either_bound() {
        let folder = TempFolder::new("problems");
        let files = ProblemFiles::new(folder.root(), 3, 5 * FS_BLOCK);
        let names: Vec<String> = (0..5).map(|n| name(n * 1_000_000_000, "refused")).collect();
        for (n, name) in names.iter().enumerate() {
            // The last one takes two blocks.
            fs::write(folder.path(name), vec![0; 4000 + n * 30]).unwrap();
        }
        fs::write(folder.path("problem-mine.synrec"), "").unwrap();
        let left = || {
            let all = files.list().unwrap().into_iter();
            all.map(|file| file.path).collect::<Vec<_>>()
        };
        files.prune(files.most, files.most_bytes).unwrap();
        assert_eq!(left(), [2, 3, 4].map(|n| folder.path(&names[n])));
        files.prune(3, 3 * FS_BLOCK).unwrap();
        assert_eq!(left(), [3, 4].map(|n| folder.path(&names[n])));
        files.prune(3, FS_BLOCK).unwrap();
        assert!(left().is_empty());
        assert!(folder.path("problem-mine.synrec").exists());
        // Nothing to cut from: no file is left behind.
        assert!(files.cut(1, "refused").is_err() && left().is_empty());
    }
}
