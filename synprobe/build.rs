//! Compresses the committed eBPF object (`cargo xtask ebpf`), which the agent embeds.

use std::{env, error::Error, fs, path::Path};

/// The object, from this folder.
const OBJECT: &str = "bpf/synprobe.bpf.o";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={OBJECT}");
    let folder = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let object = fs::read(OBJECT).map_err(|error| format!("{OBJECT}: {error}"))?;
    let compressed = lz4_flex::block::compress_prepend_size(&object);
    fs::write(Path::new(&folder).join("synprobe.bpf.o.lz4"), compressed)?;
    Ok(())
}
