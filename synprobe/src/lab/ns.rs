//! A network namespace without a name: held by a descriptor, so it vanishes with the process
//! however that ends.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::{io, panic};

use anyhow::{Context, Result, anyhow};

use crate::netns::NetNs;

/// A network namespace of the lab.
#[derive(Debug)]
pub struct Ns {
    fd: OwnedFd,
    inode: u32,
    label: &'static str,
}

impl Ns {
    /// Makes an empty namespace; `label` is what error messages call it.
    pub fn new_anonymous(label: &'static str) -> Result<Self> {
        let opened = on_a_thread(|| {
            // SAFETY: unshare() takes no pointers; it moves only this short-lived thread.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error())
                    .context("making a network namespace (needs CAP_SYS_ADMIN)");
            }
            File::open("/proc/thread-self/ns/net").context("opening /proc/thread-self/ns/net")
        })?;
        let inode = opened
            .metadata()
            .context("reading the namespace's inode")?
            .ino();
        Ok(Self {
            fd: opened.into(),
            inode: u32::try_from(inode).context("the namespace's inode number")?,
            label,
        })
    }

    /// The namespace's inode number: what `netns` is in synprobe's output.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// The name given to it when it was made.
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// The namespace as the pipeline names it.
    pub fn netns(&self) -> Result<NetNs> {
        Ok(NetNs::from_fd(
            self.fd.try_clone().context("duplicating a descriptor")?,
        )?)
    }

    /// A descriptor of the namespace.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter_on_this_thread(&self) -> io::Result<()> {
        // SAFETY: setns() takes no pointers, and the descriptor is open.
        match unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. Sockets made there
    /// stay in the namespace, whichever thread uses them afterwards.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            self.enter_on_this_thread()
                .with_context(|| format!("entering the {} namespace", self.label))?;
            work()
        })
    }

    /// Sets `/proc/sys/net/<key>` inside the namespace.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| {
            fs::write(format!("/proc/sys/net/{key}"), value)
                .with_context(|| format!("setting net/{key} to {value} in {}", self.label))
        })
    }

    /// Likewise, for a setting that not every kernel has: false where it is missing.
    pub fn try_sysctl(&self, key: &str, value: &str) -> Result<bool> {
        match self.set_sysctl(key, value) {
            Ok(()) => Ok(true),
            Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Reads a file that shows the reader's own namespace, such as `net/tcp`, from
    /// `/proc/thread-self`.
    pub fn read_proc(&self, file: &str) -> Result<String> {
        self.run(|| {
            fs::read_to_string(format!("/proc/thread-self/{file}"))
                .with_context(|| format!("reading {file} in {}", self.label))
        })
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("lab".into())
            .spawn_scoped(scope, work)
            .map_err(|error| anyhow!("starting a thread: {error}"))?;
        thread
            .join()
            .unwrap_or_else(|cause| panic::resume_unwind(cause))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn has_only_loopback_and_its_own_settings() {
        let ns = Ns::new_anonymous("test").unwrap();
        let here = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_ne!(u64::from(ns.inode()), here);
        let devices = ns.read_proc("net/dev").unwrap();
        assert!(devices.contains("lo:") && !devices.contains("eth0:"));
        let before = fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries").unwrap();
        ns.set_sysctl("ipv4/tcp_syn_retries", "2").unwrap();
        assert_eq!(
            fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries").unwrap(),
            before
        );
        let inside = ns.run(|| Ok(fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries")?));
        assert_eq!(inside.unwrap().trim(), "2");
        assert!(!ns.try_sysctl("ipv4/no_such_setting", "1").unwrap());
    }
}
