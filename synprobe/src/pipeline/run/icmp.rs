//! ICMP errors, read from the sockets that the poller opened.

use super::Run;
use crate::pipeline::icmp_errors::drain;

impl Run {
    /// Feeds the errors of all namespaces.
    pub(super) fn drain_icmp(&mut self) {
        let (core, buffer) = (&mut self.core, &mut self.icmp_buffer);
        for errors in self.icmp.values() {
            drain(errors, buffer, &mut |input| core.feed(input));
        }
    }

    /// The same, of one namespace: what a failure costs does not grow with the namespaces in which nothing happens.
    pub(super) fn drain_icmp_of(&mut self, netns: u32) {
        let (core, buffer) = (&mut self.core, &mut self.icmp_buffer);
        if let Some(errors) = self.icmp.get(&netns) {
            drain(errors, buffer, &mut |input| core.feed(input));
        }
    }
}
