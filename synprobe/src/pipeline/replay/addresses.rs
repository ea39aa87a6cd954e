//! The addresses of a recorded host.

use std::{collections::BTreeSet, net::IpAddr};

use super::Recording;
use crate::{
    engine::Input,
    recording::{
        Item,
        inputs::{Decoded, InputDecoder},
    },
};

/// The addresses of the namespaces that the recorded run watched; loopback ones are left out.
pub fn recorded_addresses(recording: Recording) -> Vec<IpAddr> {
    let Recording {
        mut reader, config, ..
    } = recording;
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
    all.into_iter().collect()
}
