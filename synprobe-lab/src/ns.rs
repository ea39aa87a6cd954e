//! The lab's namespaces. They have no name; a descriptor holds them, so they vanish with the process.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result};
use synprobe_common::sys::{
    netns::{NetNs, NetnsError},
    sysctl::set_sysctl,
};

/// A network namespace of the lab.
#[derive(Clone, Debug)]
pub struct Ns {
    netns: NetNs,
    label: &'static str,
}

impl Ns {
    /// Makes an empty namespace; error messages use `label`.
    pub fn new_anonymous(label: &'static str) -> Result<Self, NetnsError> {
        NetNs::new_anonymous().map(|netns| Self { netns, label })
    }

    /// The namespace in the form that the pipeline uses.
    pub fn netns(&self) -> NetNs {
        self.netns.clone()
    }

    /// The namespace's inode number, `netns` in synprobe's output.
    pub fn inode(&self) -> u32 {
        self.netns.inode()
    }

    /// The label of the namespace.
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// A descriptor of the namespace.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Moves the calling thread into the namespace permanently.
    pub fn enter_on_this_thread(&self) -> io::Result<()> {
        self.netns.enter_on_this_thread()
    }

    /// Runs `work` on a separate thread inside the namespace and waits for it. Sockets made there remain
    /// in the namespace, whichever thread uses them.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.netns
            .run(work)
            .with_context(|| format!("entering the {} namespace", self.label))?
    }

    /// Sets `/proc/sys/net/<key>` inside the namespace.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        set_sysctl(&self.netns, &format!("net/{key}"), value)
            .with_context(|| format!("setting net/{key} to {value} in {}", self.label))
    }

    /// As [`Ns::set_sysctl`], but returns false where this kernel does not have the setting.
    pub fn try_sysctl(&self, key: &str, value: &str) -> Result<bool> {
        match self.set_sysctl(key, value) {
            Ok(()) => Ok(true),
            Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Reads a file below `/proc/thread-self` inside the namespace, such as `net/tcp`.
    pub fn read_proc(&self, file: &str) -> Result<String> {
        self.run(|| {
            fs::read_to_string(format!("/proc/thread-self/{file}"))
                .with_context(|| format!("reading {file} in {}", self.label))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

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
