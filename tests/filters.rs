//! Filters: requested handshakes are seen, and no other record leaves the kernel. The number of records that
//! the kernel side produced is compared with the traffic.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe::{
    filter::{PortSet, Selection, parse_cidr},
    model::Role,
};
use synprobe_lab::{Client, ConnectState, Lab, Server, SocketFamily, settle};
use synprobe_tests::{
    harness::{self, Case},
    pipeline_run::{self, WatchedRun, watch},
};

/// The server's ports, and those of the clients that call each of them.
const SERVERS: [u16; 3] = [8080, 8081, 9000];
const CLIENTS: [u16; 3] = [20_001, 20_002, 21_000];
/// CLOSE→SYN_SENT and SYN_SENT→ESTABLISHED; LISTEN→SYN_RECV and SYN_RECV→ESTABLISHED.
const RECORDS: u64 = 2;

/// One end of one handshake of the traffic: which of the two hosts, and both its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HandshakeEnd {
    role: Role,
    local: u16,
    peer: u16,
}

/// Every end there is: each client port calls each server port.
fn all() -> Vec<HandshakeEnd> {
    let mut ends = Vec::new();
    for server in SERVERS {
        for client in CLIENTS {
            ends.push(HandshakeEnd {
                role: Role::Client,
                local: client,
                peer: server,
            });
            ends.push(HandshakeEnd {
                role: Role::Server,
                local: server,
                peer: client,
            });
        }
    }
    ends
}

/// A filter, and the ends that it must let through.
struct Question {
    name: &'static str,
    /// As on the command line.
    ask: fn(&Lab) -> Result<Selection>,
    wanted: fn(HandshakeEnd) -> bool,
}

fn ports(text: &str) -> Result<PortSet> {
    Ok(text.parse()?)
}

fn is(port: u16, range: std::ops::RangeInclusive<u16>) -> bool {
    range.contains(&port)
}

const QUESTIONS: [Question; 15] = [
    Question {
        name: "none",
        ask: |_| Ok(Selection::default()),
        wanted: |_| true,
    },
    Question {
        name: "port-of-a-server",
        ask: |_| {
            Ok(Selection {
                ports: ports("8080")?,
                ..Selection::default()
            })
        },
        wanted: |end| end.local == 8080 || end.peer == 8080,
    },
    Question {
        name: "port-of-a-client",
        ask: |_| {
            Ok(Selection {
                ports: ports("20001")?,
                ..Selection::default()
            })
        },
        wanted: |end| end.local == 20_001 || end.peer == 20_001,
    },
    Question {
        name: "port-list-and-range",
        ask: |_| {
            Ok(Selection {
                ports: ports("9000,20000-20001")?,
                ..Selection::default()
            })
        },
        wanted: |end| {
            [end.local, end.peer]
                .iter()
                .any(|&p| p == 9000 || is(p, 20_000..=20_001))
        },
    },
    Question {
        name: "local-port",
        ask: |_| {
            Ok(Selection {
                local_ports: ports("8081")?,
                ..Selection::default()
            })
        },
        wanted: |end| end.local == 8081,
    },
    Question {
        name: "local-port-range",
        ask: |_| {
            Ok(Selection {
                local_ports: ports("8000-8080,20002-21000")?,
                ..Selection::default()
            })
        },
        wanted: |end| is(end.local, 8000..=8080) || is(end.local, 20_002..=21_000),
    },
    Question {
        name: "peer-port",
        ask: |_| {
            Ok(Selection {
                peer_ports: ports("9000")?,
                ..Selection::default()
            })
        },
        wanted: |end| end.peer == 9000,
    },
    Question {
        name: "peer-port-range",
        ask: |_| {
            Ok(Selection {
                peer_ports: ports("8081-9000,21000")?,
                ..Selection::default()
            })
        },
        wanted: |end| is(end.peer, 8081..=9000) || end.peer == 21_000,
    },
    Question {
        name: "peer-and-local-port",
        ask: |_| {
            Ok(Selection {
                peer_ports: ports("20001")?,
                local_ports: ports("8080-8081")?,
                ..Selection::default()
            })
        },
        wanted: |end| end.peer == 20_001 && is(end.local, 8080..=8081),
    },
    Question {
        name: "peer-address-of-the-server",
        ask: |lab| peer(&lab.server_ip().to_string()),
        wanted: |end| end.role == Role::Client,
    },
    Question {
        name: "peer-network-of-both",
        ask: |lab| peer(network(lab)),
        wanted: |_| true,
    },
    Question {
        name: "peer-network-of-neither",
        ask: |lab| {
            peer(if lab.family.wire_is_v6() {
                "fd00:5951::/32"
            } else {
                "198.19.0.0/16"
            })
        },
        wanted: |_| false,
    },
    Question {
        name: "role-client",
        ask: |_| {
            Ok(Selection {
                role: Some(Role::Client),
                ..Selection::default()
            })
        },
        wanted: |end| end.role == Role::Client,
    },
    Question {
        name: "role-server",
        ask: |_| {
            Ok(Selection {
                role: Some(Role::Server),
                ..Selection::default()
            })
        },
        wanted: |end| end.role == Role::Server,
    },
    Question {
        name: "netns-of-the-server",
        ask: |lab| {
            Ok(Selection {
                netns: Some([lab.server.inode(); 2]),
                ..Selection::default()
            })
        },
        wanted: |end| end.role == Role::Server,
    },
];

fn peer(cidr: &str) -> Result<Selection> {
    Ok(Selection {
        peers: vec![parse_cidr(cidr)?],
        ..Selection::default()
    })
}

/// A network that both ends are in, on the wire.
fn network(lab: &Lab) -> &'static str {
    match lab.family.wire_is_v6() {
        true => "fd00:5950::/32",
        false => "198.18.0.0/15",
    }
}

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for question in &QUESTIONS {
        for family in SocketFamily::ALL {
            cases.push(Case::for_family(question.name, family, |family| {
                answered(question, family)
            }));
        }
    }
    harness::main(cases)
}

fn answered(question: &Question, family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let mut selection = (question.ask)(&lab)?;
    // The host has other traffic; the lab's namespaces have none but ours.
    let both = [lab.client.inode(), lab.server.inode()];
    selection.netns.get_or_insert(both);
    let mut options = pipeline_run::options(selection);
    options.namespaces = vec![lab.client.netns(), lab.server.netns()];

    let mut listeners = Vec::new();
    for port in SERVERS {
        listeners.push(lab.listen(port, 64)?);
    }
    let server = Server::start(listeners)?;
    let (_, watched) = watch(options, |_| {
        let mut clients = Vec::new();
        for end in all().into_iter().filter(|end| end.role == Role::Client) {
            clients.push(call(&lab, end)?);
        }
        let until = Instant::now() + Duration::from_secs(20);
        settle(&mut clients, &AtomicBool::new(false), until)?;
        ensure!(
            clients.iter().all(|c| c.seen == ConnectState::Connected),
            "every client connects"
        );
        Ok(clients)
    })?;
    server.stop()?;
    let watched = watched.complete()?;

    let mut wanted: Vec<HandshakeEnd> = all()
        .into_iter()
        .filter(|e| (question.wanted)(*e))
        .collect();
    let mut seen = seen(&watched)?;
    wanted.sort_unstable();
    seen.sort_unstable();
    ensure!(seen == wanted, "wanted {wanted:?}, seen {seen:?}");
    let end = &watched.end;
    // Who leaves SYN_RECV may be a client too (both ends opened at once): the kernel side lets it
    // through whatever role was asked for, and the agent tells.
    let undecided = match (question.name, wanted.len()) {
        ("role-client", clients) => clients as u64,
        _ => 0,
    };
    let due = RECORDS * wanted.len() as u64 + undecided;
    ensure!(
        (end.produced, end.events, end.lost) == (due, due, 0),
        "{due} records were due: {end:?}"
    );
    Ok(())
}

/// Calls from a port of the caller's choice.
fn call(lab: &Lab, end: HandshakeEnd) -> Result<Client> {
    let own = SocketAddr::new(lab.as_sockets_write(lab.client_ip()), end.local);
    Client::connect(&lab.client, lab.server_addr(end.peer), |fd| {
        let on: libc::c_int = 1;
        synprobe_lab::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
        synprobe_tests::wire::bind(fd, own)
    })
}

fn seen(watched: &WatchedRun) -> Result<Vec<HandshakeEnd>> {
    let mut ends = Vec::new();
    for (_, handshake) in watched.handshakes() {
        let c = &handshake.connection;
        let printed: IpAddr = c.peer_addr;
        ensure!(
            printed == printed.to_canonical(),
            "a mapped address is printed as IPv4: {c:?}"
        );
        ends.push(HandshakeEnd {
            role: c.role,
            local: c.local_port.context("a local port")?,
            peer: c.peer_port.context("a peer port")?,
        });
    }
    Ok(ends)
}
