//! A process in a network namespace, so that the namespace can be found.

use std::process::{Child, Command};

use anyhow::{Context, Result};
use synprobe_lab::Ns;

/// A process that sleeps; dropping it kills the process.
pub struct NetnsProcess(Child);

impl NetnsProcess {
    /// Starts the process from a thread inside the namespace. If the child entered the namespace itself, it
    /// would hold copies of other tests' descriptors for longer, and appear to own their listeners.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or the process cannot be started.
    pub fn of(ns: &Ns) -> Result<Self> {
        ns.run(|| {
            Command::new("sleep")
                .arg("600")
                .spawn()
                .context("starting a process in a namespace")
        })
        .map(Self)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for NetnsProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
