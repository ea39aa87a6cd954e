//! Packets that this host drops on ingress and on egress.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Result, ensure};
use synprobe::{filter::Selection, probe::hooks::DROPS};
use synprobe_ebpf::config::NAT_FEATURE;
use synprobe_lab::{
    Client, FaultInjector, INTERFACE, Lab, LossPattern, PORT, RawSender, SocketFamily,
    capture::Capture,
    net::add_neighbour,
    nft::{self, NftRule},
    packet::flags,
    syn,
};
use synprobe_tests::harness;

use super::{Watch, are_those_of, came_into_server, segment, stranger, wait};

/// A classifier on the way in, which is also what the lab loses segments with.
pub fn classifier(family: SocketFamily) -> Result<()> {
    const SYNS: u16 = 300;
    let lab = Lab::new(family)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.drop_here(0, syn(), LossPattern::All, PORT)?;
    let capture = Capture::start(&lab.server)?;
    let mut watch = Watch::on(&lab)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    // Its skb still belongs to the client's socket when the server's classifier drops it.
    let _client = Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))?;
    for n in 0..SYNS {
        sender.syn(stranger(&lab, n), server, u32::from(n))?;
    }
    watch.until(usize::from(SYNS) + 1)?;
    for record in &watch.seen {
        came_into_server(&lab, record)?;
        let is = (watch.reason(record), record.flags, record.listener);
        ensure!(is == ("TC_INGRESS", flags::SYN, 0), "{record:?}");
        ensure!(watch.host.reasons.own_doing(record.reason).is_some());
    }
    let records = watch.all()?;
    let lost = fault.count(0)?.dropped;
    ensure!(
        lost == records.len() as u64,
        "{lost} lost by the classifier"
    );
    are_those_of(&records, &capture.stop()?, |s| s.flags == flags::SYN)
}

/// A SYN that finds no socket is recorded, a RST is not. The server's own counter of RSTs says how many there were.
pub fn no_socket(family: SocketFamily) -> Result<()> {
    const SYNS: u16 = 20;
    let lab = Lab::new(family)?;
    // The RSTs come to the client's namespace, which has none of the senders' addresses, and drops them.
    let here = Selection {
        netns: Some([lab.server.inode(); 2]),
        ..Selection::default()
    };
    let mut watch = Watch::with(&lab, here)?;
    let before = lab.counters()?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    for n in 0..SYNS {
        sender.rst(stranger(&lab, n), server, u32::from(n))?;
        sender.syn(stranger(&lab, n), server, u32::from(n))?;
    }
    watch.until(usize::from(SYNS))?;
    for record in &watch.seen {
        came_into_server(&lab, record)?;
        let is = (watch.reason(record), record.flags, record.receiver);
        ensure!(is == ("NO_SOCKET", flags::SYN, 0), "{record:?}");
        ensure!(watch.host.reasons.own_doing(record.reason).is_none());
    }
    let sent = lab.counters()?.since(&before).server.get("OutRsts");
    let records = watch.all()?;
    ensure!(
        records.len() == usize::from(SYNS) && sent == u64::from(SYNS),
        "{} records, {sent} RSTs",
        records.len()
    );
    Ok(())
}

/// DNAT changes the port of a SYN that then finds no socket. The record has the port that was called, though connection
/// tracking forgets the connection at the RST; and a selection of that port alone selects it.
pub fn no_socket_after_nat(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let (called, to) = (lab.server_addr(PORT + 1), lab.server_addr(PORT));
    let rules = [NftRule::dnat(called, to)];
    nft::install(&lab.server, family.wire_is_v6(), &rules)?;
    // Where conntrack is a module, its structures may not be in the kernel's own BTF.
    let is_seen = !harness::host()?.missing.contains(&NAT_FEATURE);
    let here = Selection {
        netns: Some([lab.server.inode(); 2]),
        ports: match is_seen {
            true => called.port().to_string().parse()?,
            false => to.port().to_string().parse()?,
        },
        ..Selection::default()
    };
    let mut watch = Watch::with(&lab, here)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    sender.syn(stranger(&lab, 0), called, 7)?;
    let record = watch.until(1)?[0];
    came_into_server(&lab, &record)?;
    let is = (watch.reason(&record), segment(&record).destination);
    ensure!(is == ("NO_SOCKET", to), "{record:?}");
    let due = is_seen.then_some(called.port());
    ensure!(record.called_port() == due, "{due:?} is due: {record:?}");
    ensure!(watch.all()?.len() == 1);
    Ok(())
}

/// A client whose neighbour entry is wrong: its SYNs come in frames for another station, and are recorded up to the limit
/// of a second. What a program of tc only marks as such is not: the lab loses segments so.
pub fn other_station(family: SocketFamily) -> Result<()> {
    const SYNS: u16 = 5;
    let lab = Lab::new(family)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, syn(), LossPattern::First(1), PORT)?;
    let mut watch = Watch::on(&lab)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    sender.syn(stranger(&lab, SYNS), server, 0)?;
    add_neighbour(&lab.client, INTERFACE, lab.server_ip(), [2, 0, 0, 0, 0, 9])?;
    for n in 0..SYNS {
        sender.ack(stranger(&lab, n), server, u32::from(n), 1)?;
        sender.syn(stranger(&lab, n), server, u32::from(n))?;
    }
    watch.until(usize::from(SYNS))?;
    for (n, record) in (0..).zip(&watch.seen) {
        came_into_server(&lab, record)?;
        let is = (watch.reason(record), record.flags);
        ensure!(is == ("OTHERHOST", flags::SYN), "{record:?}");
        ensure!(segment(record).source == stranger(&lab, n), "{record:?}");
    }
    let records = watch.all()?;
    ensure!(records.len() == usize::from(SYNS), "{records:?}");
    Ok(())
}

/// The program for kernels that do not tell the receiving socket: it knows this host's own doing, and
/// nothing of half-opens.
pub fn without_receiver() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let mut hooks = harness::host()?.hooks.clone();
    for chosen in &mut hooks {
        if chosen.hook.name == DROPS {
            chosen.program = "drop_skb";
        }
    }
    let _listener = lab.listen(PORT, 64)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.drop_here(0, syn(), LossPattern::All, PORT + 1)?;
    let here = Selection {
        netns: Some([lab.server.inode(); 2]),
        ..Selection::default()
    };
    let mut watch = Watch::by(&lab, here, &hooks)?;
    let sender = RawSender::open(&lab.client, false)?;
    let server = |port| SocketAddr::new(lab.server_ip(), port);
    let before = lab.counters()?;
    let peer = stranger(&lab, 0);
    sender.syn(peer, server(PORT), 1)?;
    sender.syn(peer, server(PORT), 1)?;
    sender.rst(peer, server(PORT), 2)?;
    wait("the half-open's end", || {
        Ok(lab.counters()?.since(&before).server.get("EmbryonicRsts") == 1)
    })?;
    sender.syn(peer, server(PORT + 1), 3)?;
    watch.until(1)?;
    ensure!(watch.reason(&watch.seen[0]) == "TC_INGRESS");
    came_into_server(&lab, &watch.seen[0])?;
    let records = watch.all()?;
    ensure!(
        records.len() == 1 && records[0].listener == 0,
        "{records:#?}"
    );
    Ok(())
}

/// rp_filter=1, and the route back to the sender is another than the way it came.
pub fn reverse_path() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    lab.server.set_sysctl("ipv4/conf/all/rp_filter", "1")?;
    lab.server
        .run(|| route_by_loopback(Ipv4Addr::new(198, 19, 0, 0)))?;
    let _listener = lab.listen(PORT, 64)?;
    let capture = Capture::start(&lab.server)?;
    let sender = RawSender::open(&lab.client, false)?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let mut watch = Watch::on(&lab)?;
    for n in 1..=20u8 {
        let source = SocketAddr::from(([198, 19, 0, n], 50_000));
        sender.syn(source, server, u32::from(n))?;
        sender.ack(source, server, 7, 8)?;
        sender.rst(source, server, 9)?;
    }
    watch.until(60)?;
    for record in &watch.seen {
        came_into_server(&lab, record)?;
        ensure!(watch.reason(record) == "IP_RPFILTER", "{record:?}");
        ensure!(record.listener == 0 && record.payload == 0, "{record:?}");
    }
    let meaning = watch.host.reasons.own_doing(watch.seen[0].reason);
    ensure!(
        meaning.is_some_and(|m| m.words.contains("asymmetric")),
        "{meaning:?}"
    );
    are_those_of(&watch.all()?, &capture.stop()?, |_| true)?;
    ensure!(lab.half_opens(PORT)? == 0, "the SYNs did not get through");
    Ok(())
}

/// `ip route add NETWORK/16 dev lo`, in this thread's namespace.
fn route_by_loopback(network: Ipv4Addr) -> Result<()> {
    // SAFETY: all-zero bytes are a valid rtentry.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    let write = |to: &mut libc::sockaddr, ip: Ipv4Addr| {
        to.sa_family = libc::AF_INET as libc::sa_family_t;
        for (to, from) in to.sa_data[2..6].iter_mut().zip(ip.octets()) {
            *to = from as libc::c_char;
        }
    };
    write(&mut route.rt_dst, network);
    write(&mut route.rt_genmask, Ipv4Addr::new(255, 255, 0, 0));
    route.rt_flags = libc::RTF_UP;
    let mut device = *b"lo\0";
    route.rt_dev = device.as_mut_ptr().cast();
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "a socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the route and the device's name, which is NUL-terminated, outlive the call.
    let added = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCADDRT as _, &raw mut route) };
    ensure!(added == 0, "a route: {}", io::Error::last_os_error());
    Ok(())
}

/// On the way out: the next hop does not answer ARP, and the SYN that waited for it is dropped.
pub fn no_neighbour() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let absent: SocketAddr = "198.18.0.77:8080".parse()?;
    let capture = Capture::start(&lab.client)?;
    let mut watch = Watch::on(&lab)?;
    let client = Client::connect(&lab.client, absent, |_| Ok(()))?;
    let record = watch.until(1)?[0];
    let reason = watch.reason(&record);
    let is = (
        reason,
        record.flags,
        record.listener,
        record.ifindex,
        record.flow.netns,
    );
    let due = ("NEIGH_FAILED", flags::SYN, 0, 0, lab.client.inode());
    ensure!(is == due, "{due:?} is due: {record:?}");
    let told = segment(&record);
    ensure!(
        (told.source, told.destination) == (client.local, absent),
        "{told:?}"
    );
    ensure!(capture.stop()?.segments.is_empty(), "nothing got out");
    Ok(())
}
