//! Creates the files that recordings are written to.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Mode of every file: a recording names peers, processes and commands.
pub(super) const FILE_MODE: u32 = 0o600;
/// Mode of the folder of a rolling recording.
pub(super) const FOLDER_MODE: u32 = 0o700;

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
