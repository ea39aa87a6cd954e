//! Opens what may be a namespace, and nothing else: a path from the command line may lead to a FIFO or a device, and
//! opening those has effects.

use std::{
    fs::{File, OpenOptions},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use super::NetnsError;
use crate::sys::privileges;

/// `NSFS_MAGIC` (include/uapi/linux/magic.h), the file system of namespaces.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Opens a file of nsfs. Any other file is only looked at (O_PATH).
pub(super) fn nsfs_file(path: &Path) -> Result<OwnedFd, NetnsError> {
    let failed = |source: io::Error| {
        let path = path.to_path_buf();
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH | libc::ENOTDIR) => NetnsError::NoPath { path },
            Some(libc::EACCES | libc::EPERM) => NetnsError::Denied { path, source },
            _ => NetnsError::Open { path, source },
        }
    };
    let looked_at = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .map_err(failed)?;
    if !is_on_nsfs(&looked_at).map_err(failed)? {
        return Err(NetnsError::NotANamespace {
            path: path.to_path_buf(),
        });
    }
    // The same file, whatever the path leads to by now.
    let link = format!("/proc/self/fd/{}", looked_at.as_raw_fd());
    Ok(File::open(link).map_err(failed)?.into())
}

fn is_on_nsfs(file: &File) -> io::Result<bool> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and fstatfs() fills the structure where it returns 0.
    match unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } {
        // SAFETY: as above. The type of the number differs between C libraries.
        0 => Ok(unsafe { stat.assume_init() }.f_type as u64 == NSFS_MAGIC),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a path says nothing that a pid or a name does not: `/proc/PID/ns/net`.
pub(super) fn shows_no_more(path: &Path) -> bool {
    let pid = path
        .to_str()
        .and_then(|path| path.strip_prefix("/proc/")?.strip_suffix("/ns/net"));
    pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
}

/// As [`nsfs_file`], with the caller's own rights: with those of a file's capabilities (setcap) the path would tell which
/// files exist in folders that the caller may not read.
pub(super) fn as_the_caller(path: &Path) -> Result<OwnedFd, NetnsError> {
    let opened = privileges::as_the_caller(|| nsfs_file(path));
    opened.map_err(|source| NetnsError::Open {
        path: path.to_path_buf(),
        source,
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue20_a_fifo_is_looked_at_and_not_opened() {
        let path = std::env::temp_dir().join(format!("synprobe-fifo-{}", std::process::id()));
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path ends with a NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let error = nsfs_file(&path).unwrap_err();
        // A writer finds no reader: nobody has opened it.
        let writer = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(error, NetnsError::NotANamespace { .. }), "{error}");
        assert_eq!(writer.unwrap_err().raw_os_error(), Some(libc::ENXIO));
    }

    #[test]
    fn a_process_path_says_no_more_than_a_pid() {
        for (path, no_more) in [
            ("/proc/1/ns/net", true),
            ("/proc//ns/net", false),
            ("/proc/self/ns/net", false),
            ("/proc/1/../../root/x/ns/net", false),
            ("/proc/1/fd/3", false),
            ("/root/secret", false),
        ] {
            assert_eq!(shows_no_more(Path::new(path)), no_more, "{path}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn issue20_without_capabilities_no_foreign_folder_is_read() {
        let folder = std::env::temp_dir().join(format!("synprobe-closed-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("secret"), "").unwrap();
        std::os::unix::fs::chown(&folder, Some(12_345), None).unwrap();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let without = |path: &Path| privileges::without_capabilities(|| nsfs_file(path)).unwrap();
        let looked = |name| without(&folder.join(name)).unwrap_err();
        let (there, not_there) = (looked("secret"), looked("nothing"));
        let direct = nsfs_file(&folder.join("secret")).unwrap_err();
        let own = without(Path::new("/proc/self/ns/net"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(there, NetnsError::Denied { .. }), "{there}");
        assert!(
            matches!(not_there, NetnsError::Denied { .. }),
            "{not_there}"
        );
        assert!(
            matches!(direct, NetnsError::NotANamespace { .. }),
            "{direct}"
        );
        assert!(own.is_ok());
    }
}
