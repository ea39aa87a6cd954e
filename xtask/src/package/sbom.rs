//! The software bill of materials, in CycloneDX 1.5, by cargo-cyclonedx.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    Release,
    licences::{self, CrateVersion},
};
use crate::workspace::{cargo, output, root};

/// The version that the packages are made with.
const VERSION: &str = "0.5.9";
/// The file that the tool writes beside the manifest of each member.
const SCRATCH: &str = "synprobe-sbom-scratch";

/// Writes it into the output folder and returns its path.
///
/// # Errors
///
/// When cargo-cyclonedx is not installed, or names less than what is linked.
pub fn write(release: &Release) -> Result<PathBuf> {
    let install = format!("cargo install cargo-cyclonedx --version {VERSION} --locked");
    let installed = output(Command::new(cargo()).args(["cyclonedx", "--version"]));
    let installed = installed.with_context(|| format!("the SBOM needs: {install}"))?;
    ensure!(
        installed.ends_with(VERSION),
        "{installed}, but packages are made with {VERSION}: {install}"
    );
    let target = release.processor.target();
    let made = output(
        Command::new(cargo())
            .current_dir(root())
            .env("SOURCE_DATE_EPOCH", release.time.seconds())
            .args(["cyclonedx", "--manifest-path", "synprobe/Cargo.toml"])
            .args([
                "--format",
                "json",
                "--spec-version",
                "1.5",
                "--no-build-deps",
                "-q",
            ])
            .args(["--override-filename", SCRATCH, "--target", target]),
    );
    let file = root().join(format!("synprobe/{SCRATCH}.json"));
    let text = fs::read_to_string(&file);
    remove_scratch()?;
    made?;
    let text = text.with_context(|| file.display().to_string())?;
    let linked = licences::linked(target)?;
    let text = narrowed(&without_root(&text)?, &linked)?;
    let name = format!(
        "synprobe-{}-{}.cdx.json",
        release.version,
        release.processor.of_kernel()
    );
    let file = release.output.join(name);
    fs::write(&file, text)?;
    Ok(file)
}

/// The tool writes one for each member of the workspace.
fn remove_scratch() -> Result<()> {
    let has_scratch = |folder: &Path| folder.join(format!("{SCRATCH}.json"));
    for entry in fs::read_dir(root())? {
        let file = has_scratch(&entry?.path());
        if file.exists() {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// Without the folder of the tree, which is another one on each machine. The tool writes it as in an URL (`%20`).
fn without_root(text: &str) -> Result<String> {
    let bom: Value = serde_json::from_str(text)?;
    let own = reference(&bom["metadata"]["component"]);
    let path = own.strip_prefix("path+file://");
    let root = path.and_then(|path| path.split_once("/synprobe#"));
    let (root, _) = root.with_context(|| format!("{own} is no path of the tree"))?;
    Ok(text.replace(&format!("file://{root}"), "file://"))
}

/// The tool unites the features of the whole workspace, so it names crates of the tests. Only what is linked stays.
fn narrowed(text: &str, linked: &BTreeSet<CrateVersion>) -> Result<String> {
    let mut bom: Value = serde_json::from_str(text)?;
    let own = of(&bom["metadata"]["component"]);
    let mut kept = BTreeSet::new();
    let mut references = BTreeSet::from([reference(&bom["metadata"]["component"])]);
    let components = bom["components"].as_array_mut().context("no components")?;
    components.retain(|component| {
        let crate_version = of(component);
        let stays = linked.contains(&crate_version);
        if stays {
            references.insert(reference(component));
            kept.insert(crate_version);
        }
        stays
    });
    let missing: Vec<_> = linked
        .difference(&kept)
        .filter(|one| **one != own)
        .collect();
    ensure!(missing.is_empty(), "the SBOM does not name {missing:?}");
    let dependencies = bom["dependencies"]
        .as_array_mut()
        .context("no dependencies")?;
    dependencies.retain(|one| references.contains(one["ref"].as_str().unwrap_or_default()));
    for one in dependencies {
        if let Some(on) = one["dependsOn"].as_array_mut() {
            on.retain(|on| references.contains(on.as_str().unwrap_or_default()));
        }
    }
    Ok(serde_json::to_string_pretty(&bom)? + "\n")
}

fn of(component: &Value) -> CrateVersion {
    let text = |key: &str| component[key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("version"))
}

fn reference(component: &Value) -> String {
    component["bom-ref"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_no_folder_of_this_machine() {
        let text = r#"{"metadata": {"component": {"bom-ref": "path+file:///a%20b/c/synprobe#0.1.0"}},
            "components": [{"bom-ref": "path+file:///a%20b/c/synprobe-common#0.1.0"}]}"#;
        let text = without_root(text).unwrap_or_default();
        assert!(
            text.contains("\"path+file:///synprobe-common#0.1.0\""),
            "{text}"
        );
        assert!(!text.contains("a%20b"), "{text}");
        assert!(without_root(r#"{"metadata": {"component": {"bom-ref": "A"}}}"#).is_err());
    }

    /// What is linked stays, with its edges; what is not goes.
    #[test]
    fn narrows_to_what_is_linked() {
        let text = r#"{"metadata": {"component": {"name": "a", "version": "1", "bom-ref": "A"}},
            "components": [{"name": "b", "version": "1", "bom-ref": "B"},
                           {"name": "c", "version": "1", "bom-ref": "C"}],
            "dependencies": [{"ref": "A", "dependsOn": ["B", "C"]}, {"ref": "C"}, {"ref": "B"}]}"#;
        let linked = |names: &[&str]| {
            let pairs = names
                .iter()
                .map(|name| ((*name).to_owned(), "1".to_owned()));
            pairs.collect::<BTreeSet<CrateVersion>>()
        };
        let bom: Value = narrowed(text, &linked(&["a", "b"]))
            .and_then(|text| Ok(serde_json::from_str(&text)?))
            .unwrap_or_default();
        assert_eq!(bom["components"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            bom["dependencies"][0]["dependsOn"],
            serde_json::json!(["B"])
        );
        assert_eq!(bom["dependencies"].as_array().map(Vec::len), Some(2));
        assert!(narrowed(text, &linked(&["a", "b", "d"])).is_err());
    }
}
