//! The files of a package, as a folder that is laid out like the root of a system.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::source;
use crate::workspace::root;

/// The options of the service; the administrator's file.
pub const CONFIGURATION: &str = "/etc/default/synprobe";
/// The folder of the documents.
pub const DOCUMENTS: &str = "usr/share/doc/synprobe";

/// What was built before.
pub struct Content<'a> {
    /// The static binary.
    pub binary: &'a Path,
    /// What `cargo xtask man` has written.
    pub manual: &'a Path,
    /// The SBOM.
    pub sbom: &'a Path,
    /// The licence texts of what is linked into the binary.
    pub third_party: &'a str,
}

/// A folder that becomes a package.
pub struct Staging(pub PathBuf);

impl Staging {
    /// What both kinds of package have. `zsh`: the folder of zsh's completions, which is not the same everywhere.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written.
    pub fn new(folder: PathBuf, content: &Content<'_>, zsh: &str) -> Result<Self> {
        let staging = Self(folder);
        let manual = |name: &str| {
            let path = content.manual.join(name);
            fs::read(&path).with_context(|| path.display().to_string())
        };
        staging.put("usr/bin/synprobe", &fs::read(content.binary)?, 0o755)?;
        for entry in fs::read_dir(content.manual.join("man1"))? {
            let page = entry?;
            let name = page.file_name().to_string_lossy().into_owned();
            let path = format!("usr/share/man/man1/{name}");
            staging.put_compressed(&path, &fs::read(page.path())?)?;
        }
        let completions = [
            ("bash/synprobe", "usr/share/bash-completion/completions"),
            ("zsh/_synprobe", zsh),
            ("fish/synprobe.fish", "usr/share/fish/vendor_completions.d"),
        ];
        for (script, folder) in completions {
            let name = script.rsplit('/').next().unwrap_or(script);
            staging.put(&format!("{folder}/{name}"), &manual(script)?, 0o644)?;
        }
        let unit = "usr/lib/systemd/system/synprobe.service";
        staging.put(unit, unit_file()?.as_bytes(), 0o644)?;
        let configuration = CONFIGURATION.trim_start_matches('/');
        staging.put(configuration, &manual("synprobe.default")?, 0o644)?;
        let rules = source("deploy/prometheus/synprobe.rules.yml")?;
        staging.put(
            "usr/share/synprobe/prometheus/synprobe.rules.yml",
            &rules,
            0o644,
        )?;
        staging.documents()?;
        let document = |name: &str| format!("{DOCUMENTS}/{name}");
        staging.put_compressed(&document("synprobe.cdx.json"), &fs::read(content.sbom)?)?;
        let texts = content.third_party.as_bytes();
        staging.put_compressed(&document("third-party.txt"), texts)?;
        let library = super::licences::standard_library()?;
        staging.put_compressed(&document("rust-standard-library.html"), &library)?;
        Ok(staging)
    }

    fn documents(&self) -> Result<()> {
        for entry in fs::read_dir(root().join("docs"))? {
            let path = entry?.path();
            // The pictures are the README's, for who reads it on a page.
            if path.is_dir() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.put(&format!("{DOCUMENTS}/{name}"), &fs::read(&path)?, 0o644)?;
        }
        for name in ["README.md", "README.zh-CN.md", "SECURITY.md"] {
            self.put(&format!("{DOCUMENTS}/{name}"), &source(name)?, 0o644)?;
        }
        Ok(())
    }

    /// Writes one file.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.0.join(path);
        let mut folder = path.parent().unwrap_or(&path).to_owned();
        fs::create_dir_all(&folder)?;
        // Whatever the umask.
        while folder.starts_with(&self.0) {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
            folder.pop();
        }
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Writes one file with gzip, without a name and a time in it. `.gz` is added to the path.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put_compressed(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.put(&format!("{path}.gz"), &gzip(bytes)?, 0o644)
    }

    /// The files, sorted, as paths from the root.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path();
                    let below = path.strip_prefix(&self.0)?;
                    files.push(format!("/{}", below.display()));
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

/// The unit, with the path of the packages.
fn unit_file() -> Result<String> {
    let text = String::from_utf8(source("deploy/synprobe.service")?)?;
    let (by_hand, packaged) = ("ExecStart=/usr/local/bin/", "ExecStart=/usr/bin/");
    ensure!(
        text.contains(by_hand),
        "deploy/synprobe.service has no {by_hand}"
    );
    // How to install it by hand, at its head.
    let lines = text.lines().filter(|line| {
        !line.contains("/usr/local/bin/ &&") && !line.contains("cp synprobe.service")
    });
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let text = text.replace(
        "# What each line is for: docs/privileges.md.",
        "# What each line is for: privileges.md.",
    );
    Ok(text.replace(by_hand, packaged))
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["-9", "-n", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("gzip")?;
    let mut stdin = child.stdin.take().context("gzip's standard input")?;
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let ended = child.wait_with_output()?;
    ensure!(ended.status.success(), "gzip: {}", ended.status);
    match writer.join() {
        Ok(written) => written?,
        Err(_) => anyhow::bail!("gzip: its input was not written"),
    }
    Ok(ended.stdout)
}
