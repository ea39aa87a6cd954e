//! Ports and connections that are in the way, and options that the path drops.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{
    Client, ConnectState, FaultInjector, FaultRule, INTERFACE, LossPattern, Ns, Server,
    SocketFamily, packet::flags, set_option,
};
use synprobe_tests::agent::until;

use super::stage::Stage;

const BACKLOG: i32 = 128;
/// Outside the range from which the kernel chooses.
const OWN_PORT: u16 = 20_001;
/// A SYN that asks for ECN (RFC 3168 section 6.1.1).
const ECN: u8 = 0xc0;

fn reuse_address(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)
}

/// From the client's fixed port.
fn connect_from_own_port(stage: &Stage, ns: &Ns, peer: SocketAddr) -> Result<Client> {
    let own = stage.lab.client_addr(OWN_PORT);
    Client::connect(ns, peer, |fd| {
        reuse_address(fd)?;
        bind(fd, own)
    })
}

fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let bound = synprobe_common::sys::sockopts::with_sockaddr(address, |address, len| {
        // SAFETY: the address is alive for the call and its length is its own.
        unsafe { libc::bind(fd.as_raw_fd(), address, len) }
    });
    match bound {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A client's port has a connection with the same server already.
pub fn tuple_in_use(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("not-sent, the port is in use", family)?;
    let server = Server::start(vec![stage.lab.listen(stage.port, BACKLOG)?])?;
    let peer = stage.lab.server_addr(stage.port);
    let connect = || connect_from_own_port(&stage, &stage.lab.client, peer);
    let _first = stage.connected(connect()?)?;
    let remedies = stage.told("not-sent", || {
        let failed = connect()?.seen;
        ensure!(
            failed == ConnectState::Failed(libc::EADDRNOTAVAIL),
            "{failed:?}"
        );
        Ok(())
    })?;
    let shows = format!(":{OWN_PORT}");
    stage.mended(&remedies, &[&shows], None, || {
        stage.connected(connect()?).map(drop)
    })?;
    server.stop().map(drop)
}

/// The client has vanished without a word, and uses its port again.
fn stale(stage: &Stage, verdict: &str) -> Result<()> {
    let listener = stage.lab.listen(stage.port, BACKLOG)?;
    let mut fault = FaultInjector::attach(&stage.lab.server)?;
    let rst = FaultRule {
        flags_mask: flags::RST,
        flags_value: flags::RST,
        ..FaultRule::default()
    };
    fault.set(0, rst, LossPattern::All, stage.port)?;
    let peer = stage.lab.server_addr(stage.port);
    let connect = || connect_from_own_port(stage, &stage.lab.client, peer);
    let old = stage.connected(connect()?)?;
    until("the server has it", || {
        Ok(stage.lab.established(stage.port)? == 1)
    })?;
    let _accepted = listener.accept()?;
    old.reset()?;
    let remedies = stage.told(verdict, || {
        let mut client = connect()?;
        ensure!(!stage.works(&mut client)?, "the fault was not made");
        // Challenge ACKs make it send its SYN again at once; the time-out of the second one comes after a second.
        until("SYNs are sent again", || Ok(client.retransmits()? > 1))
    })?;
    // The RSTs are lost still: it is the command that ends the old connection.
    let shows = format!(":{OWN_PORT}");
    stage.mended(&remedies, &[&shows], None, || {
        ensure!(
            stage.lab.established(stage.port)? == 0,
            "the old connection is there"
        );
        stage.connected(connect()?).map(drop)
    })
}

/// As the server sees it.
pub fn existing_connection(family: SocketFamily) -> Result<()> {
    stale(
        &Stage::new("existing-connection", family)?,
        "existing-connection",
    )
}

/// As the client sees it: the command is for the peer.
pub fn answer_rejected(family: SocketFamily) -> Result<()> {
    stale(&Stage::new("answer-rejected", family)?, "answer-rejected")
}

/// Every port of the range is taken.
pub fn ports_exhausted(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("ports-exhausted", family)?;
    exhausted(&stage, &stage.enter(&stage.lab.client))
}

/// The same, where commands begin so.
pub fn exhausted(stage: &Stage, enter: &str) -> Result<()> {
    stage
        .lab
        .client
        .set_sysctl("ipv4/ip_local_port_range", "40000 40003")?;
    let server = Server::start(vec![stage.lab.listen(stage.port, BACKLOG)?])?;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(stage.connects()?);
    }
    let remedies = stage.told("ports-exhausted", || {
        let failed = stage.connect()?.seen;
        ensure!(
            failed == ConnectState::Failed(libc::EADDRNOTAVAIL),
            "{failed:?}"
        );
        Ok(())
    })?;
    ensure!(
        remedies.iter().any(|r| r.contains(enter)),
        "{enter}: {remedies:?}"
    );
    let shows = ["net.ipv4.ip_local_port_range = 40000", "4 ESTAB"];
    stage.mended(&remedies, &shows, None, || stage.connects().map(drop))?;
    drop(held);
    server.stop().map(drop)
}

/// The kernel chose the very port that the client calls: the service cannot start.
pub fn self_connect(family: SocketFamily) -> Result<()> {
    let mut stage = Stage::new("self-connect", family)?;
    stage.port = OWN_PORT;
    let stage = stage;
    let client = &stage.lab.client;
    // The range has two ports, and the other one is taken.
    client.set_sysctl("ipv4/ip_local_port_range", "20000 20001")?;
    let any: std::net::IpAddr = match family.wire_is_v6() {
        true => std::net::Ipv6Addr::UNSPECIFIED.into(),
        false => std::net::Ipv4Addr::UNSPECIFIED.into(),
    };
    let listen = |port| synprobe_lab::listen(client, any, port, BACKLOG, false);
    let _other = listen(OWN_PORT - 1)?;
    let service = stage.lab.client_addr(OWN_PORT);
    let connect = || Client::connect(client, service, |_| Ok(()));
    let mut itself = None;
    let remedies = stage.told("self-connect", || {
        let made = stage.connected(connect()?)?;
        ensure!(made.local == service, "{}", made.local);
        ensure!(listen(OWN_PORT).is_err(), "the service can start");
        itself = Some(made);
        Ok(())
    })?;
    let shows = format!("net.ipv4.ip_local_reserved_ports = {OWN_PORT}");
    stage.mended(&remedies, &[&shows], None, || {
        // Without a service the client is refused a port, and not connected to itself.
        let failed = connect()?.seen;
        ensure!(
            failed == ConnectState::Failed(libc::EADDRNOTAVAIL),
            "{failed:?}"
        );
        let _service = listen(OWN_PORT).context("the service")?;
        client.set_sysctl("ipv4/ip_local_port_range", "20000 20003")?;
        let made = stage.connected(connect()?)?;
        ensure!(made.local != service, "{}", made.local);
        Ok(())
    })
}

/// The path drops SYNs that ask for ECN: each connect() takes a second.
pub fn ecn(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("option-dropped, ECN", family)?;
    let client = &stage.lab.client;
    client.set_sysctl("ipv4/tcp_ecn", "1")?;
    client.set_sysctl("ipv4/tcp_ecn_fallback", "1")?;
    let server = Server::start(vec![stage.lab.listen(stage.port, BACKLOG)?])?;
    let mut fault = FaultInjector::attach(&stage.lab.server)?;
    let asks = FaultRule {
        flags_mask: flags::SYN | flags::ACK | ECN,
        flags_value: flags::SYN | ECN,
        ..FaultRule::default()
    };
    fault.set(0, asks, LossPattern::All, stage.port)?;
    let remedies = stage.told("option-dropped", || {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(stage.connect()?);
        }
        clients.iter_mut().try_for_each(|client| {
            super::queues::wait_for(client)?;
            ensure!(client.seen == ConnectState::Connected, "{:?}", client.seen);
            ensure!(client.retransmits()? == 1, "{}", client.retransmits()?);
            Ok(())
        })
    })?;
    stage.mended(&remedies, &["net.ipv4.tcp_ecn = 2"], None, || {
        stage.connects().map(drop)
    })?;
    server.stop().map(drop)
}

/// The path drops SYNs with a Fast Open option.
pub fn fast_open(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("option-dropped, Fast Open", family)?;
    let client = &stage.lab.client;
    client.set_sysctl("ipv4/tcp_fastopen", "1")?;
    // Otherwise the kernel leaves the option out by itself after the first loss.
    client.set_sysctl("ipv4/tcp_fastopen_blackhole_timeout_sec", "0")?;
    let server = Server::start(vec![stage.lab.listen(stage.port, BACKLOG)?])?;
    let peer = stage.lab.server_addr(stage.port);
    // As curl and others do: where the option is refused, the connection is plain.
    let connect = || {
        Client::connect(client, peer, |fd| {
            let on: libc::c_int = 1;
            let set = set_option(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &on);
            match set {
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
                set => set,
            }
        })
    };
    // The option makes the SYN's header 44 bytes long; a plain one has 40. TC_ACT_STOLEN (4) is no drop of this host.
    client.set_sysctl("ipv4/tcp_timestamps", "1")?;
    let (protocol, tcp) = match family.wire_is_v6() {
        true => ("ipv6", 14 + 40),
        false => ("ip", 14 + 20),
    };
    let (offset, flags) = (tcp + 12, tcp + 13);
    let program = format!(
        "8,48 0 0 {offset},84 0 0 240,21 0 4 176,48 0 0 {flags},84 0 0 18,21 0 1 2,6 0 0 4,6 0 0 4294967295"
    );
    for command in [
        format!("tc qdisc add dev {INTERFACE} clsact"),
        format!(
            "tc filter add dev {INTERFACE} ingress protocol {protocol} bpf bytecode '{program}' direct-action"
        ),
    ] {
        let command = stage.enter(&stage.lab.server) + &command;
        if !super::stage::tool(&stage.name, &command)? {
            return Ok(());
        }
    }
    let remedies = stage.told("option-dropped", || {
        for _ in 0..4 {
            let mut client = connect()?;
            super::queues::wait_for(&mut client)?;
            ensure!(client.retransmits()? == 1, "{}", client.retransmits()?);
        }
        Ok(())
    })?;
    stage.mended(&remedies, &["net.ipv4.tcp_fastopen = 0"], None, || {
        stage.connected(connect()?).map(drop)
    })?;
    server.stop().map(drop)
}
