//! Addresses of package archives: those of this system's apt, and those on the command line.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result};

use super::kernels::Archive;
use crate::workspace::output;

/// Suffix of the suites of security updates.
const SECURITY: &str = "-security";

/// Addresses of archives.
pub struct Addresses {
    given: BTreeMap<String, String>,
    /// This system's addresses of security updates and of the main archive.
    security: Option<String>,
    main: Option<String>,
}

impl Addresses {
    /// Asks apt for its sources; there are none without apt. `given` addresses take precedence.
    pub fn of_this_system(given: &[(String, String)]) -> Self {
        let mut apt = Command::new("apt-get");
        apt.args(["update", "--print-uris"]);
        Self::parse_uris(&output(&mut apt).unwrap_or_default(), given)
    }

    /// `uris`: what apt would fetch, quoted and first on each line. The suites are below `dists`.
    fn parse_uris(uris: &str, given: &[(String, String)]) -> Self {
        let source = |line: &'_ str| {
            let (address, file) = line.strip_prefix('\'')?.split_once("/dists/")?;
            let (suite, _) = file.split_once("/InRelease'")?;
            Some((suite.to_owned(), address.to_owned()))
        };
        let sources: Vec<_> = uris.lines().filter_map(source).collect();
        let address = |suite: &str| {
            let same = sources.iter().find(|(name, _)| name == suite);
            same.map(|(_, address)| address.clone())
        };
        let updated = sources.iter().find_map(|(s, _)| s.strip_suffix(SECURITY));
        Self {
            given: given.iter().cloned().collect(),
            security: updated.and_then(|updated| address(&format!("{updated}{SECURITY}"))),
            main: updated.and_then(address),
        }
    }

    /// The address of an archive of `tests/kernels.toml`.
    ///
    /// # Errors
    ///
    /// Where the address is unknown; the error names the option.
    pub fn of(&self, name: &str, archive: &Archive) -> Result<&str> {
        let systems = match archive.security {
            _ if !archive.system => None,
            true => self.security.as_deref(),
            false => self.main.as_deref(),
        };
        let given = self.given.get(name).map(String::as_str);
        given.or(systems).with_context(|| {
            format!(
                "the address of archive {name:?} is unknown to this system's apt: --archive {name}=URL"
            )
        })
    }
}

/// `NAME=URL`, from the command line.
pub fn parse(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() && url.contains("://") => {
            Ok((name.to_owned(), url.to_owned()))
        }
        _ => Err("not NAME=URL".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &str = "\
        'https://tools.example/apt/dists/nodistro/InRelease' tools.example_InRelease 0 \n\
        'http://mirror.example/debian/dists/trixie/InRelease' mirror.example_InRelease 0 \n\
        'http://mirror.example/debian/dists/trixie/main/binary-amd64/Packages.xz' Packages 0 \n\
        'http://mirror.example/debian/dists/trixie-updates/InRelease' mirror.example_InRelease 0 \n\
        'http://mirror.example/debian-security/dists/trixie-security/InRelease' security_InRelease 0 \n";

    fn archive(system: bool, security: bool) -> Archive {
        Archive {
            system,
            security,
            keys: None,
        }
    }

    #[test]
    fn the_system_s_own_mirror_is_used() -> Result<()> {
        let addresses = Addresses::parse_uris(SOURCES, &[]);
        let main = addresses.of("debian", &archive(true, false))?;
        assert_eq!(main, "http://mirror.example/debian");
        let security = addresses.of("security", &archive(true, true))?;
        assert_eq!(security, "http://mirror.example/debian-security");
        Ok(())
    }

    #[test]
    fn an_unknown_address_must_be_given() {
        let given = [("other".to_owned(), "http://other.example/".to_owned())];
        let addresses = Addresses::parse_uris(SOURCES, &given);
        let other = archive(false, false);
        assert_eq!(
            addresses.of("other", &other).ok(),
            Some("http://other.example/")
        );
        let error = addresses.of("third", &other).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.ends_with("--archive third=URL")));
        let none = Addresses::parse_uris("", &[]);
        assert!(none.of("debian", &archive(true, false)).is_err());
    }

    #[test]
    fn an_archive_on_the_command_line_has_a_name_and_an_address() {
        assert!(parse("ubuntu=http://mirror.example/ubuntu").is_ok());
        for wrong in ["", "ubuntu", "=http://x", "ubuntu=mirror"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
