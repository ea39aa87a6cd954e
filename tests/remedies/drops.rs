//! Packets that this host drops itself.

use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail, ensure};
use synprobe_lab::{
    CLIENT_MAC, Client, FaultInjector, INTERFACE, LossPattern, Ns, RouteTarget, SERVER_MAC,
    SocketFamily, TcpCounters, add_route, listen,
    net::{self, Link, add_neighbour},
    set_md5_key, syn_ack,
};
use synprobe_tests::{agent::until, harness::Undecided};

use super::stage::{Stage, tool};

const BACKLOG: i32 = 128;
/// The link beside the lab's own.
const SECOND: &str = "lab1";
const CLIENT_MAC_2: [u8; 6] = [2, 0, 0, 0, 1, 1];
const SERVER_MAC_2: [u8; 6] = [2, 0, 0, 0, 1, 2];

fn listener(stage: &Stage) -> Result<TcpListener> {
    stage.lab.listen(stage.port, BACKLOG)
}

/// `ip` or `ip6`, as `nft` calls the families.
fn nft_family(family: SocketFamily) -> &'static str {
    match family.wire_is_v6() {
        true => "ip6",
        false => "ip",
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs the test's own commands; false: a program is not installed.
fn tools(stage: &Stage, ns: &Ns, commands: &[String]) -> Result<bool> {
    for command in commands {
        if !tool(&stage.name, &(stage.enter(ns) + command))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One connect() that fails while `diagnose` runs, long enough for a second SYN.
fn told(stage: &Stage, verdict: &str) -> Result<Vec<String>> {
    stage.told(verdict, || {
        let client = stage.fails()?;
        until("a SYN is sent again", || Ok(client.retransmits()? > 0))
    })
}

/// A rule of the server's own packet filter. Which rule it is, and whether it may go, is the user's to say.
pub fn own_rule(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, a rule", family)?;
    let server = &stage.lab.server;
    let rule = format!("tcp dport {} drop", stage.port);
    let made = [
        "nft add table inet lab".to_owned(),
        "nft add chain inet lab input '{ type filter hook input priority 0; }'".to_owned(),
        format!("nft add rule inet lab input {rule}"),
    ];
    if !tools(&stage, server, &made)? {
        return Ok(());
    }
    let _listener = listener(&stage)?;
    let remedies = told(&stage, "dropped-here")?;
    let delete = || {
        let listed =
            super::steps::run(&(stage.enter(server) + "nft -a list chain inet lab input"))?;
        // Where the remedy itself deletes it, it is gone.
        let Some((_, handle)) = listed
            .lines()
            .filter(|line| line.contains(&rule))
            .find_map(|line| line.split_once("# handle "))
        else {
            return Ok(());
        };
        let delete = format!("nft delete rule inet lab input handle {handle}");
        tools(&stage, server, &[delete]).map(drop)
    };
    stage.mended(&remedies, &[&rule], Some(&delete), || {
        stage.connects().map(drop)
    })
}

/// A tc classifier on the way in.
pub fn classifier(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, tc", family)?;
    let server = &stage.lab.server;
    let protocol = if family.wire_is_v6() { "ipv6" } else { "ip" };
    // TC_ACT_SHOT is 2.
    let made = [
        format!("tc qdisc add dev {INTERFACE} clsact"),
        format!(
            "tc filter add dev {INTERFACE} ingress protocol {protocol} bpf bytecode '1,6 0 0 2' direct-action"
        ),
    ];
    if !tools(&stage, server, &made)? {
        return Ok(());
    }
    let _listener = listener(&stage)?;
    let remedies = told(&stage, "dropped-here")?;
    let delete = || {
        let delete = format!("tc filter del dev {INTERFACE} ingress");
        tools(&stage, server, &[delete]).map(drop)
    };
    let shows = "direct-action not_in_hw bytecode '1,6 0 0 2'";
    stage.mended(&remedies, &[shows], Some(&delete), || {
        stage.connects().map(drop)
    })
}

/// The queueing discipline of the way out takes nothing.
pub fn qdisc(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, qdisc", family)?;
    let client = &stage.lab.client;
    let made = format!("tc qdisc add dev {INTERFACE} root pfifo limit 0");
    if !tools(&stage, client, &[made])? {
        return Ok(());
    }
    let _listener = listener(&stage)?;
    let remedies = told(&stage, "dropped-here")?;
    let delete = || {
        let delete = format!("tc qdisc replace dev {INTERFACE} root pfifo limit 1000");
        tools(&stage, client, &[delete]).map(drop)
    };
    stage.mended(&remedies, &["limit 0p"], Some(&delete), || {
        stage.connects().map(drop)
    })
}

/// A second link, by which the server answers an address of the client.
fn second_way(stage: &Stage, address: IpAddr) -> Result<()> {
    let (client, server) = (&stage.lab.client, &stage.lab.server);
    net::link(&Link {
        here: (client, CLIENT_MAC_2),
        there: (server, SERVER_MAC_2),
        name: SECOND,
    })?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    add_route(client, (address, whole), RouteTarget::Here)?;
    add_route(server, (address, whole), RouteTarget::Link(SECOND))?;
    add_neighbour(server, SECOND, address, CLIENT_MAC_2)
}

/// The reverse-path filter, and an asymmetric route that works without it.
pub fn rp_filter(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, rp_filter", family)?;
    let address: IpAddr = "198.18.200.1".parse()?;
    second_way(&stage, address)?;
    stage
        .lab
        .server
        .set_sysctl("ipv4/conf/all/rp_filter", "1")?;
    let _listener = listener(&stage)?;
    let connect = || {
        let local = SocketAddr::new(stage.lab.as_sockets_write(address), 0);
        Client::connect_from(&stage.lab.client, local, stage.lab.server_addr(stage.port))
    };
    let remedies = stage.told("dropped-here", || {
        let mut client = connect()?;
        ensure!(!stage.works(&mut client)?, "the fault was not made");
        until("a SYN is sent again", || Ok(client.retransmits()? > 0))
    })?;
    let shows = [
        format!("{address} from {} dev {SECOND}", stage.lab.server_ip()),
        format!("net.ipv4.conf.{INTERFACE}.rp_filter = 2"),
    ];
    let shows = shows.each_ref().map(String::as_str);
    stage.mended(&remedies, &shows, None, || {
        stage.connected(connect()?).map(drop)
    })
}

/// The server has no route to the client. Which route is right, the user knows.
pub fn no_route_back(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("no-route-back", family)?;
    let v6 = family.wire_is_v6();
    let (net, address, router): (IpAddr, IpAddr, IpAddr) = match v6 {
        true => (
            "fd00:5950:e::".parse()?,
            "fd00:5950:e::1".parse()?,
            stage.lab.client_ip(),
        ),
        false => (
            "198.19.7.0".parse()?,
            "198.19.7.1".parse()?,
            stage.lab.client_ip(),
        ),
    };
    let len = if v6 { 64 } else { 24 };
    add_route(&stage.lab.client, (net, len), RouteTarget::Here)?;
    for device in ["all", INTERFACE] {
        stage
            .lab
            .server
            .set_sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0")?;
    }
    let _listener = listener(&stage)?;
    let connect = || {
        let local = SocketAddr::new(stage.lab.as_sockets_write(address), 0);
        Client::connect_from(&stage.lab.client, local, stage.lab.server_addr(stage.port))
    };
    let traffic = || {
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(connect()?);
        }
        for client in &mut clients {
            ensure!(!stage.works(client)?, "the fault was not made");
        }
        let sent_again =
            |client: &Client| until("a SYN is sent again", || Ok(client.retransmits()? > 0));
        clients.iter().try_for_each(sent_again)
    };
    // Both ends; a host with very many namespaces may not have read the listener's before.
    let remedies = stage
        .told("no-route-back", traffic)
        .or_else(|_| stage.told_at_server("no-route-back", traffic))?;
    let add = || {
        let add = format!("ip route add {net}/{len} via {router}");
        tools(&stage, &stage.lab.server, &[add]).map(drop)
    };
    // The handshakes name the peer; a listener alone does not.
    let names_peer = remedies.iter().any(|r| r.contains("ip route get"));
    let shows: &[&str] = if names_peer { &["unreachable"] } else { &[] };
    stage.mended(&remedies, shows, Some(&add), || {
        stage.connected(connect()?).map(drop)
    })
}

/// An address that the server is to have, as behind a load balancer that forwards without NAT.
pub fn missing_address(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, no address of this host", family)?;
    let address: IpAddr = match family.wire_is_v6() {
        true => "fd00:5950:77::9".parse()?,
        false => "203.0.113.9".parse()?,
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let via = RouteTarget::Via(stage.lab.server_ip());
    add_route(&stage.lab.client, (address, whole), via)?;
    let _listener = listener(&stage)?;
    let connect = || {
        let peer = SocketAddr::new(stage.lab.as_sockets_write(address), stage.port);
        Client::connect(&stage.lab.client, peer, |_| Ok(()))
    };
    let remedies = stage.told("dropped-here", || {
        let mut client = connect()?;
        ensure!(!stage.works(&mut client)?, "the fault was not made");
        until("a SYN is sent again", || Ok(client.retransmits()? > 0))
    })?;
    stage.mended(&remedies, &[], None, || {
        until("the address is valid", || is_valid(&stage, address))?;
        stage.connected(connect()?).map(drop)
    })
}

/// An IPv6 address is tentative until a worker of the kernel has looked at it, also without duplicate detection.
fn is_valid(stage: &Stage, address: IpAddr) -> Result<bool> {
    const TENTATIVE: u32 = 0x40;
    let IpAddr::V6(v6) = address else {
        return Ok(true);
    };
    let wanted = format!("{:032x}", u128::from(v6));
    let table = stage.lab.server.read_proc("net/if_inet6")?;
    let row = table.lines().find(|line| line.starts_with(&wanted));
    let flags = row.and_then(|row| row.split_whitespace().nth(4));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok());
    Ok(flags.is_some_and(|flags| flags & TENTATIVE == 0))
}

/// The server is to forward, and does not.
pub fn not_forwarding(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, no forwarding", family)?;
    let (client, router) = (&stage.lab.client, &stage.lab.server);
    let far = Ns::new_anonymous("far")?;
    net::prepare(&far)?;
    net::link(&Link {
        here: (router, SERVER_MAC_2),
        there: (&far, CLIENT_MAC_2),
        name: SECOND,
    })?;
    let v6 = family.wire_is_v6();
    let address: IpAddr = match v6 {
        true => "fd00:5950:77::9".parse()?,
        false => "203.0.113.9".parse()?,
    };
    let whole = if v6 { 128 } else { 32 };
    add_route(
        client,
        (address, whole),
        RouteTarget::Via(stage.lab.server_ip()),
    )?;
    add_route(router, (address, whole), RouteTarget::Link(SECOND))?;
    add_neighbour(router, SECOND, address, CLIENT_MAC_2)?;
    add_route(&far, (address, whole), RouteTarget::Here)?;
    add_route(
        &far,
        (stage.lab.client_ip(), whole),
        RouteTarget::Link(SECOND),
    )?;
    add_neighbour(&far, SECOND, stage.lab.client_ip(), SERVER_MAC_2)?;
    let any: IpAddr = match v6 {
        true => std::net::Ipv6Addr::UNSPECIFIED.into(),
        false => std::net::Ipv4Addr::UNSPECIFIED.into(),
    };
    let _listener = listen(&far, any, stage.port, BACKLOG, false)?;
    let connect = || Client::connect(client, SocketAddr::new(address, stage.port), |_| Ok(()));
    let remedies = stage.told("dropped-here", || {
        let mut client = connect()?;
        ensure!(!stage.works(&mut client)?, "the fault was not made");
        until("a SYN is sent again", || Ok(client.retransmits()? > 0))
    })?;
    stage.mended(&remedies, &[], None, || {
        stage.connected(connect()?).map(drop)
    })
}

/// The next hop does not answer ARP. Why it does not is the other host's matter.
pub fn no_neighbour(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("unreachable, no neighbour", family)?;
    let (client, server) = (&stage.lab.client, &stage.lab.server);
    let peer = stage.lab.server_ip();
    let made = [
        tools(
            &stage,
            server,
            &[format!("ip link set {INTERFACE} arp off")],
        )?,
        tools(
            &stage,
            client,
            &[format!("ip neighbour del {peer} dev {INTERFACE}")],
        )?,
    ];
    if made.contains(&false) {
        return Ok(());
    }
    let _listener = listener(&stage)?;
    let remedies = stage.told("unreachable", || {
        let mut client = stage.connect()?;
        super::queues::wait_for(&mut client)?;
        if client.seen == synprobe_lab::ConnectState::Connected {
            bail!(Undecided("the client knew its neighbour again".to_owned()));
        }
        let due = synprobe_lab::ConnectState::Failed(libc::EHOSTUNREACH);
        ensure!(client.seen == due, "{:?}", client.seen);
        Ok(())
    })?;
    let add = || {
        let lladdr = mac(SERVER_MAC);
        let add = format!("ip neighbour replace {peer} lladdr {lladdr} dev {INTERFACE}");
        let back = format!(
            "ip neighbour replace {} lladdr {} dev {INTERFACE}",
            stage.lab.client_ip(),
            mac(CLIENT_MAC)
        );
        tools(&stage, server, &[back])?;
        tools(&stage, client, &[add]).map(drop)
    };
    let shows = format!("{peer} dev {INTERFACE} FAILED");
    stage.mended(&remedies, &[&shows], Some(&add), || {
        stage.connects().map(drop)
    })
}

/// Source NAT has one port, which is taken. How many ports it may have is the user's choice.
pub fn snat_exhausted(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, SNAT without a port", family)?;
    let client = &stage.lab.client;
    let (nft, address) = (nft_family(family), stage.lab.client_ip());
    let bracketed = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let rule = format!("tcp dport {} snat to {bracketed}", stage.port);
    let made = [
        format!("nft add table {nft} lab"),
        format!("nft add chain {nft} lab post '{{ type nat hook postrouting priority 100; }}'"),
        format!("nft add rule {nft} lab post {rule}:45000"),
    ];
    if !tools(&stage, client, &made)? {
        return Ok(());
    }
    let _listener = listener(&stage)?;
    let _holder = stage.connects().context("the first connection")?;
    // None of its SYNs leaves, so none is counted as retransmitted: TCPRetransFail counts.
    let remedies = stage.told("dropped-here", || {
        let clients = [stage.fails()?, stage.fails()?, stage.fails()?];
        until("SYNs fail", || {
            Ok(TcpCounters::read(client)?.get("TCPRetransFail") >= clients.len() as u64)
        })
    })?;
    ensure!(
        remedies.iter().any(|r| r.contains("fully-random")),
        "{remedies:?}"
    );
    let widen = || {
        let widen = [
            format!("nft flush chain {nft} lab post"),
            format!("nft add rule {nft} lab post {rule}:45000-45999 fully-random"),
        ];
        tools(&stage, client, &widen).map(drop)
    };
    let shows = ["insert_failed=", "snat to"];
    stage.mended(&remedies, &shows, Some(&widen), || {
        stage.connects().map(drop)
    })
}

/// The listener has an MD5 key and the client has none. The keys are the users'.
pub fn tcp_md5(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, TCP MD5", family)?;
    let listener = listener(&stage)?;
    let peer = stage.lab.as_sockets_write(stage.lab.client_ip());
    set_md5_key(&listener, peer, b"listener")?;
    let remedies = told(&stage, "dropped-here")?;
    let same_key = || {
        // Neither end has one: a key of no length is removed.
        set_md5_key(&listener, peer, b"").context("removing the key")
    };
    let shows = ["TcpExtTCPMD5NotFound"];
    stage.mended(&remedies, &shows, Some(&same_key), || {
        stage.connects().map(drop)
    })
}

/// The answer leaves by another device than the SYN came by, and a firewall on the way drops it there. Which way is
/// the right one, the user knows.
pub fn asymmetric_return(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("asymmetric-nat", family)?;
    let (client, server) = (&stage.lab.client, &stage.lab.server);
    let v6 = family.wire_is_v6();
    let address: IpAddr = match v6 {
        true => "fd00:5950:77::9".parse()?,
        false => "203.0.113.9".parse()?,
    };
    let whole = if v6 { 128 } else { 32 };
    net::link(&Link {
        here: (client, CLIENT_MAC_2),
        there: (server, SERVER_MAC_2),
        name: SECOND,
    })?;
    add_route(client, (address, whole), RouteTarget::Link(SECOND))?;
    add_neighbour(client, SECOND, address, SERVER_MAC_2)?;
    // An address that is being checked for duplicates takes no packets.
    let nodad = if v6 { " nodad" } else { "" };
    let add = format!("ip address add {address}/{whole} dev {SECOND}{nodad}");
    if !tools(&stage, server, &[add])? {
        return Ok(());
    }
    let mut firewall = FaultInjector::attach(client)?;
    firewall.set(0, syn_ack(), LossPattern::All, stage.port)?;
    let _listener = listener(&stage)?;
    let local = SocketAddr::new(stage.lab.as_sockets_write(stage.lab.client_ip()), 0);
    let peer = SocketAddr::new(stage.lab.as_sockets_write(address), stage.port);
    let connect = || Client::connect_from(client, local, peer);
    let remedies = stage.told_at_server("asymmetric-nat", || {
        let mut client = connect()?;
        ensure!(!stage.works(&mut client)?, "the fault was not made");
        until("a SYN is sent again", || Ok(client.retransmits()? > 0))?;
        until(
            "the SYN-ACK is sent again",
            || Ok(client.retransmits()? > 1),
        )
    })?;
    let back = || {
        let (ip, lladdr) = (stage.lab.client_ip(), mac(CLIENT_MAC_2));
        let back = [
            format!("ip neighbour replace {ip} lladdr {lladdr} dev {SECOND}"),
            format!("ip route replace {ip}/{whole} dev {SECOND}"),
        ];
        tools(&stage, server, &back).map(drop)
    };
    let shows = format!("dev {INTERFACE}");
    stage.mended(&remedies, &[&shows], Some(&back), || {
        stage.connected(connect()?).map(drop)
    })
}
