//! Where packages are fetched from: the archives of this system's own apt, mirrors and all, and what
//! the command line says of others.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result};

use super::kernels::Archive;
use crate::workspace::output;

/// What the suites of security updates are called: the name of what they update, and this.
const SECURITY: &str = "-security";

/// Addresses of archives.
pub struct Addresses {
    given: BTreeMap<String, String>,
    /// This system's, of security updates and of everything else.
    security: Option<String>,
    main: Option<String>,
}

impl Addresses {
    /// Asks apt for its sources, of which there are none where there is no apt. What is `given`, archive
    /// and address, goes before.
    pub fn of_this_system(given: &[(String, String)]) -> Self {
        let mut apt = Command::new("apt-get");
        apt.args(["update", "--print-uris"]);
        Self::among(&output(&mut apt).unwrap_or_default(), given)
    }

    /// `uris`: what apt would fetch, quoted and first on each line; below `dists` are the suites.
    fn among(uris: &str, given: &[(String, String)]) -> Self {
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
    /// That names the option, where nobody has said it.
    pub fn of(&self, name: &str, archive: &Archive) -> Result<&str> {
        let systems = match archive.security {
            _ if !archive.system => None,
            true => self.security.as_deref(),
            false => self.main.as_deref(),
        };
        let given = self.given.get(name).map(String::as_str);
        given.or(systems).with_context(|| {
            format!(
                "where is archive {name:?}? No source of this system's apt: --archive {name}=URL"
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
        let addresses = Addresses::among(SOURCES, &[]);
        let main = addresses.of("debian", &archive(true, false))?;
        assert_eq!(main, "http://mirror.example/debian");
        let security = addresses.of("security", &archive(true, true))?;
        assert_eq!(security, "http://mirror.example/debian-security");
        Ok(())
    }

    #[test]
    fn what_the_system_does_not_know_is_given_or_asked_for() {
        let given = [("other".to_owned(), "http://other.example/".to_owned())];
        let addresses = Addresses::among(SOURCES, &given);
        let other = archive(false, false);
        assert_eq!(
            addresses.of("other", &other).ok(),
            Some("http://other.example/")
        );
        let error = addresses.of("third", &other).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.ends_with("--archive third=URL")));
        let none = Addresses::among("", &[]);
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
