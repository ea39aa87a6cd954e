//! What the path does to packets, and a namespace that has a name.

use std::{
    ffi::CString,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, ensure};
use synprobe_common::sys::poll::{self, interest};
use synprobe_lab::{
    Client, Ns, RouteTarget, SocketFamily, add_route,
    net::{self, Link, add_neighbour},
};
use synprobe_tests::agent::until;

use super::{
    ports,
    stage::{Stage, tool},
};

const BACKLOG: i32 = 128;
const TO_CLIENT: &str = "lab1";
const TO_SERVER: &str = "lab2";
const MACS: [[u8; 6]; 4] = [
    [2, 0, 0, 0, 1, 1],
    [2, 0, 0, 0, 1, 0xfe],
    [2, 0, 0, 0, 2, 0xfe],
    [2, 0, 0, 0, 2, 2],
];

/// The path drops large packets, and tells nobody.
pub fn black_hole(family: SocketFamily) -> Result<()> {
    /// More than one segment.
    const DATA: usize = 4000;
    let stage = Stage::new("data-unacknowledged", family)?;
    let rule = format!("tcp dport {} meta length '>' 1200 drop", stage.port);
    for command in [
        "nft add table inet lab".to_owned(),
        "nft add chain inet lab path '{ type filter hook prerouting priority -300; }'".to_owned(),
        format!("nft add rule inet lab path {rule}"),
    ] {
        if !tool(&stage.name, &(stage.enter(&stage.lab.server) + &command))? {
            return Ok(());
        }
    }
    let listener = stage.lab.listen(stage.port, BACKLOG)?;
    let write = || -> Result<Client> {
        let mut client = stage.connects()?;
        client.stream.write_all(&[b'x'; DATA])?;
        Ok(client)
    };
    let accept = || -> Result<TcpStream> {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    let mut hangs = None;
    let remedies = stage.told("data-unacknowledged", || {
        let client = write()?;
        until("data is sent again", || Ok(client.retransmits()? >= 4))?;
        hangs = Some((client, accept()?));
        Ok(())
    })?;
    let (_client, mut stream) = hangs.take().context("a connection")?;
    let got = stream.read(&mut [0; DATA]);
    ensure!(got.is_err(), "data came: {got:?}");
    stage.mended(&remedies, &["net.ipv4.tcp_mtu_probing = 1"], None, || {
        let client = write()?;
        let mut stream = accept()?;
        let mut read = 0;
        until("all data comes", || {
            read += stream.read(&mut [0; DATA]).unwrap_or(0);
            Ok(read == DATA && client.unacknowledged()? == 0)
        })
    })
}

/// A wire in software: it hands frames on as it gets them, also those whose checksum a device was to compute.
struct Wire {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Wire {
    fn start(ns: &Ns, names: [&str; 2]) -> Result<Self> {
        let ends = [packet_socket(ns, names[0])?, packet_socket(ns, names[1])?];
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut rows = [0, 1].map(|n: usize| interest(ends[n].as_raw_fd(), libc::POLLIN));
                poll::wait(&mut rows, std::time::Instant::now() + poll::SLICE)?;
                hand_on(&ends[0], &ends[1]);
                hand_on(&ends[1], &ends[0]);
            }
            Ok(())
        });
        Ok(Self {
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A test that fails for it says so by itself.
            let _ = thread.join();
        }
    }
}

fn packet_socket(ns: &Ns, name: &str) -> Result<OwnedFd> {
    let name = CString::new(name)?;
    ns.run(|| {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket() takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        ensure!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: the name is a live NUL-terminated string.
        address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is alive and its length is its own size.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
        ensure!(
            bound == 0,
            "a packet socket: {}",
            io::Error::last_os_error()
        );
        Ok(fd)
    })
}

fn hand_on(from: &OwnedFd, to: &OwnedFd) {
    const OUTGOING: u8 = 4;
    let mut frame = [0u8; 4096];
    loop {
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the buffer and the address are alive, and their lengths are their own.
        let got = unsafe {
            libc::recvfrom(
                from.as_raw_fd(),
                frame.as_mut_ptr().cast(),
                frame.len(),
                0,
                (&raw mut address).cast(),
                &raw mut len,
            )
        };
        let Ok(got) = usize::try_from(got) else {
            return;
        };
        if address.sll_pkttype != OUTGOING {
            // SAFETY: the buffer is alive and has so many bytes. A wire may lose a frame.
            unsafe { libc::send(to.as_raw_fd(), frame.as_ptr().cast(), got, 0) };
        }
    }
}

/// The client leaves its checksums to a device that does not compute them. Which device that is, the other host
/// knows.
pub fn checksum(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, checksum", family)?;
    let (client, server) = (&stage.lab.client, &stage.lab.server);
    let middle = Ns::new_anonymous("wire")?;
    net::prepare(&middle)?;
    for (there, name, here_mac, there_mac) in [
        (client, TO_CLIENT, MACS[1], MACS[0]),
        (server, TO_SERVER, MACS[2], MACS[3]),
    ] {
        net::link(&Link {
            here: (&middle, here_mac),
            there: (there, there_mac),
            name,
        })?;
    }
    let v6 = family.wire_is_v6();
    let (own, address): (IpAddr, IpAddr) = match v6 {
        true => ("fd00:5950:78::1".parse()?, "fd00:5950:77::9".parse()?),
        false => ("203.0.113.129".parse()?, "203.0.113.9".parse()?),
    };
    let whole = if v6 { 128 } else { 32 };
    for (ns, name, here, there, mac) in [
        (client, TO_CLIENT, own, address, MACS[3]),
        (server, TO_SERVER, address, own, MACS[0]),
    ] {
        add_route(ns, (here, whole), RouteTarget::Here)?;
        add_route(ns, (there, whole), RouteTarget::Link(name))?;
        add_neighbour(ns, name, there, mac)?;
    }
    // Frames pass with any address.
    for name in [TO_CLIENT, TO_SERVER] {
        let command = format!("ip link set {name} promisc on");
        let enter = format!("nsenter --net=/proc/{}/fd/{} ", std::process::id(), {
            use std::os::fd::AsFd;
            middle.fd().as_fd().as_raw_fd()
        });
        if !tool(&stage.name, &(enter + &command))? {
            return Ok(());
        }
    }
    let set = |to: &str| {
        let command = format!("ethtool -K {TO_CLIENT} tx {to}");
        tool(&stage.name, &(stage.enter(client) + &command))
    };
    if !set("on")? {
        return Ok(());
    }
    let _wire = Wire::start(&middle, [TO_CLIENT, TO_SERVER])?;
    let _listener = stage.lab.listen(stage.port, BACKLOG)?;
    let connect = || {
        let local = SocketAddr::new(stage.lab.as_sockets_write(own), 0);
        let peer = SocketAddr::new(stage.lab.as_sockets_write(address), stage.port);
        Client::connect_from(client, local, peer)
    };
    let remedies = stage.told("dropped-here", || {
        let mut client = connect()?;
        ensure!(!stage.works(&mut client)?, "the fault was not made");
        until("a SYN is sent again", || Ok(client.retransmits()? > 0))
    })?;
    let off = || set("off").map(drop);
    let shows = ["TcpInCsumErrors", "Features for lab2"];
    stage.mended(&remedies, &shows, Some(&off), || {
        stage.connected(connect()?).map(drop)
    })
}

/// A name below /run/netns; dropping it removes the name.
struct Name(String);

impl Drop for Name {
    fn drop(&mut self) {
        // The namespace itself is the lab's.
        let _ = super::steps::run(&format!("ip netns del {}", self.0));
    }
}

/// The client's namespace has a name: commands enter it by that.
pub fn named(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("ports-exhausted, in a named namespace", family)?;
    let name = Name(format!(
        "synprobe-remedies-{}-{}",
        std::process::id(),
        stage.port
    ));
    let attach = format!("ip netns attach {} {}", name.0, stage.client_pid());
    if !tool(&stage.name, &attach)? {
        return Ok(());
    }
    let enter = format!("ip netns exec {} sysctl -w ", name.0);
    ports::exhausted(&stage, &enter)
}
