//! Connections that a test makes itself.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use synprobe_lab::{Client, Lab, PORT, Seen, settle};

/// An open whose application is told that it is connected, before `patience` ends.
pub fn connected(lab: &Lab, patience: Duration) -> Result<Client> {
    let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
    settle(
        [&mut client],
        &AtomicBool::new(false),
        Instant::now() + patience,
    )?;
    ensure!(client.seen == Seen::Connected, "{:?}", client.seen);
    Ok(client)
}
