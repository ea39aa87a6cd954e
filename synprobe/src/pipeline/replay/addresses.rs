//! The addresses of a recorded host.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use super::{Recording, ReplayError};
use crate::{
    engine::Input,
    recording::{
        Item,
        inputs::{Decoded, InputDecoder},
    },
};

/// The addresses of the namespaces that the recorded run watched; loopback ones are left out.
///
/// # Errors
///
/// [`ReplayError`]: it is no recording that this version reads.
pub fn recorded_addresses(file: &Path) -> Result<Vec<IpAddr>, ReplayError> {
    let Recording {
        mut reader, config, ..
    } = Recording::open(file)?;
    let watched = config.selection().netns;
    let (mut decoder, mut all) = (InputDecoder::default(), BTreeSet::new());
    while let Some(item) = reader.next_item() {
        if let Item::Frame { frame, .. } = item
            && let Some(Decoded::Input(Input::Addresses(netns, addresses))) = decoder.frame(frame)
            && watched.is_none_or(|watched| watched.contains(&netns))
        {
            all.extend(addresses.into_iter().filter(|a| !a.is_loopback()));
        }
    }
    Ok(all.into_iter().collect())
}
