//! What tests of the users of a status share.

use super::RunStatus;
use crate::{
    engine::{Engine, RunConfig},
    model::{Evidence, Problem, Start, WallClock},
    track::TrackConfig,
    util::table_bounds::TableBounds,
    verdict::{Mode, fixtures},
};

/// An engine that has seen nothing.
pub fn engine() -> Engine {
    let config = RunConfig {
        start: Start {
            version: "1.2.3".to_owned(),
            ..Start::default()
        },
        track: TrackConfig::fixture(
            TableBounds {
                half_opens: 1000,
                clients: 1000,
                peers: 1000,
                ..TableBounds::default()
            },
            1,
        ),
        sees_drops: true,
        window: None,
    };
    Engine::new(&config, Mode::AtOnce, WallClock::default())
}

/// Of a run that has seen nothing.
pub fn status() -> RunStatus {
    let engine = engine();
    RunStatus {
        snapshot: engine.summary(),
        at_ns: 1_000_000_000,
        clock: WallClock::default(),
        lines_lost: 0,
        not_recorded: None,
        judged: None,
        part: None,
    }
}

/// A problem with a name that another program chose.
pub fn problem(name: &str) -> Problem {
    Problem {
        netns_name: Some(name.into()),
        comm: Some(name.into()),
        evidence: vec![Evidence {
            fact: name.to_owned(),
            supports: true,
        }],
        remedy: Some(name.to_owned()),
        ..fixtures::problem()
    }
}
