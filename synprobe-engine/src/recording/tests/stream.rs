//! A stream of records as a busy host gives it.

use synprobe_ebpf::event::{AF_INET, Flow, Header, KIND_STATE, StateRecord, state};

/// xorshift64*: the same numbers every time.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }
}

const LEN: usize = size_of::<StateRecord>();

fn bytes(record: &StateRecord) -> [u8; LEN] {
    // SAFETY: repr(C), integers only, no padding; see `Wire`.
    unsafe { std::mem::transmute(*record) }
}

/// `count` records: two handshakes on loopback each give two. Ephemeral ports count up by two, or are
/// random; sockets come from a slab of 600; round trips and intervals are random.
pub(super) fn handshakes(count: usize, random_ports: bool) -> Vec<[u8; LEN]> {
    let mut random = Random(0x1234_5678_9abc);
    let slab: Vec<u64> = (0..600)
        .map(|i| {
            0xffff_8881_0000_0000 + (random.below(64) << 24) + i / 14 * 0x1_8000 + i % 14 * 2368
        })
        .collect();
    let mut loopback = [0; 16];
    loopback[10..].copy_from_slice(&[255, 255, 127, 0, 0, 1]);
    let mut records = Vec::with_capacity(count);
    let (mut ts_ns, mut port) = (1_000_000_000_000, 32768u16);
    while records.len() < count {
        let cpu = random.below(2) as u32;
        port = if random_ports {
            32768 + random.below(28_000) as u16
        } else {
            port.wrapping_add(2).max(32768)
        };
        let [client, server] = [(); 2].map(|()| slab[random.below(600) as usize]);
        let mut step = |sock: u64, old: u8, new: u8, gap_ns: u64| {
            let is_client = sock == client;
            let (local_port, peer_port) = if is_client {
                (port, 8080)
            } else {
                (8080, port)
            };
            let begins = old == state::CLOSE;
            let srtt = if new == state::ESTABLISHED {
                (20 + random.below(280) as u32) * 8
            } else {
                0
            };
            let record = StateRecord {
                header: Header {
                    kind: KIND_STATE,
                    len: LEN as u16,
                    cpu,
                    ts_ns,
                },
                flow: Flow {
                    local_addr: loopback,
                    peer_addr: loopback,
                    local_port,
                    peer_port,
                    family: AF_INET,
                    netns: 4_026_531_840,
                    ..Flow::default()
                },
                sock,
                cgroup: if begins { 5321 } else { 0 },
                tgid: if begins { 4711 } else { 0 },
                srtt_us: srtt,
                old,
                new,
                comm: if begins {
                    *b"bench-client\0\0\0\0"
                } else {
                    [0; 16]
                },
                ..StateRecord::default()
            };
            records.push(bytes(&record));
            ts_ns += 500 + random.below(gap_ns);
        };
        step(client, state::CLOSE, state::SYN_SENT, 6000);
        step(server, state::LISTEN, state::SYN_RECV, 3000);
        step(client, state::SYN_SENT, state::ESTABLISHED, 3000);
        step(server, state::SYN_RECV, state::ESTABLISHED, 9000);
    }
    records
}
