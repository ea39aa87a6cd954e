//! Packets that half-opens processed, which no other event of the kernel reports.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result, ensure};
use synprobe::{filter::Selection, probe::kallsyms::Kallsyms};
use synprobe_lab::{
    FaultInjector, Lab, LossPattern, PORT, RawSender, SocketFamily, bare_ack,
    capture::{Capture, PacketTrace},
    packet::flags,
    set_option,
};

use super::{Watch, are_those_of, came_into_server, connected, stranger, wait};

/// Where a half-open's packets end.
fn receive_function(lab: &Lab) -> &'static str {
    match lab.family.wire_is_v6() {
        true => "tcp_v6_rcv",
        false => "tcp_v4_rcv",
    }
}

/// A repeated SYN, and the RST that ends it: nothing else in the kernel tells of either.
pub fn half_open(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 77)?;
    let capture = Capture::start(&lab.server)?;
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let before = lab.counters()?;
    // The client's namespace throws the SYN-ACKs away: nobody there has the address.
    let here = Selection {
        netns: Some([lab.server.inode(); 2]),
        ..Selection::default()
    };
    let mut watch = Watch::with(&lab, here)?;
    let (one, two) = (stranger(&lab, 0), stranger(&lab, 1));
    let seq = 0xffff_ffff;
    sender.syn(one, server, seq)?;
    sender.syn(two, server, 5)?;
    wait("two half-opens", || Ok(lab.half_opens(PORT)? == 2))?;
    sender.syn(one, server, seq)?;
    watch.until(1)?;
    sender.syn(one, server, seq)?;
    watch.until(2)?;
    sender.rst(one, server, seq.wrapping_add(1))?;
    watch.until(3)?;
    // Nobody's half-open: an ACK and a RST that only the listener sees.
    sender.ack(stranger(&lab, 2), server, 9, 9)?;
    sender.rst(stranger(&lab, 3), server, 9)?;
    let stray = || Ok(lab.counters()?.since(&before).server.get("OutRsts") == 1);
    wait("the answer to the ACK", stray)?;
    wait("one half-open", || Ok(lab.half_opens(PORT)? == 1))?;

    let symbols = Kallsyms::open();
    // The request is gone before the RST itself is.
    let due = [(flags::SYN, 2), (flags::SYN, 2), (flags::RST, 1)];
    for (record, (flags, qlen)) in watch.seen.iter().zip(due) {
        came_into_server(&lab, record)?;
        ensure!(watch.reason(record) == "NOT_SPECIFIED", "{record:?}");
        ensure!(symbols.name(record.location).as_deref() == Some(receive_function(&lab)));
        let is = (record.flags, record.listener, record.defer_accept);
        ensure!(is == (flags, 1, 0), "{record:?}");
        let queues = (
            record.qlen,
            record.young,
            record.ack_backlog,
            record.max_ack_backlog,
        );
        ensure!(queues == (qlen, qlen, 0, 77), "{record:?}");
    }
    let records = watch.all()?;
    ensure!(records.len() == 3, "{records:#?}");
    let resets = lab.counters()?.since(&before).server.get("EmbryonicRsts");
    ensure!(resets == 1, "{resets} EmbryonicRsts");
    // Of each peer the first segment was another matter.
    let mut taken = vec![one, two, stranger(&lab, 2), stranger(&lab, 3)];
    let recording = capture.stop()?;
    let again = recording
        .segments
        .iter()
        .filter(|c| !c.outgoing)
        .filter(|c| {
            let first = taken.iter().position(|peer| *peer == c.segment.source);
            first.map(|at| taken.remove(at)).is_none()
        });
    ensure!(again.count() == records.len(), "{recording:#?}");
    Ok(())
}

/// TCP_DEFER_ACCEPT swallows the final ACK; the data behind it makes the connection.
pub fn deferred(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let listener = lab.listen(PORT, 64)?;
    let seconds: libc::c_int = 5;
    set_option(
        &listener,
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        &seconds,
    )?;
    let capture = Capture::start(&lab.server)?;
    let mut watch = Watch::on(&lab)?;
    let mut client = connected(&lab)?;
    let record = *watch.until(1)?.first().context("a record")?;
    let reason = watch.reason(&record);
    came_into_server(&lab, &record)?;
    let is = (
        record.flags,
        record.listener,
        record.payload,
        record.qlen,
        reason,
    );
    ensure!(
        is == (flags::ACK, 1, 0, 1, "NOT_SPECIFIED"),
        "{is:?}: {record:?}"
    );
    ensure!(record.defer_accept > 0, "{record:?}");
    client.stream.write_all(b"now")?;
    wait("a child", || match listener.accept() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e.into()),
    })?;
    let records = watch.all()?;
    let ports = client.local.port();
    let recording = capture.stop()?;
    // Until the data, every ACK is a half-open's.
    let data = recording
        .segments
        .iter()
        .position(|c| c.segment.payload_len > 0);
    let recording = PacketTrace {
        segments: recording.segments[..data.context("the data")?].to_vec(),
        ..recording
    };
    are_those_of(&records, &recording, |s| {
        s.source.port() == ports && s.flags == flags::ACK
    })
}

/// The final ACK finds the accept queue full.
pub fn queue_full(family: SocketFamily) -> Result<()> {
    const BACKLOG: i32 = 1;
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, BACKLOG)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.drop_here(0, bare_ack(), LossPattern::First(1), PORT)?;
    let before = lab.counters()?;
    let mut watch = Watch::on(&lab)?;
    let half_open = connected(&lab)?;
    let lost = *watch.until(1)?.first().context("a record")?;
    fault.lift(0)?;
    // The backlog and one more.
    let _queued = [connected(&lab)?, connected(&lab)?];
    // The lost ACK once more, from here: the kernel's own follows a timer, and in its softirq some hosts run
    // no program (docs/kernel-facts.md).
    let sender = RawSender::open(&lab.client, family.wire_is_v6())?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let local = half_open.local;
    let client = SocketAddr::new(local.ip().to_canonical(), local.port());
    sender.ack(client, server, lost.seq, lost.ack)?;
    let records = watch.until(2)?.to_vec();
    let (lost, refused) = (&records[0], &records[1]);
    ensure!(
        watch.reason(lost) == "TC_INGRESS" && lost.listener == 0,
        "{lost:?}"
    );
    // Until 6.15 it has no reason of its own.
    let due = match watch.host.reasons.number("TCP_LISTEN_OVERFLOW") {
        Some(_) => "TCP_LISTEN_OVERFLOW",
        None => "NOT_SPECIFIED",
    };
    ensure!(watch.reason(refused) == due, "{refused:?}");
    for record in [lost, refused] {
        came_into_server(&lab, record)?;
        let who = (record.flow.peer_port, record.flags, record.payload);
        ensure!(who == (half_open.local.port(), flags::ACK, 0), "{record:?}");
    }
    let queues = (
        refused.listener,
        refused.qlen,
        refused.ack_backlog,
        refused.max_ack_backlog,
    );
    ensure!(queues == (1, 1, 2, BACKLOG as u32), "{refused:?}");
    let refusals = watch.all()?.len() - 1;
    let counted = lab.counters()?.since(&before).server.get("ListenOverflows");
    ensure!(
        counted == refusals as u64,
        "{refusals} records, {counted} counted"
    );
    Ok(())
}
