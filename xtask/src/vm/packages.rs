//! Kernels from packages. apt fetches and verifies them with a separate sources list and cache. Nothing is
//! installed, and the system's apt is unchanged; only its keys are used.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::machine::GuestMachine;
use crate::workspace::{output, run};

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Package name.
    pub package: String,
    /// Package version.
    pub version: String,
    /// Folder of its files.
    pub folder: PathBuf,
}

/// apt, restricted to one suite.
pub struct Suite {
    home: PathBuf,
    options: Vec<String>,
}

impl Suite {
    /// Fetches the lists of one suite of an archive into `cache`. `keys`: file of the signing keys; the
    /// system's keys unless given.
    ///
    /// # Errors
    ///
    /// When the archive cannot be reached, or its signature is not valid.
    pub fn fetch(
        cache: &Path,
        machine: GuestMachine,
        archive: &str,
        suite: &str,
        keys: Option<&Path>,
    ) -> Result<Self> {
        let architecture = machine.of_debian();
        let mut folder = suite.replace('/', "_");
        if machine != GuestMachine::Amd64 {
            folder = format!("{folder}.{architecture}");
        }
        let home = cache.join("suites").join(folder);
        for folder in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(home.join(folder))?;
        }
        let sources = home.join("sources.list");
        let keys = keys.map(|keys| format!(" signed-by={}", keys.display()));
        fs::write(
            &sources,
            format!(
                "deb [arch={architecture}{}] {archive} {suite} main\n",
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
            format!("APT::Architecture={architecture}"),
            // Of this system there may be others, which the archive does not have.
            format!("APT::Architectures={architecture}"),
            "APT::Sandbox::User=root".to_owned(),
            // An unmaintained suite does not change any more. Its signature is still checked.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::http::Timeout=30".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
            // A list that cannot be fetched is an error, not a warning.
            "APT::Update::Error-Mode=any".to_owned(),
        ];
        let options = options.iter().map(|o| format!("-o{o}")).collect();
        let suite = Self { home, options };
        let updated = suite.apt("apt-get").arg("update").output()?;
        if !updated.status.success() {
            let stderr = String::from_utf8_lossy(&updated.stderr);
            let errors: Vec<_> = stderr.lines().filter(|l| l.starts_with("E:")).collect();
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

    /// The newest package whose name matches the pattern, and its version.
    fn newest(&self, pattern: &str) -> Result<(String, String)> {
        let prefix = pattern.split('*').next().unwrap_or_default();
        let names = output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        let names: Vec<_> = names
            .lines()
            .filter(|name| matches(pattern, name))
            .collect();
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

    /// The names that are packages of the suite, each with apt's candidate version.
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

    /// Downloads and unpacks the newest matching package, and its modules where they are a separate package.
    ///
    /// # Errors
    ///
    /// When no package matches, or apt rejects it.
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
            bail!("apt-get download {package} wrote no file");
        };
        run(Command::new("dpkg").arg("-x").arg(&deb).arg(folder))?;
        fs::remove_file(deb)?;
        Ok(())
    }
}

/// Packages that may contain a kernel's modules.
fn modules_of(package: &str) -> Vec<String> {
    let rest = ["linux-binary-", "linux-image-unsigned-", "linux-image-"]
        .iter()
        .find_map(|prefix| package.strip_prefix(prefix));
    let kinds = ["linux-modules-", "linux-modules-extra-"];
    rest.map(|rest| kinds.map(|kind| format!("{kind}{rest}")).to_vec())
        .unwrap_or_default()
}

/// Matches a pattern in which `*` stands for any string.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            let Some(tail) = name.strip_prefix(head) else {
                return false;
            };
            (0..=tail.len())
                .filter(|at| tail.is_char_boundary(*at))
                .any(|at| matches(rest, &tail[at..]))
        }
    }
}

/// Compares versions as dpkg does.
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
    use super::matches;

    #[test]
    fn a_star_stands_for_anything() {
        let pattern = "linux-image-5.10.0-*-cloud-amd64";
        assert!(matches(pattern, "linux-image-5.10.0-46-cloud-amd64"));
        assert!(!matches(pattern, "linux-image-5.10.0-46-cloud-amd64-dbg"));
        assert!(!matches(pattern, "linux-image-6.1.0-46-cloud-amd64"));
        assert!(matches("a*b*c", "abxbc"));
        assert!(!matches("a*b*c", "abxb"));
        assert!(matches("plain", "plain"));
    }
}
