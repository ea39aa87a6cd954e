//! The kernel modules that the tests need, in load order. Each module names its dependencies (`.modinfo`), so
//! no index is needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Modules that the lab, the tests and sock_diag need. Those that a kernel has built in, or does not have,
/// are skipped.
const WANTED: &[&str] = &[
    "veth",
    "dummy",
    "vmxnet3",
    "inet_diag",
    "tcp_diag",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_chain_nat",
    "nft_reject_inet",
    "nft_tproxy",
    "nft_counter",
];

/// One uncompressed module.
pub struct Module {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The needed modules, dependencies first.
pub fn needed(folder: &Path) -> Result<Vec<Module>> {
    let mut there = BTreeMap::new();
    collect(folder, &mut there)?;
    let mut loading = Loading {
        there,
        seen: BTreeSet::new(),
        order: Vec::new(),
    };
    for name in WANTED {
        if loading.there.contains_key(*name) {
            loading.need(name)?;
        }
    }
    Ok(loading.order)
}

struct Loading {
    there: BTreeMap<String, PathBuf>,
    seen: BTreeSet<String>,
    order: Vec<Module>,
}

impl Loading {
    fn need(&mut self, name: &str) -> Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self
            .there
            .get(name)
            .with_context(|| format!("no module {name}, which another depends on"))?;
        let bytes = plain(path).with_context(|| path.display().to_string())?;
        for other in depends(&bytes) {
            self.need(&other)?;
        }
        self.order.push(Module {
            name: name.to_owned(),
            bytes,
        });
        Ok(())
    }
}

/// Collects files by module name. Module names have `_` where file names may have `-`.
fn collect(folder: &Path, there: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, there)?;
            continue;
        }
        let file = entry.file_name();
        if let Some((stem, ending)) = file.to_str().and_then(|name| name.split_once(".ko"))
            && ["", ".xz", ".zst", ".gz"].contains(&ending)
        {
            there.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn plain(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return Ok(fs::read(path)?),
    };
    let output = Command::new(tool)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("{tool} is needed to unpack modules"))?;
    ensure!(
        output.status.success(),
        "{tool}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// The dependencies in `.modinfo`: zero-terminated strings, one of them `depends=a,b`.
fn depends(module: &[u8]) -> Vec<String> {
    static KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let module = b"\x7fELF..\0license=GPL\0depends=nf_tables,nf-nat\0retpoline=Y\0";
        assert_eq!(depends(module), ["nf_tables", "nf_nat"]);
        assert!(depends(b"x\0depends=\0y").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
