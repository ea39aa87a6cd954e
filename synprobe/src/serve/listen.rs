//! The address that is listened on. The socket is bound before privileges are given up.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use thiserror::Error;

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// TCP.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("unix: needs a path, such as unix:/run/synprobe/http".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("\"{text}\" is not an address: give one such as 127.0.0.1:9823, [::1]:9823 or unix:PATH")
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {}", reason(.error, .address))]
pub struct BindError {
    address: ListenAddr,
    error: io::Error,
}

fn reason(error: &io::Error, address: &ListenAddr) -> String {
    match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => {
            "the address is in use: end the other program, or give another one with --listen"
                .to_owned()
        }
        (io::ErrorKind::AddrNotAvailable, _) => "this host does not have the address".to_owned(),
        (io::ErrorKind::NotFound, ListenAddr::Unix(_)) => "its folder does not exist".to_owned(),
        (io::ErrorKind::PermissionDenied, ListenAddr::Unix(_)) => {
            "its folder is not writable".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    pub(super) socket: Socket,
    /// What it is bound to.
    pub address: ListenAddr,
}

/// The socket itself.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Binds the address. A socket file that nobody serves any more is replaced.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        let failed = |error| BindError {
            address: address.clone(),
            error,
        };
        let (socket, address) = match address {
            ListenAddr::Tcp(wanted) => {
                let socket = TcpListener::bind(wanted).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                let bound = socket.local_addr().map_err(failed)?;
                (Socket::Tcp(socket), ListenAddr::Tcp(bound))
            }
            ListenAddr::Unix(path) => {
                let socket = bind_unix(path).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                (Socket::Unix(socket), ListenAddr::Unix(path.clone()))
            }
        };
        Ok(Self { socket, address })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let ListenAddr::Unix(path) = &self.address {
            // It may be gone already, or in a folder that is no longer writable.
            let _ = fs::remove_file(path);
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    // What is served names addresses and processes: for the owner and the group.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(bound)
}

/// Whether it is a socket to which nobody listens.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    is_socket
        && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |text: &str| ListenAddr::Tcp(text.parse().unwrap());
        assert_eq!("127.0.0.1:9823".parse(), Ok(tcp("127.0.0.1:9823")));
        assert_eq!("[::1]:80".parse(), Ok(tcp("[::1]:80")));
        assert_eq!("unix:/x".parse(), Ok(ListenAddr::Unix("/x".into())));
        for wrong in ["9823", "localhost:9823", "unix:", "", "127.0.0.1"] {
            assert!(wrong.parse::<ListenAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_in_use_is_refused_and_a_stale_socket_is_replaced() {
        let first = Bound::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Bound::bind(&first.address).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        let error = Bound::bind(&"192.0.2.1:1".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("does not have"), "{error}");

        let path = std::env::temp_dir().join(format!("synprobe-listen-{}", std::process::id()));
        let address = ListenAddr::Unix(path.clone());
        // Closed without a trace of its end: the file stays.
        drop(UnixListener::bind(&path).unwrap());
        let bound = Bound::bind(&address).unwrap();
        let error = Bound::bind(&address).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        assert!(path.exists());
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "no socket").unwrap();
        assert!(Bound::bind(&address).is_err() && path.exists());
        fs::remove_file(&path).unwrap();
        let error = Bound::bind(&ListenAddr::Unix("/nonexistent/x".into())).unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
}
