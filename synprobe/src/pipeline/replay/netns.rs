//! The namespace that a name stood for on the recorded host.

use std::{collections::BTreeMap, path::Path};

use super::{Recording, ReplayError};
use crate::{
    engine::Input,
    recording::{
        Item,
        inputs::{Decoded, InputDecoder},
    },
};

/// The inode of the namespace with that name on the recorded host.
pub(super) fn namespace(file: &Path, name: &str) -> Result<u32, ReplayError> {
    let mut names = BTreeMap::new();
    let Recording { mut reader, .. } = Recording::open(file)?;
    let mut decoder = InputDecoder::default();
    while let Some(item) = reader.next_item() {
        if let Item::Frame { frame, .. } = item
            && let Some(Decoded::Input(Input::NetnsName(inode, known))) = decoder.frame(frame)
        {
            names.insert(inode, known);
        }
    }
    let by_number = name
        .parse::<u32>()
        .ok()
        .filter(|inode| names.contains_key(inode));
    let by_name = names
        .iter()
        .find(|(_, known)| known.as_deref() == Some(name))
        .map(|(inode, _)| *inode);
    by_number.or(by_name).ok_or_else(|| {
        let known: Vec<String> = names
            .iter()
            .map(|(inode, name)| {
                name.as_deref()
                    .map_or_else(|| inode.to_string(), str::to_owned)
            })
            .collect();
        ReplayError::NoNetns {
            name: name.to_owned(),
            known: match known.is_empty() {
                true => "none".to_owned(),
                false => known.join(", "),
            },
        }
    })
}
