use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Result;
use synprobe_common::{
    model::VerdictKind,
    sys::sockopts::{set_option, with_sockaddr},
};

use crate::{
    Client, GroundTruth, Lab, PORT, Side,
    scenario::{Scenario, ScenarioRun},
    socket::settle,
};

/// The keys differ.
const DIFFERENT: u16 = PORT;
/// Only the caller has a key.
const UNEXPECTED: u16 = PORT + 1;
/// Only the listener has one.
const UNSIGNED: u16 = PORT + 2;
const CLIENTS: u64 = 2;
/// The applications' SYNs leave at 0, 1 and 2 s.
const PATIENCE: Duration = Duration::from_millis(2500);
const RETRIES: u64 = 2;
const CALLERS_KEY: &[u8] = b"caller";
const LISTENERS_KEY: &[u8] = b"listener";

/// TCP MD5 signatures (RFC 2385): the listener's socket refuses the SYNs of peers with another key.
pub(super) struct TcpMd5Scenario;

/// `struct tcp_md5sig` (linux/tcp.h).
#[repr(C)]
struct Md5Key {
    peer: [u8; size_of::<libc::sockaddr_storage>()],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: i32,
    key: [u8; 80],
}

/// Sets the key for the segments of a peer; one of no length removes it.
pub fn set_md5_key(socket: &impl AsFd, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut option = Md5Key {
        peer: [0; _],
        flags: 0,
        prefix_len: 0,
        key_len: key.len() as u16,
        ifindex: 0,
        key: [0; _],
    };
    option.key[..key.len()].copy_from_slice(key);
    with_sockaddr(SocketAddr::new(peer, 0), |address, len| {
        // SAFETY: the address has `len` bytes and lives through the call; any address fits into sockaddr_storage.
        let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), len as usize) };
        option.peer[..bytes.len()].copy_from_slice(bytes);
    });
    set_option(
        &socket.as_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_MD5SIG,
        &option,
    )
}

impl Scenario for TcpMd5Scenario {
    fn name(&self) -> &'static str {
        "tcp-md5"
    }

    fn summary(&self) -> &'static str {
        "the listener refuses SYNs whose TCP MD5 signature is wrong, unexpected or missing"
    }

    fn nominal_seconds(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [u16] {
        &[DIFFERENT, UNEXPECTED, UNSIGNED]
    }

    fn run(&self, lab: &Lab, stop: &AtomicBool) -> Result<GroundTruth> {
        let mut run = ScenarioRun::new(self, lab, stop);
        let linear = lab.client.try_sysctl("ipv4/tcp_syn_linear_timeouts", "4")?;
        let client_addr = lab.as_sockets_write(lab.client_ip());
        let mut listeners = Vec::new();
        for &port in self.ports() {
            let listener = lab.listen(port, 128)?;
            if port != UNEXPECTED {
                set_md5_key(&listener, client_addr, LISTENERS_KEY)?;
            }
            listeners.push(listener);
        }
        let start = Instant::now();
        let mut clients = Vec::new();
        for &port in self.ports() {
            let peer = lab.server_addr(port);
            for _ in 0..CLIENTS {
                clients.push(Client::connect(&lab.client, peer, |fd| match port {
                    UNSIGNED => Ok(()),
                    _ => set_md5_key(fd, peer.ip(), CALLERS_KEY),
                })?);
            }
        }
        settle(&mut clients, stop, start + PATIENCE)?;
        let retries = if linear { RETRIES } else { RETRIES - 1 };
        run.clients_abandoned(&clients, retries as u32, VerdictKind::DroppedHere)?;
        drop(clients);
        run.note("the listener's socket refuses the SYNs before a half-open exists");
        let refused = CLIENTS * (retries + 1);
        run.expect(Side::Client, "ActiveOpens", 3 * CLIENTS..=3 * CLIENTS);
        run.expect(Side::Server, "TCPMD5Failure", refused..=refused);
        run.expect(Side::Server, "TCPMD5Unexpected", refused..=refused);
        run.expect(Side::Server, "TCPMD5NotFound", refused..=refused);
        run.expect(Side::Server, "PassiveOpens", 0..=0);
        let sent = 3 * CLIENTS * retries;
        run.expect_retransmits(Side::Client, "syn", sent..=sent);
        run.end()
    }
}
