//! `tests/kernels.toml`: which kernels there are to boot.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

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

/// Where packages come from: its address is this machine's to know ([`super::archives`]).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The one that the system's own packages come from.
    #[serde(default)]
    pub system: bool,
    /// Its security updates, which have an address of their own.
    #[serde(default)]
    pub security: bool,
    /// Where its keys are to be had, if the system's own are not those.
    pub keys: Option<Keys>,
}

/// A package of keys, out of an archive whose keys are here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub archive: String,
    pub suite: String,
    pub package: String,
    /// In the package.
    pub file: String,
}

/// One kernel.
#[derive(Clone, Debug, Deserialize)]
pub struct Kernel {
    pub name: String,
    /// Only when it is asked for.
    #[serde(default)]
    pub on_demand: bool,
    #[serde(flatten)]
    pub source: Source,
}

/// Where it comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Source {
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
    /// Reads it; every archive that is named is there, and every name is one.
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
            if let Source::Package { archive, .. } = &kernel.source {
                list.archive(archive)?;
            }
        }
        for keys in list.archives.values().filter_map(|a| a.keys.as_ref()) {
            // Trust begins with keys that are here.
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

impl Source {
    /// A path of the file, from its folder.
    pub fn place(path: &PathBuf) -> PathBuf {
        root().join("tests").join(path)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::{List, Source};

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
            Source::Path { modules: None, .. }
        ));
        Ok(())
    }

    #[test]
    fn trust_begins_with_keys_that_are_here() {
        let text = "[archives]\n\
                    a = { keys = { archive = \"a\", suite = \"s\", \
                    package = \"p\", file = \"f\" } }\n\
                    [[kernel]]\nname = \"k\"\narchive = \"a\"\nsuite = \"s\"\npackage = \"l\"\n";
        let error = List::parse(text).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(error, Err("a: has no keys here".to_owned()));
    }

    #[test]
    fn an_archive_that_is_not_there_is_named() {
        let text = "[archives]\n[[kernel]]\nname = \"a\"\nsuite = \"sid\"\npackage = \"l\"\n";
        let error = List::parse(text).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(error, Err("no archive \"debian\" in [archives]".to_owned()));
    }
}
