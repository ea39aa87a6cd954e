//! A process in a network namespace, for the namespace to be found by.

use std::process::{Child, Command};

use anyhow::{Context, Result};
use synprobe_lab::Ns;

/// It does nothing, and ends with the value.
pub struct Inhabitant(Child);

impl Inhabitant {
    /// A child is born where its parent's thread is. To move only then would leave it for long with
    /// copies of the descriptors that other tests have: it would own their listeners too.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or the process not be started.
    pub fn of(ns: &Ns) -> Result<Self> {
        ns.run(|| {
            Command::new("sleep")
                .arg("120")
                .spawn()
                .context("a process elsewhere")
        })
        .map(Self)
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
