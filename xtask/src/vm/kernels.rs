//! `tests/kernels.toml`: the kernels to boot.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::machine::GuestMachine;
use crate::workspace::root;

const LIST: &str = "tests/kernels.toml";

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    archives: BTreeMap<String, Archive>,
    #[serde(rename = "kernel")]
    pub kernels: Vec<Kernel>,
}

/// A package archive. Its address depends on this machine ([`super::archives`]).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The archive of the system's own packages.
    #[serde(default)]
    pub system: bool,
    /// Its security updates, which have a separate address.
    #[serde(default)]
    pub security: bool,
    /// Its keys, where the system does not have them.
    pub keys: Option<Keys>,
}

/// A package of keys, from an archive whose keys the system has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub archive: String,
    pub suite: String,
    pub package: String,
    /// Path in the package.
    pub file: String,
}

/// One kernel.
#[derive(Clone, Debug, Deserialize)]
pub struct Kernel {
    pub name: String,
    /// The machine that it is for.
    #[serde(default)]
    pub arch: GuestMachine,
    /// Only on request (`--all`, `--only`).
    #[serde(default)]
    pub on_demand: bool,
    /// Tests whose names contain one of these are left out, unless the command line names tests.
    #[serde(default)]
    pub skip: Vec<String>,
    #[serde(flatten)]
    pub source: KernelSource,
}

/// Source of a kernel.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum KernelSource {
    /// A package of a suite.
    Package {
        #[serde(default = "debian")]
        archive: String,
        suite: String,
        package: String,
    },
    /// A file.
    Path {
        image: PathBuf,
        modules: Option<PathBuf>,
    },
}

fn debian() -> String {
    "debian".to_owned()
}

impl List {
    /// Reads the file. Checks that names are valid and that every archive is defined.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string(root().join(LIST)).context(LIST)?;
        Self::parse(&text).context(LIST)
    }

    fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text)?;
        for kernel in &list.kernels {
            ensure!(
                !kernel.name.is_empty()
                    && kernel
                        .name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
                "not a name: {:?}",
                kernel.name
            );
            if let KernelSource::Package { archive, .. } = &kernel.source {
                list.archive(archive)?;
            }
        }
        for keys in list.archives.values().filter_map(|a| a.keys.as_ref()) {
            // Keys must come from an archive whose keys the system has.
            let archive = list.archive(&keys.archive)?;
            ensure!(archive.keys.is_none(), "{}: has no keys here", keys.archive);
        }
        Ok(list)
    }

    /// An archive by its name in the list.
    pub fn archive(&self, key: &str) -> Result<&Archive> {
        let archive = self.archives.get(key);
        archive.with_context(|| format!("no archive {key:?} in [archives]"))
    }
}

impl KernelSource {
    /// Resolves a path of the file relative to its folder.
    pub fn place(path: &PathBuf) -> PathBuf {
        root().join("tests").join(path)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::{KernelSource, List};

    #[test]
    fn the_list_in_the_tree_has_four_kernels_and_more() -> Result<()> {
        assert!(List::read()?.kernels.len() >= 4);
        Ok(())
    }

    #[test]
    fn a_kernel_may_be_a_path() -> Result<()> {
        let text = "[archives]\n[[kernel]]\nname = \"mine\"\nimage = \"/boot/vmlinuz\"\n";
        let list = List::parse(text)?;
        assert!(matches!(
            list.kernels[0].source,
            KernelSource::Path { modules: None, .. }
        ));
        Ok(())
    }

    #[test]
    fn keys_come_from_an_archive_with_known_keys() {
        let text = "[archives]\n\
                    a = { keys = { archive = \"a\", suite = \"s\", \
                    package = \"p\", file = \"f\" } }\n\
                    [[kernel]]\nname = \"k\"\narchive = \"a\"\nsuite = \"s\"\npackage = \"l\"\n";
        let error = List::parse(text).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(error, Err("a: has no keys here".to_owned()));
    }

    #[test]
    fn a_missing_archive_is_named() {
        let text = "[archives]\n[[kernel]]\nname = \"a\"\nsuite = \"sid\"\npackage = \"l\"\n";
        let error = List::parse(text).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(error, Err("no archive \"debian\" in [archives]".to_owned()));
    }
}
