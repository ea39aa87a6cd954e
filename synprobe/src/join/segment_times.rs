//! Times of both ends of one handshake on one clock.

use super::{context::JoinContext, fact::SideHandshake};

/// What a segment may take beyond the error of the clocks, nanoseconds.
pub(super) const WAY_NS: i64 = 200_000_000;
/// The same where the clocks are not known: an answer repeats after a second at the soonest.
const UNKNOWN_WAY_NS: i64 = 400_000_000;

/// Times of the server on the client's clock.
pub(super) struct ToClient {
    shift_ns: i64,
    /// How far a time may be off, and a segment on its way.
    pub(super) margin_ns: i64,
}

impl ToClient {
    /// From the clocks; where they are not known, from the half-open: it began with a SYN, of which the last
    /// possible one is taken.
    pub(super) fn of(
        client: &SideHandshake,
        servers: &[SideHandshake],
        missing: u32,
        context: &JoinContext<'_>,
    ) -> Option<Self> {
        if let Some(clock) = context.clock.at(client.at_ns) {
            let margin_ns = clock.error_ns.saturating_mul(2).saturating_add(WAY_NS);
            let shift_ns = within(clock.offset_ns, client, servers);
            return Some(Self {
                shift_ns,
                margin_ns,
            });
        }
        let first_ns = servers.first()?.began_ns()?;
        let syn_ns = match missing {
            0 => client.began_ns()?,
            missing => client.repeats.get(missing as usize - 1)?.at_ns,
        };
        Some(Self {
            shift_ns: first_ns - syn_ns,
            margin_ns: UNKNOWN_WAY_NS,
        })
    }

    pub(super) fn at(&self, server_ns: i64) -> i64 {
        server_ns - self.shift_ns
    }
}

/// The offset as near to the estimate as this handshake itself allows: no segment is seen before it is sent.
fn within(offset_ns: i64, client: &SideHandshake, servers: &[SideHandshake]) -> i64 {
    let first = servers.first();
    let first_ns = first.and_then(SideHandshake::began_ns);
    let connected = servers
        .iter()
        .find(|s| s.is_established())
        .filter(|_| client.is_established());
    let most = [
        first_ns
            .zip(client.began_ns())
            .map(|(syn_ack, syn)| syn_ack - syn),
        connected.map(|s| s.at_ns - client.at_ns),
    ];
    let least = first_ns
        .filter(|_| client.is_established())
        .map(|syn_ack| syn_ack - client.at_ns);
    let offset_ns = most.into_iter().flatten().fold(offset_ns, i64::min);
    least.map_or(offset_ns, |least| offset_ns.max(least))
}

/// Microseconds since the first SYN.
pub(super) fn us_since(at_ns: i64, began_ns: i64) -> i64 {
    (at_ns - began_ns).div_euclid(1000)
}
