//! The routes of packets that this host drops or forwards, and of the answers to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::SocketAddr,
    time::Duration,
};

use super::{messages::LookUps, watched_netns::WatchedNetns};
use crate::{
    diag::{
        inet_diag_msg::{Row, mask},
        nat,
        route::Routes,
        route_info::{RouteInfo, RouteKind},
        sock_diag::Query,
    },
    model::{DestinationQuestion, Hop, PathQuestion, ReturnPath, RouteAnswer, RouteQuestion},
    sys::clock::CpuTimer,
    util::addresses::printable,
};

/// Answers what was asked for between two rounds. What is about a namespace that is not open is left to the next one.
pub(super) fn between_rounds(
    watched: &mut HashMap<u32, WatchedNetns>,
    paths: Vec<PathQuestion>,
    routes: Vec<RouteQuestion>,
) -> LookUps {
    let timer = CpuTimer::begin();
    let (paths, later_paths): (Vec<_>, Vec<_>) = paths
        .into_iter()
        .partition(|q| watched.contains_key(&q.netns));
    let (routes, later_routes): (Vec<_>, Vec<_>) = routes
        .into_iter()
        .partition(|q| watched.contains_key(&q.netns));
    let mut found = LookUps {
        paths: self::paths(watched, &paths),
        routes: look_up(watched, &routes),
        later_paths,
        later_routes,
        took: Duration::ZERO,
    };
    found.took = timer.took();
    found
}

/// Paths whose namespace is watched, and which exist.
pub(super) fn paths(
    watched: &mut HashMap<u32, WatchedNetns>,
    wanted: &[PathQuestion],
) -> Vec<(PathQuestion, ReturnPath)> {
    let mut found = Vec::new();
    for path in wanted {
        let routes = watched
            .get_mut(&path.netns)
            .and_then(|watched| watched.routes.as_mut());
        let Some(routes) = routes else { continue };
        let Ok(Some(route)) = routes.route(path.peer, Some(path.local)) else {
            continue;
        };
        let mac = routes.next_hop(&route, path.peer).ok().flatten();
        let back = ReturnPath {
            ifindex: route.ifindex,
            interface: route.interface.unwrap_or_default(),
            gateway: route.gateway,
            mac,
        };
        found.push((*path, back));
    }
    found
}

/// Answers those whose namespace is watched.
pub(super) fn look_up(
    watched: &mut HashMap<u32, WatchedNetns>,
    wanted: &[RouteQuestion],
) -> Vec<(RouteQuestion, RouteAnswer)> {
    let mut answers = Vec::new();
    for question in wanted {
        let routes = watched
            .get_mut(&question.netns)
            .and_then(|watched| watched.routes.as_mut());
        let Some(routes) = routes else { continue };
        match answer(routes, question) {
            Ok(answer) => answers.push((*question, answer)),
            Err(error) => log::info!("route to {}: {error}", question.to),
        }
    }
    answers
}

/// The real destinations of connections, where their namespace is watched. Each namespace's table is read once.
pub(super) fn destinations(
    watched: &HashMap<u32, WatchedNetns>,
    wanted: &[DestinationQuestion],
) -> Vec<(DestinationQuestion, SocketAddr)> {
    let mut by_netns: BTreeMap<u32, Vec<DestinationQuestion>> = BTreeMap::new();
    for question in wanted {
        by_netns.entry(question.netns).or_default().push(*question);
    }
    let mut answers = Vec::new();
    for (netns, questions) in by_netns {
        let Some(watched) = watched.get(&netns) else {
            continue;
        };
        let connections: Vec<_> = questions.iter().map(|q| (q.local, q.peer)).collect();
        match nat::destinations(&watched.netns, &connections) {
            Ok(found) => {
                let found = questions.into_iter().zip(found);
                answers.extend(found.filter_map(|(q, to)| Some((q, to?))));
            }
            Err(error) => log::info!("connections of {}: {error}", watched.netns.name()),
        }
    }
    answers
}

/// Addresses among those called at which a namespace with a transparent listener has connections: namespace, address.
pub(super) fn taken_over(
    watched: &mut HashMap<u32, WatchedNetns>,
    wanted: &[DestinationQuestion],
) -> Vec<(u32, SocketAddr)> {
    let flat = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let called: BTreeSet<SocketAddr> = wanted.iter().map(|q| flat(q.peer)).collect();
    let ports: BTreeSet<u16> = called.iter().map(SocketAddr::port).collect();
    let mut found = BTreeSet::new();
    for (netns, watched) in watched.iter_mut().filter(|(_, w)| w.transparent) {
        for port in &ports {
            let query = Query {
                local_port: *port,
                ..Query::states(mask::ESTABLISHED | mask::SYN_RECV | mask::CLOSE_WAIT)
            };
            let note = |row: &Row| {
                let at = SocketAddr::new(printable(row.local_addr), row.local_port);
                if called.contains(&at) {
                    found.insert((*netns, at));
                }
            };
            if let Err(error) = watched.sock_diag.dump_with(&query, note) {
                log::info!("connections of {}: {error}", watched.netns.name());
            }
        }
    }
    found.into_iter().collect()
}

fn answer(routes: &mut Routes, q: &RouteQuestion) -> io::Result<RouteAnswer> {
    let plain = routes.route(q.to, None)?;
    let is_local = plain.as_ref().map(|r| r.kind == RouteKind::Local);
    let mut answer = RouteAnswer {
        is_local,
        came_by: routes.interface(q.came_by)?,
        ..RouteAnswer::default()
    };
    if is_local == Some(true) {
        answer.address_of = routes.device_of(q.to)?;
        answer.back = routes.route(q.from, Some(q.to))?.and_then(hop);
        return Ok(answer);
    }
    if q.came_by == 0 {
        return Ok(answer);
    }
    let onward = routes.route_of_input(q.to, q.from, q.came_by)?;
    // AnyIP, transparent proxies: a route of type local, which only this packet's look-up shows.
    if onward.as_ref().is_some_and(|r| r.kind == RouteKind::Local) {
        answer.is_local = Some(true);
        return Ok(answer);
    }
    answer.is_local = Some(false);
    // The kernel refuses a packet that its source check drops: then its destination's route alone is known.
    answer.onward = onward.or(plain).and_then(hop);
    if let Some(onward) = &answer.onward {
        answer.back = routes
            .route_of_input(q.from, q.to, onward.ifindex)?
            .and_then(hop);
    }
    Ok(answer)
}

fn hop(route: RouteInfo) -> Option<Hop> {
    (route.kind == RouteKind::Unicast).then(|| Hop {
        ifindex: route.ifindex,
        interface: route.interface.unwrap_or_default(),
        gateway: route.gateway,
    })
}
