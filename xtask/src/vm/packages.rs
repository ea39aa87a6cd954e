//! Kernels from packages: apt fetches and verifies them, with a sources list, lists and a cache of
//! our own. Nothing is installed, and of the system's apt nothing is touched; its keys are used.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{output, run};

/// A kernel's package, unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Name of the package, and its version.
    pub package: String,
    pub version: String,
    /// Where its files are.
    pub folder: PathBuf,
}

/// apt as it sees one suite and nothing else.
pub struct Suite {
    home: PathBuf,
    options: Vec<String>,
}

impl Suite {
    /// Fetches the lists of one suite of an archive into `cache`. `keys`: a file of the keys that may
    /// have signed them, the system's own unless given.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, or is not what its keys say.
    pub fn fetch(cache: &Path, archive: &str, suite: &str, keys: Option<&Path>) -> Result<Self> {
        let home = cache.join("suites").join(suite.replace('/', "_"));
        for folder in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(home.join(folder))?;
        }
        let sources = home.join("sources.list");
        let keys = keys.map(|keys| format!(" signed-by={}", keys.display()));
        fs::write(
            &sources,
            format!(
                "deb [arch=amd64{}] {archive} {suite} main\n",
                keys.unwrap_or_default()
            ),
        )?;
        let place = |path: &str| home.join(path).display().to_string();
        let options = [
            format!("Dir::Etc::SourceList={}", sources.display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", place("lists")),
            "Dir::State::Status=/dev/null".to_owned(),
            format!("Dir::Cache={}", place("cache")),
            "APT::Architecture=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            // A suite that is no longer maintained stays as it is; its signature is still checked.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::http::Timeout=30".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
            // A list that could not be fetched is an error and not a warning.
            "APT::Update::Error-Mode=any".to_owned(),
        ];
        let options = options.iter().map(|o| format!("-o{o}")).collect();
        let suite = Self { home, options };
        let updated = suite.apt("apt-get").arg("update").output()?;
        if !updated.status.success() {
            let said = String::from_utf8_lossy(&updated.stderr);
            let errors: Vec<_> = said.lines().filter(|l| l.starts_with("E:")).collect();
            bail!("apt-get update: {}: {}", updated.status, errors.join("; "));
        }
        Ok(suite)
    }

    fn apt(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command
            .args(&self.options)
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .current_dir(self.home.join("debs"));
        command
    }

    /// The newest package whose name fits the pattern, and its version.
    fn newest(&self, pattern: &str) -> Result<(String, String)> {
        let prefix = pattern.split('*').next().unwrap_or_default();
        let names = output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        let names: Vec<_> = names.lines().filter(|name| fits(pattern, name)).collect();
        let mut best: Option<(String, String)> = None;
        for (name, version) in self.candidates(&names)? {
            let newer = match &best {
                None => true,
                Some((_, best)) => compare(&version, best)? == Ordering::Greater,
            };
            if newer {
                best = Some((name, version));
            }
        }
        best.with_context(|| format!("no package {pattern} in this suite"))
    }

    /// Those of the names that the suite has a package of, each with the version that apt would take.
    fn candidates(&self, names: &[&str]) -> Result<Vec<(String, String)>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let policy = output(self.apt("apt-cache").arg("policy").args(names))?;
        let mut candidates = Vec::new();
        let mut package = None;
        for line in policy.lines() {
            if let Some(name) = line.strip_suffix(':').filter(|n| !n.starts_with(' ')) {
                package = Some(name);
            } else if let Some(version) = line.trim().strip_prefix("Candidate: ")
                && let Some(name) = package.take()
                && version != "(none)"
            {
                candidates.push((name.to_owned(), version.to_owned()));
            }
        }
        Ok(candidates)
    }

    /// Downloads the newest package that fits, with its modules where those are a package of their
    /// own, and unpacks them.
    ///
    /// # Errors
    ///
    /// When there is none, or apt does not accept it.
    pub fn unpack(&self, pattern: &str) -> Result<Unpacked> {
        let (package, version) = self.newest(pattern)?;
        let folder = self.home.join(format!("{package}_{version}"));
        let whole = folder.join(".whole");
        if !whole.exists() {
            self.unpack_one(&package, &folder)?;
            let modules = modules_of(&package);
            let modules: Vec<_> = modules.iter().map(String::as_str).collect();
            for (modules, _) in self.candidates(&modules)? {
                self.unpack_one(&modules, &folder)?;
            }
            fs::write(&whole, "")?;
        }
        Ok(Unpacked {
            package,
            version,
            folder,
        })
    }

    fn unpack_one(&self, package: &str, folder: &Path) -> Result<()> {
        let debs = self.home.join("debs");
        let found = |debs: &Path| -> Result<Option<PathBuf>> {
            for entry in fs::read_dir(debs)? {
                let path = entry?.path();
                let name = path
                    .file_name()
                    .and_then(|n| n.to_str())
                    .unwrap_or_default();
                if name.starts_with(&format!("{package}_")) {
                    return Ok(Some(path));
                }
            }
            Ok(None)
        };
        output(self.apt("apt-get").args(["--quiet", "download", package]))?;
        let Some(deb) = found(&debs)? else {
            bail!("apt-get download {package} left no file");
        };
        run(Command::new("dpkg").arg("-x").arg(&deb).arg(folder))?;
        fs::remove_file(deb)?;
        Ok(())
    }
}

/// Packages in which the modules of a kernel's package may be, where they are not in it.
fn modules_of(package: &str) -> Vec<String> {
    let rest = ["linux-binary-", "linux-image-unsigned-", "linux-image-"]
        .iter()
        .find_map(|prefix| package.strip_prefix(prefix));
    let kinds = ["linux-modules-", "linux-modules-extra-"];
    rest.map(|rest| kinds.map(|kind| format!("{kind}{rest}")).to_vec())
        .unwrap_or_default()
}

/// `*` stands for anything, also for nothing.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            let Some(tail) = name.strip_prefix(head) else {
                return false;
            };
            (0..=tail.len())
                .filter(|at| tail.is_char_boundary(*at))
                .any(|at| fits(rest, &tail[at..]))
        }
    }
}

/// As dpkg compares versions.
fn compare(a: &str, b: &str) -> Result<Ordering> {
    for (relation, ordering) in [
        ("lt", Ordering::Less),
        ("eq", Ordering::Equal),
        ("gt", Ordering::Greater),
    ] {
        let mut command = Command::new("dpkg");
        command.args(["--compare-versions", a, relation, b]);
        let status = command.status()?;
        ensure!(status.code().is_some(), "dpkg --compare-versions: {status}");
        if status.success() {
            return Ok(ordering);
        }
    }
    bail!("dpkg cannot compare {a} with {b}")
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_anything() {
        let pattern = "linux-image-5.10.0-*-cloud-amd64";
        assert!(fits(pattern, "linux-image-5.10.0-46-cloud-amd64"));
        assert!(!fits(pattern, "linux-image-5.10.0-46-cloud-amd64-dbg"));
        assert!(!fits(pattern, "linux-image-6.1.0-46-cloud-amd64"));
        assert!(fits("a*b*c", "abxbc"));
        assert!(!fits("a*b*c", "abxb"));
        assert!(fits("plain", "plain"));
    }
}
