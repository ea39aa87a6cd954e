//! Connections of a test.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use synprobe_lab::{Client, ConnectState, Lab, PORT, settle};

/// Opens a connection that must succeed within `patience`.
pub fn connected(lab: &Lab, patience: Duration) -> Result<Client> {
    let mut client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
    settle(
        [&mut client],
        &AtomicBool::new(false),
        Instant::now() + patience,
    )?;
    ensure!(client.seen == ConnectState::Connected, "{:?}", client.seen);
    Ok(client)
}
