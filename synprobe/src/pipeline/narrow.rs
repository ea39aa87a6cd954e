//! A narrower selection over a recording: applies the filters of the kernel side to recorded inputs.

use std::net::IpAddr;

use ipnet::IpNet;
use synprobe_ebpf::event::{Flow, state};
use thiserror::Error;

use crate::{
    decode::Event,
    engine::Input,
    filter::{PortSet, Selection},
    model::{ListenCounters, Listener, Role, Tuple},
    util::addresses::printable,
};

/// The recording holds nothing of what is asked for.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the recording was made with --{option} {recorded}: it holds nothing else")]
pub struct NothingInCommon {
    option: &'static str,
    recorded: String,
}

/// What is both in the recording and asked for.
///
/// # Errors
///
/// [`NothingInCommon`]: an option of the recording and one that is given exclude each other.
pub fn narrowed(recorded: &Selection, asked: &Selection) -> Result<Selection, NothingInCommon> {
    let described = recorded.describe();
    let nothing = |option: &'static str| NothingInCommon {
        option,
        recorded: described
            .get(option.replace('-', "_").as_str())
            .cloned()
            .unwrap_or_default(),
    };
    let ports = |option, a: &PortSet, b: &PortSet| -> Result<PortSet, NothingInCommon> {
        match (a.is_empty(), b.is_empty()) {
            (true, _) => Ok(b.clone()),
            (_, true) => Ok(a.clone()),
            _ => Some(a.intersection(b))
                .filter(|both| !both.is_empty())
                .ok_or_else(|| nothing(option)),
        }
    };
    let peers = match (recorded.peers.is_empty(), asked.peers.is_empty()) {
        (true, _) => asked.peers.clone(),
        (_, true) => recorded.peers.clone(),
        _ => {
            let both = networks_in_common(&recorded.peers, &asked.peers);
            if both.is_empty() {
                return Err(nothing("peer"));
            }
            both
        }
    };
    let role = match (recorded.role, asked.role) {
        (Some(recorded), Some(asked)) if recorded != asked => return Err(nothing("role")),
        (recorded, asked) => recorded.or(asked),
    };
    let netns = match (recorded.netns, asked.netns) {
        (Some(recorded), Some(asked)) => {
            let mut both = asked.into_iter().filter(|netns| recorded.contains(netns));
            let first = both.next().ok_or_else(|| nothing("netns"))?;
            Some([first, both.next().unwrap_or(first)])
        }
        (recorded, asked) => recorded.or(asked),
    };
    Ok(Selection {
        // Two lists for either end cannot be combined into one. The new list is applied; every record has
        // passed the recorded one.
        ports: match asked.ports.is_empty() {
            true => recorded.ports.clone(),
            false => asked.ports.clone(),
        },
        local_ports: ports("local-port", &recorded.local_ports, &asked.local_ports)?,
        peer_ports: ports("peer-port", &recorded.peer_ports, &asked.peer_ports)?,
        peers,
        role,
        netns,
    })
}

fn networks_in_common(a: &[IpNet], b: &[IpNet]) -> Vec<IpNet> {
    let mut both: Vec<IpNet> = a
        .iter()
        .flat_map(|x| b.iter().map(move |y| (x, y)))
        .filter_map(|(x, y)| match (x.contains(y), y.contains(x)) {
            (true, _) => Some(*y),
            (_, true) => Some(*x),
            _ => None,
        })
        .collect();
    both.sort_unstable();
    both.dedup();
    both
}

/// An input without what the selection leaves out; `None`: all of it.
pub fn narrow(input: Input, selection: &Selection) -> Option<Input> {
    match input {
        Input::Event(event) => passes(&event, selection).then_some(Input::Event(event)),
        Input::Drop(record, meaning) => {
            // It may be of a selected handshake, in another namespace or before NAT.
            let counts_elsewhere = meaning
                .as_ref()
                .is_some_and(|meaning| meaning.is_own_doing() || meaning.is_no_socket());
            (counts_elsewhere || selection.selects_drop(&record))
                .then_some(Input::Drop(record, meaning))
        }
        Input::Completed(role, port, counts) => {
            let listening = match role {
                Role::Client => [&selection.ports, &selection.peer_ports],
                Role::Server => [&selection.ports, &selection.local_ports],
            };
            let wanted = selection.wants(role)
                && listening
                    .iter()
                    .all(|set| set.is_empty() || port.is_some_and(|port| set.contains(port)));
            wanted.then_some(Input::Completed(role, port, counts))
        }
        Input::Dump(mut dump) => {
            if selection
                .netns
                .is_some_and(|only| !only.contains(&dump.netns))
            {
                return None;
            }
            let wanted = |tuple: &Tuple| {
                selection.matches(
                    Some(tuple.local_port),
                    Some(tuple.peer_port),
                    printable(tuple.peer_addr),
                    tuple.netns,
                )
            };
            dump.rows.retain(|row| wanted(&row.tuple));
            if let Some(rows) = &mut dump.syn_sent {
                rows.retain(|row| selection.wants(Role::Client) && wanted(&row.tuple));
            }
            Some(Input::Dump(dump))
        }
        Input::ListenSockets {
            before_ns,
            at_ns,
            mut listeners,
            mut counters,
        } => {
            if let Some(only) = selection.netns {
                listeners.retain(|listener| only.contains(&listener.netns));
                counters.retain(|counters| only.contains(&counters.netns));
            }
            Some(Input::ListenSockets {
                before_ns,
                at_ns,
                listeners,
                counters,
            })
        }
        Input::LaterCounters(mut counters) => {
            if let Some(only) = selection.netns {
                counters.retain(|(netns, _)| only.contains(netns));
            }
            Some(Input::LaterCounters(counters))
        }
        Input::TransparentListeners(mut sockets) => {
            if let Some(only) = selection.netns {
                sockets.retain(|(netns, _)| only.contains(netns));
            }
            Some(Input::TransparentListeners(sockets))
        }
        Input::AcceptReadings(mut readings) => {
            if let Some(only) = selection.netns {
                readings.retain(|reading| only.contains(&reading.netns));
            }
            Some(Input::AcceptReadings(readings))
        }
        Input::AcceptCounts(mut counts) => {
            counts.retain(|c| selection.selects_listener(c.port, c.netns) != Some(false));
            Some(Input::AcceptCounts(counts))
        }
        Input::Queues {
            at_ns,
            listeners,
            counters,
        } => {
            let as_now = Input::ListenSockets {
                before_ns: at_ns,
                at_ns,
                listeners: listeners.into_iter().map(Listener::from).collect(),
                counters: counters.into_iter().map(ListenCounters::from).collect(),
            };
            narrow(as_now, selection)
        }
        Input::Settings(netns, _) | Input::Addresses(netns, _)
            if selection.netns.is_some_and(|only| !only.contains(&netns)) =>
        {
            None
        }
        Input::TakenOver(netns, _)
            if selection.netns.is_some_and(|only| !only.contains(&netns)) =>
        {
            None
        }
        input => Some(input),
    }
}

/// As the kernel side decides (`synprobe-ebpf/src/filter.rs`).
fn passes(event: &Event, selection: &Selection) -> bool {
    let role = match event {
        Event::State(r, ..) => role_of(r.old, r.new),
        Event::Retransmit(r, _) if r.state == state::SYN_SENT => Some(Role::Client),
        Event::SynAck(..) | Event::Request(..) => Some(Role::Server),
        _ => None,
    };
    if role.is_some_and(|role| !selection.wants(role)) {
        return false;
    }
    if let Event::State(r, ..) = event
        && r.flow.peer_port == 0
        && (r.old == state::LISTEN || r.new == state::LISTEN)
    {
        // A listener, or a child whose peer this kernel does not report.
        let port = r.flow.local_port;
        return [&selection.ports, &selection.local_ports]
            .iter()
            .all(|set| set.is_empty() || set.contains(port))
            && selection
                .netns
                .is_none_or(|only| only.contains(&r.flow.netns));
    }
    flow_passes(event.flow(), selection)
}

fn flow_passes(flow: &Flow, selection: &Selection) -> bool {
    let peer: IpAddr = printable(flow.peer_addr);
    selection.matches(
        (flow.local_port != 0).then_some(flow.local_port),
        (flow.peer_port != 0).then_some(flow.peer_port),
        peer,
        flow.netns,
    )
}

fn role_of(old: u8, new: u8) -> Option<Role> {
    if old == state::SYN_SENT || new == state::SYN_SENT {
        Some(Role::Client)
    } else if old == state::LISTEN || new == state::LISTEN {
        Some(Role::Server)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(port: &str, peer: &str, role: Option<Role>) -> Selection {
        Selection {
            local_ports: port.parse().unwrap_or_default(),
            peers: peer.parse().map(|net| vec![net]).unwrap_or_default(),
            role,
            ..Selection::default()
        }
    }

    #[test]
    fn both_selections_hold() {
        let recorded = selection("8000-8100", "10.0.0.0/8", None);
        let asked = selection("8080,9000", "10.1.0.0/16", Some(Role::Server));
        let both = narrowed(&recorded, &asked).unwrap();
        assert!(both.local_ports.contains(8080) && !both.local_ports.contains(9000));
        assert!(!both.local_ports.contains(8000));
        assert_eq!(both.peers, ["10.1.0.0/16".parse().unwrap()]);
        assert_eq!(both.role, Some(Role::Server));
        assert_eq!(
            narrowed(&recorded, &Selection::default()).unwrap(),
            recorded
        );
        assert_eq!(narrowed(&Selection::default(), &asked).unwrap(), asked);
    }

    #[test]
    fn what_excludes_each_other_is_named() {
        let recorded = selection("80", "10.0.0.0/8", Some(Role::Client));
        for (asked, words) in [
            (selection("81", "", None), "--local-port 80"),
            (selection("", "192.0.2.0/24", None), "--peer 10.0.0.0/8"),
            (selection("", "", Some(Role::Server)), "--role client"),
        ] {
            let error = narrowed(&recorded, &asked).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
