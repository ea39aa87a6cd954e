//! Removes the DWARF from an object and keeps the BTF.
//!
//! BTF is generated from DWARF, so the build produces both. Four fifths of the object are DWARF, which the
//! agent does not need. No LLVM tool is required to remove it.

use anyhow::Result;
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// The object without its `.debug*` sections and their relocations and symbols.
///
/// # Errors
///
/// When it is not an ELF file.
pub fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        if name.starts_with(b".debug") || name.starts_with(b".rel.debug") {
            section.delete = true;
        }
    }
    // Symbols and relocations of the removed sections.
    builder.delete_orphans();
    // LLVM stores section names with symbol names; the writer needs a separate section.
    let has_names = |data: &SectionData<'_>| matches!(data, SectionData::SectionString);
    if !builder.sections.iter().any(|s| has_names(&s.data)) {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = elf::SHT_STRTAB;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dwarf_is_removed() {
        let committed =
            std::fs::read(crate::ebpf::folder().join("synprobe.bpf.o")).expect("the object");
        let stripped = without_dwarf(&committed).expect("an ELF file");
        let sections = |object: &[u8]| -> Vec<(Vec<u8>, u32)> {
            let builder = Builder::read(object).expect("an ELF file");
            let kept = builder.sections.iter();
            kept.map(|s| (s.name.to_vec(), s.sh_type)).collect()
        };
        let names = sections(&stripped);
        for name in [&b".BTF"[..], b".BTF.ext", b"maps", b".rodata", b"license"] {
            assert!(names.iter().any(|(n, _)| n == name), "{names:?}");
        }
        assert!(!names.iter().any(|(n, _)| n.starts_with(b".debug")));
        // Stripping is idempotent.
        assert_eq!(without_dwarf(&stripped).expect("an ELF file"), stripped);
    }

    #[test]
    fn a_file_that_is_no_object_is_an_error() {
        assert!(without_dwarf(b"").is_err());
        assert!(without_dwarf(&[0x7f; 200]).is_err());
    }
}
