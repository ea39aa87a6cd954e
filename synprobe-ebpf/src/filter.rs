//! The filter, cheapest test first. No data of a rejected connection leaves the kernel.

use aya_ebpf::maps::lpm_trie::Key;
use synprobe_ebpf::config::{
    BY_EITHER_PORT, BY_LOCAL_PORT, BY_PEER_PORT, Filter, PORT_WORDS, PORTS_EITHER, PORTS_LOCAL,
    PORTS_PEER,
};

use crate::{
    kread::{self, Kptr, Ports, ReadError, place},
    maps::{FILTER, PEERS, PORTS},
};

/// One setting of the filter. The verifier folds it into a constant.
macro_rules! setting {
    ($field:ident) => {
        $crate::filter::setting_at(::core::mem::offset_of!(
            synprobe_ebpf::config::Filter,
            $field
        ))
    };
}
pub(crate) use setting;

/// See [`setting!`].
#[inline(always)]
pub fn setting_at(byte: usize) -> u32 {
    let filter: *const Filter = (&raw const FILTER).cast();
    // SAFETY: `byte` is the offset of a u32 member of the filter (`setting!`).
    unsafe { filter.cast::<u8>().add(byte).cast::<u32>().read_volatile() }
}

#[inline(always)]
fn listed(bitmap: usize, port: u16) -> bool {
    let words: *const u64 = (&raw const PORTS).cast();
    let word = bitmap * PORT_WORDS + (usize::from(port) >> 6);
    // SAFETY: bitmap < 3 and port >> 6 < PORT_WORDS, so the word is inside the global.
    let word = unsafe { words.add(word).read_volatile() };
    word & (1 << (port & 63)) != 0
}

#[inline(always)]
pub fn ports_pass(ports: Ports) -> bool {
    let by = setting!(ports);
    // A client whose local port is not chosen yet may still match (`unbound`).
    let unknown = ports.local == 0 && setting!(unbound) != 0;
    if by & BY_EITHER_PORT != 0
        && !listed(PORTS_EITHER, ports.peer)
        && !unknown
        && !listed(PORTS_EITHER, ports.local)
    {
        return false;
    }
    if by & BY_LOCAL_PORT != 0 && !unknown && !listed(PORTS_LOCAL, ports.local) {
        return false;
    }
    if by & BY_PEER_PORT != 0 && !listed(PORTS_PEER, ports.peer) {
        return false;
    }
    true
}

/// Whether the role passes the filter.
#[inline(always)]
pub fn role_passes(role: u32) -> bool {
    let wanted = setting!(role);
    wanted == 0 || wanted == role
}

/// Whether the connection of `sk` (a `sock` or a `request_sock`) passes the ports, the namespace and
/// the peer networks.
#[inline(always)]
pub fn flow_passes(sk: Kptr, ports: Ports) -> Result<bool, ReadError> {
    if setting!(ports) != 0 && !ports_pass(ports) {
        return Ok(false);
    }
    if !netns_passes(sk)? {
        return Ok(false);
    }
    if setting!(peers) != 0 {
        let family: u16 = sk.read(place!(family))?;
        let peer = kread::peer_addr(sk, family)?;
        return Ok(PEERS.get(Key::new(128, peer)).is_some());
    }
    Ok(true)
}

/// Whether connections of a listener can pass, by its port and its namespace.
#[inline(always)]
pub fn listener_passes(sk: Kptr, ports: Ports) -> Result<bool, ReadError> {
    let by = setting!(ports);
    if by & BY_LOCAL_PORT != 0 && !listed(PORTS_LOCAL, ports.local) {
        return Ok(false);
    }
    if by & BY_EITHER_PORT != 0 && !listed(PORTS_EITHER, ports.local) {
        return Ok(false);
    }
    netns_passes(sk)
}

#[inline(always)]
fn netns_passes(sk: Kptr) -> Result<bool, ReadError> {
    Ok(setting!(netns) == 0 || inode_passes(kread::netns(sk)?))
}

/// As [`netns_passes`], for a namespace's inode.
#[inline(always)]
pub fn inode_passes(netns: u32) -> bool {
    setting!(netns) == 0 || netns == setting!(netns) || netns == setting!(netns_too)
}

/// Whether the ports pass, whichever of them is the local one.
#[inline(always)]
pub fn either_port_passes(ports: Ports) -> bool {
    let swapped = Ports {
        local: ports.peer,
        peer: ports.local,
    };
    setting!(ports) == 0 || ports_pass(ports) || ports_pass(swapped)
}

/// Whether the ends of a packet pass the ports and the peer networks; `peer` reads the peer's address from its
/// headers.
#[inline(always)]
pub fn ends_pass(
    ports: Ports,
    peer: impl FnOnce() -> Result<[u8; 16], ReadError>,
) -> Result<bool, ReadError> {
    if setting!(ports) != 0 && !ports_pass(ports) {
        return Ok(false);
    }
    Ok(setting!(peers) == 0 || PEERS.get(Key::new(128, peer()?)).is_some())
}
