//! Two ends of one connect: the lines of two hosts, joined handshake by handshake.
//!
//! From one end, "no answer" has three explanations; with both there is one. The core does no I/O: it takes
//! the [`fact`]s of two sides as iterators, twice. The first pass ([`survey`]) finds what each side covers and
//! the offset of their [`clock`]s. The second ([`joiner`]) goes through both in the order of one clock and gives
//! [`pair`]s. Memory is bounded: a sample for the clocks, and tables of what waits for its other end.
//!
//! No direction of loss without testimony of both ends: [`coverage`] says when a side can testify, [`judge`]
//! weighs what both have seen, and [`silence`] what it means that one has seen nothing.

pub mod clock;
pub mod connects;
pub mod context;
pub mod coverage;
pub mod crossed;
mod crossing;
pub mod fact;
pub mod joiner;
pub mod judge;
pub mod pair;
pub mod problems;
pub mod refusals;
mod segment_times;
mod segments;
mod silence;
pub mod survey;
mod waiting;

use clock::{ClockModel, OffsetInterval};
use survey::{ClockSample, SideSurvey};

/// The clocks of two sides, from the handshakes that both samples have.
pub fn clocks(client: &SideSurvey, server: &SideSurvey) -> ClockModel {
    let common = client.client.common(&server.server);
    let intervals: Vec<OffsetInterval> = common.iter().map(interval).collect();
    ClockModel::of(&intervals)
}

/// Whether the first file is the server's and the second the client's: then each has what the other lacks.
pub fn are_swapped(client: &SideSurvey, server: &SideSurvey) -> bool {
    client.client.common(&server.server).is_empty()
        && !server.client.common(&client.server).is_empty()
}

/// The first SYN is sent before the first SYN-ACK, that one before the client is connected, and the client is
/// connected before the server is.
fn interval((client, server): &(ClockSample, ClockSample)) -> OffsetInterval {
    let before = client
        .began_ns
        .zip(server.began_ns)
        .map(|(syn, syn_ack)| syn_ack + server.error_ns - (syn - client.error_ns));
    let connected = (client.established && server.established).then(|| server.at_ns - client.at_ns);
    OffsetInterval {
        at_ns: client.at_ns,
        lowest_ns: server
            .began_ns
            .filter(|_| client.established)
            .map(|syn_ack| syn_ack - server.error_ns - client.at_ns),
        highest_ns: match (before, connected) {
            (Some(before), Some(connected)) => Some(before.min(connected)),
            (one, other) => one.or(other),
        },
    }
}
