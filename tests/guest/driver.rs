//! A driver that frees what it has sent as if it dropped it: `vmxnet3` (VMware), which QEMU emulates. Its device is
//! on a hub without anybody else, so every SYN leaves and none is answered.

use std::{
    ffi::OsStr,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use synprobe::{
    filter::Selection,
    model::{Role, VerdictKind},
    probe::hooks::DROPS,
};
use synprobe_tests::{
    harness::{self, figure},
    pipeline_run::{options, watch},
};

const DRIVER: &str = "vmxnet3";
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
/// SYNs leave at 0, 1 and 3 s; with linear timeouts (Linux 6.5) at 0, 1, 2 and 3 s.
const PATIENCE: Duration = Duration::from_millis(3500);

/// What its counters say was sent was not dropped by this host.
pub fn frees_what_it_has_sent() -> Result<()> {
    let Some(device) = device()? else {
        figure(format!("not run: this kernel has no {DRIVER}"));
        return Ok(());
    };
    let _up = Up::new(device)?;
    let before = sent(&_up.0)?;
    let peer = SocketAddr::new(NOBODY.into(), 8080);
    let (_, run) = watch(options(Selection::default()), |_| {
        let connected = TcpStream::connect_timeout(&peer, PATIENCE);
        ensure!(connected.is_err(), "somebody answered");
        Ok(())
    })?;
    let (run, sent) = (run.complete()?, sent(&_up.0)? - before);
    let mine = run
        .handshakes()
        .map(|(_, h)| h)
        .find(|h| h.connection.role == Role::Client && h.connection.peer_addr == NOBODY);
    let h = mine.context("no line")?;
    let syns = u64::from(h.retransmits) + 1;
    ensure!(
        syns >= 3 && sent >= syns,
        "{syns} SYNs, and the device has sent {sent} packets"
    );
    ensure!(
        h.verdict == Some(VerdictKind::Filtered),
        "{:?}: {:#?}",
        h.verdict,
        h.evidence
    );
    let freed = h
        .evidence
        .iter()
        .find(|e| e.fact.starts_with("its SYN was freed "));
    let sees_drops = harness::host()?
        .hooks
        .iter()
        .any(|chosen| chosen.hook.name == DROPS);
    // The place is a return address: on x86-64 the driver's own, for its call of this function is a jump.
    let by = [" by vmxnet3_", "dev_kfree_skb_any"];
    let is_named = |fact: &str| by.iter().any(|by| fact.contains(by));
    ensure!(
        freed.is_some_and(|e| !e.supports && is_named(&e.fact)) == sees_drops,
        "{:#?}",
        h.evidence
    );
    figure(format!(
        "{sent} packets sent by {DRIVER}, {syns} of them SYNs; {}",
        freed.map_or("this kernel does not tell what it frees", |e| &e.fact)
    ));
    Ok(())
}

/// The device of the driver.
fn device() -> Result<Option<String>> {
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let driver = fs::read_link(entry.path().join("device/driver"));
        if driver.is_ok_and(|driver| driver.file_name() == Some(OsStr::new(DRIVER))) {
            return Ok(entry.file_name().into_string().ok());
        }
    }
    Ok(None)
}

/// Packets that the device has sent, as it counts them itself.
fn sent(device: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/sys/class/net/{device}/statistics/tx_packets"))?;
    Ok(text.trim().parse()?)
}

/// A device that is up while this lives, with an address; it asks for no neighbour.
struct Up(String);

impl Up {
    fn new(device: String) -> Result<Self> {
        let up = Self(device);
        up.request(libc::SIOCSIFADDR, |request| {
            // SAFETY: a sockaddr_in is no larger than the sockaddr of the union, and plain data.
            unsafe {
                let address = (&raw mut request.ifr_ifru.ifru_addr).cast::<libc::sockaddr_in>();
                (*address).sin_family = libc::AF_INET as libc::sa_family_t;
                (*address).sin_addr.s_addr = u32::from(HERE).to_be();
            }
        })?;
        up.flags(libc::IFF_UP | libc::IFF_NOARP)?;
        Ok(up)
    }

    fn flags(&self, flags: libc::c_int) -> Result<()> {
        self.request(libc::SIOCSIFFLAGS, |request| {
            request.ifr_ifru.ifru_flags = flags as libc::c_short;
        })
    }

    fn request(&self, kind: libc::c_ulong, set: impl FnOnce(&mut libc::ifreq)) -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        // SAFETY: all-zero bytes are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.0.bytes()) {
            *to = from as libc::c_char;
        }
        set(&mut request);
        // SAFETY: the descriptor and the request are alive for the call.
        match unsafe { libc::ioctl(socket.as_raw_fd(), kind as _, &raw mut request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).with_context(|| self.0.clone()),
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Err(error) = self.flags(0) {
            eprintln!("{error:#}");
        }
    }
}
