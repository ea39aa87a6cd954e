//! The kernel side's own log, for who debugs it.

use super::Probes;

/// Sends it to the agent's log, on a task of the runtime that this is called in.
pub fn forward(probes: &mut Probes) {
    let logger = match aya_log::EbpfLogger::init(probes.ebpf()) {
        Ok(logger) => logger,
        Err(error) => return log::warn!("the kernel side's log cannot be read: {error}"),
    };
    // SAFETY: the logger's descriptor is the map's own, which it keeps open and never replaces.
    let Ok(mut logger) = (unsafe { tokio::io::unix::AsyncFd::register(logger) }) else {
        return;
    };
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}
