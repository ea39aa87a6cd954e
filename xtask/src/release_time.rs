//! The time that everything of a release bears, so that two builds of one commit are the same.

use std::{env, process::Command};

use anyhow::{Context, Result};

use crate::workspace::{output, root};

/// Seconds since 1970: `SOURCE_DATE_EPOCH`, or the time of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseTime(u64);

impl ReleaseTime {
    /// The time of the checked out commit.
    ///
    /// # Errors
    ///
    /// When there is no commit and no `SOURCE_DATE_EPOCH`.
    pub fn of_commit() -> Result<Self> {
        let seconds =
            match env::var("SOURCE_DATE_EPOCH") {
                Ok(seconds) => seconds,
                Err(_) => output(Command::new("git").current_dir(root()).args([
                    "log",
                    "-1",
                    "--format=%ct",
                ]))
                .context("this is no git checkout: set SOURCE_DATE_EPOCH")?,
            };
        let parsed = seconds.trim().parse();
        Ok(Self(parsed.with_context(|| {
            format!("\"{seconds}\" is no time in seconds")
        })?))
    }

    /// Seconds since 1970, in decimal.
    pub fn seconds(self) -> String {
        self.0.to_string()
    }

    /// `2026-01-31`, in UTC.
    ///
    /// # Errors
    ///
    /// When date(1) fails.
    pub fn date(self) -> Result<String> {
        self.formatted("+%F")
    }

    /// `Sat, 31 Jan 2026 12:00:00 +0000`, for Debian's changelog.
    ///
    /// # Errors
    ///
    /// When date(1) fails.
    pub fn rfc2822(self) -> Result<String> {
        self.formatted("+%a, %d %b %Y %T +0000")
    }

    fn formatted(self, format: &str) -> Result<String> {
        output(Command::new("date").env("LC_ALL", "C").args([
            "-u",
            "-d",
            &format!("@{}", self.0),
            format,
        ]))
    }
}
