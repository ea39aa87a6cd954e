//! The kernel side's own log, for debugging.

use super::Probes;

/// Forwards it to the agent's log, in a task of the current runtime.
pub fn forward(probes: &mut Probes) {
    let logger = match aya_log::EbpfLogger::init(probes.ebpf()) {
        Ok(logger) => logger,
        Err(error) => return log::warn!("cannot read the kernel side's log: {error}"),
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
