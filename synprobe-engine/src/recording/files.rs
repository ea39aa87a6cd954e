//! Creates the files that recordings are written to.

use std::{
    ffi::CString,
    fs::{File, OpenOptions, Permissions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use super::folder::{FILE_MODE, segment_name};

/// Why a file was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The path is a folder.
    #[error("{} is a folder, not a file", .0.display())]
    IsFolder(PathBuf),
    /// The path is a symbolic link; it is not followed.
    #[error("{} is a symbolic link: name the file itself", .0.display())]
    IsLink(PathBuf),
    /// The path is a device, a pipe or a socket.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// The system refuses.
    #[error("cannot create {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Creates a file that only its owner can read and write, or empties an existing regular file.
///
/// # Errors
///
/// The path is no regular file, or the system refuses.
pub fn create(path: &Path) -> Result<File, CreateError> {
    let file = create_or_open(path)?;
    file.set_len(0).map_err(|source| CreateError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(file)
}

/// The same, and an existing file keeps its content for now.
///
/// # Errors
///
/// As [`create`].
pub fn create_or_open(path: &Path) -> Result<File, CreateError> {
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::EISDIR) => CreateError::IsFolder(path.to_owned()),
        Some(libc::ELOOP) => CreateError::IsLink(path.to_owned()),
        // A pipe without a reader.
        Some(libc::ENXIO) => CreateError::NotRegular(path.to_owned()),
        _ => CreateError::Io {
            path: path.to_owned(),
            source,
        },
    };
    // It is emptied only when it is known to be a regular file, and a pipe must not make this wait.
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(CreateError::NotRegular(path.to_owned()));
    }
    file.set_permissions(Permissions::from_mode(FILE_MODE))
        .map_err(failed)?;
    Ok(file)
}

/// Creates a file that is not there yet. It is written at its end, also after it was cut back.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
}

/// A folder that is held open: files are created in it later, whatever is at its path by then.
#[derive(Debug)]
pub struct HeldFolder {
    path: PathBuf,
    folder: OwnedFd,
    otherwise: Option<Box<HeldFolder>>,
}

impl HeldFolder {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// It is no folder, or the system refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_PATH)
            .open(&path)?;
        Ok(Self {
            folder: folder.into(),
            path,
            otherwise: None,
        })
    }

    /// The same; where it takes no file, `other` does.
    #[must_use]
    pub fn or(self, other: Option<Self>) -> Self {
        let otherwise = other.map(Box::new);
        Self { otherwise, ..self }
    }

    /// Creates a file for a recording that begins now, with the privileges of now; milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn create(&self, began_ms: i64) -> Result<(File, PathBuf), CreateError> {
        let name = format!("synprobe-{}", segment_name(began_ms));
        let path = self.path.join(&name);
        let created = CString::new(name)
            .map_err(io::Error::from)
            .and_then(|name| {
                let flags = libc::O_WRONLY
                    | libc::O_CREAT
                    | libc::O_EXCL
                    | libc::O_NOFOLLOW
                    | libc::O_CLOEXEC;
                // SAFETY: the descriptor is open and the name is alive for the call.
                let fd = unsafe {
                    libc::openat(self.folder.as_raw_fd(), name.as_ptr(), flags, FILE_MODE)
                };
                match fd {
                    0.. => Ok(fd),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        match created {
            // SAFETY: it was opened just now, and nobody else has it.
            Ok(fd) => Ok((unsafe { File::from_raw_fd(fd) }, path)),
            Err(source) => match &self.otherwise {
                // The error is that of the folder that was asked for.
                Some(other) => other
                    .create(began_ms)
                    .map_err(|_| CreateError::Io { path, source }),
                None => Err(CreateError::Io { path, source }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::recording::tests::TempFolder;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_may_read_a_recording() {
        let folder = TempFolder::new("create");
        let path = folder.path("a.synrec");
        create(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn an_existing_file_is_emptied_and_closed_to_others() {
        let folder = TempFolder::new("replace");
        let path = folder.path("a.synrec");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        create(&path).unwrap();
        assert_eq!((fs::read(&path).unwrap().len(), mode(&path)), (0, 0o600));
    }

    #[test]
    fn a_held_folder_takes_files_wherever_it_is() {
        let folder = TempFolder::new("held");
        let (before, after) = (folder.path("before"), folder.path("after"));
        fs::create_dir(&before).unwrap();
        let held = HeldFolder::open(&before).unwrap();
        fs::rename(&before, &after).unwrap();
        let (_, path) = held.create(0).unwrap();
        let name = "synprobe-19700101T000000.000Z.synrec";
        assert_eq!(path.file_name().unwrap(), name);
        assert_eq!(mode(&after.join(name)), 0o600);
        // Another's file is not written to.
        let again = held.create(0).unwrap_err().to_string();
        assert!(again.contains("File exists"), "{again}");
        let other = folder.path("other");
        fs::create_dir(&other).unwrap();
        let either = held.or(HeldFolder::open(&other).ok());
        assert_eq!(
            either.create(0).unwrap().1,
            other.canonicalize().unwrap().join(name)
        );
        let neither = either.create(0).unwrap_err().to_string();
        assert!(neither.contains("/before/"), "{neither}");
        assert!(HeldFolder::open(&after.join(name)).is_err());
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = TempFolder::new("refused");
        let path = folder.path("a.synrec");
        assert!(matches!(
            create(folder.root()),
            Err(CreateError::IsFolder(_))
        ));
        assert!(matches!(
            create(Path::new("/dev/null")),
            Err(CreateError::NotRegular(_))
        ));
        symlink("elsewhere", &path).unwrap();
        assert!(matches!(create(&path), Err(CreateError::IsLink(_))));
        assert!(!folder.path("elsewhere").exists());
        let missing = create(&folder.path("no/a.synrec")).unwrap_err();
        assert!(
            missing.to_string().starts_with("cannot create "),
            "{missing}"
        );
    }
}
