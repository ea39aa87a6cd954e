//! Reads kernel structures at the offsets that the loader found in the running kernel's BTF.

use core::mem::offset_of;

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};
use synprobe_ebpf::{
    config::{MISSING, Offsets, unpack_bits},
    event::{AF_INET6, Flow},
};

use crate::maps::OFFSETS;

/// A failed read: the helper's negative errno.
pub type ReadError = i32;

/// The offset of one member. The verifier folds it into a constant.
macro_rules! place {
    ($field:ident) => {
        $crate::kread::place_at(::core::mem::offset_of!(
            synprobe_ebpf::config::Offsets,
            $field
        ))
    };
}
pub(crate) use place;

/// See [`place!`].
#[inline(always)]
pub fn place_at(byte: usize) -> u32 {
    let table: *const Offsets = (&raw const OFFSETS).cast();
    // SAFETY: `byte` is the offset of a u32 member of the table (`place!`). Volatile, because the
    // loader rewrites the table after compilation.
    unsafe { table.cast::<u8>().add(byte).cast::<u32>().read_volatile() }
}

/// A pointer into kernel memory, dereferenced only by `bpf_probe_read_kernel`.
#[derive(Clone, Copy)]
pub struct Kptr(*const u8);

impl Kptr {
    /// From a tracepoint's argument or a member read before.
    #[inline(always)]
    pub fn new(address: u64) -> Self {
        Self(address as *const u8)
    }

    /// The address as a number, which identifies the object.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// Reads a required member.
    #[inline(always)]
    pub fn read<T>(self, place: u32) -> Result<T, ReadError> {
        // SAFETY: bpf_probe_read_kernel checks the address and fails instead of faulting; `T` is
        // an integer or an array of bytes at every call.
        unsafe { bpf_probe_read_kernel(self.0.wrapping_add(place as usize).cast()) }
    }

    /// Reads two required members of one type, in one call where they are adjacent. The cost of a read is
    /// the call, not the bytes (about a hundred instructions on 6.12).
    #[inline(always)]
    pub fn read_both<T: Copy>(self, first: u32, second: u32) -> Result<(T, T), ReadError> {
        if second == first.wrapping_add(size_of::<T>() as u32) {
            let Both(first, second) = self.read(first)?;
            return Ok((first, second));
        }
        Ok((self.read(first)?, self.read(second)?))
    }

    /// Reads an optional member; `absent` where this kernel does not have it.
    #[inline(always)]
    pub fn read_or<T>(self, place: u32, absent: T) -> Result<T, ReadError> {
        if place == MISSING {
            return Ok(absent);
        }
        self.read(place)
    }

    /// Reads sixteen bytes to their destination.
    #[inline(always)]
    fn read_addr(self, place: u32, to: *mut [u8; 16]) -> Result<(), ReadError> {
        // SAFETY: as for `read`; the helper writes sixteen bytes.
        match unsafe {
            generated::bpf_probe_read_kernel(
                to.cast(),
                16,
                self.0.wrapping_add(place as usize).cast(),
            )
        } {
            0 => Ok(()),
            errno => Err(errno as ReadError),
        }
    }

    /// Reads a bitfield inside one byte.
    #[inline(always)]
    pub fn read_bits(self, place: u32) -> Result<u8, ReadError> {
        let (byte, shift, width) = unpack_bits(place);
        let value: u8 = self.read(byte as u32)?;
        Ok(((u32::from(value) >> shift) & ((1 << width) - 1)) as u8)
    }
}

/// Two adjacent members.
#[repr(C)]
#[derive(Clone, Copy)]
struct Both<T>(T, T);

/// `::ffff:a.b.c.d` in network order.
#[inline(always)]
pub fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Inode of the namespace of a `sock` (or of a `request_sock`: both start with a `sock_common`);
/// 0 on a kernel without namespaces.
#[inline(always)]
pub fn netns(sk: Kptr) -> Result<u32, ReadError> {
    let place = place!(net);
    if place == MISSING {
        return Ok(0);
    }
    inode(Kptr::new(sk.read(place)?))
}

/// Inode of the namespace of a `net_device`; 0 on a kernel without namespaces.
#[inline(always)]
pub fn netns_of_device(dev: Kptr) -> Result<u32, ReadError> {
    let place = place!(dev_net);
    if place == MISSING {
        return Ok(0);
    }
    inode(Kptr::new(dev.read(place)?))
}

#[inline(always)]
fn inode(net: Kptr) -> Result<u32, ReadError> {
    net.read(place!(ns_inum))
}

/// Peer address of a `sock` or `request_sock`, IPv4 mapped.
#[inline(always)]
pub fn peer_addr(sk: Kptr, family: u16) -> Result<[u8; 16], ReadError> {
    if family == AF_INET6 && place!(v6_daddr) != MISSING {
        return sk.read(place!(v6_daddr));
    }
    Ok(mapped(sk.read(place!(daddr))?))
}

/// Writes an address of an IP header at `ip` to an address of a [`Flow`], IPv4 mapped. `v4` and `v6`: its offsets.
#[inline(always)]
pub fn fill_addr(
    to: *mut [u8; 16],
    ip: Kptr,
    family: u16,
    (v4, v6): (u32, u32),
) -> Result<(), ReadError> {
    if family == AF_INET6 {
        return ip.read_addr(v6, to);
    }
    put_mapped(to, ip.read(v4)?);
    Ok(())
}

/// Writes both addresses to their destination, IPv4 mapped. On this target a copy of a byte array goes
/// byte by byte.
#[inline(never)]
fn fill_addrs(flow: &mut Flow, sk: Kptr, family: u16) -> Result<(), ReadError> {
    let (v6_peer, v6_local) = (place!(v6_daddr), place!(v6_rcv_saddr));
    if family == AF_INET6 && v6_peer != MISSING && v6_local != MISSING {
        sk.read_addr(v6_peer, &raw mut flow.peer_addr)?;
        return sk.read_addr(v6_local, &raw mut flow.local_addr);
    }
    let (peer, local) = sk.read_both(place!(daddr), place!(rcv_saddr))?;
    put_mapped(&raw mut flow.peer_addr, peer);
    put_mapped(&raw mut flow.local_addr, local);
    Ok(())
}

const _: () =
    assert!(offset_of!(Flow, peer_addr) % 4 == 0 && offset_of!(Flow, local_addr) % 4 == 0);

/// Writes [`mapped`] in words. `v4` is in network order, `addr` an address of a [`Flow`].
#[inline(always)]
fn put_mapped(addr: *mut [u8; 16], v4: u32) {
    let words = [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), v4];
    let at = addr.cast::<u32>();
    // SAFETY: sixteen bytes, aligned as the assertion above checks.
    unsafe {
        at.write(words[0]);
        at.add(1).write(words[1]);
        at.add(2).write(words[2]);
        at.add(3).write(words[3]);
    }
}

/// The two ports of a connection, in host order. The filter checks them first.
#[derive(Clone, Copy)]
pub struct Ports {
    /// 0 before the kernel has chosen it, and after its release.
    pub local: u16,
    /// 0 where the kernel does not have it.
    pub peer: u16,
}

impl Ports {
    /// Of a `sock` or a `request_sock` (`ir_num` is `skc_num`).
    #[inline(always)]
    pub fn of(sk: Kptr) -> Result<Self, ReadError> {
        let (peer, local) = sk.read_both::<u16>(place!(dport), place!(num))?;
        Ok(Self {
            local,
            peer: u16::from_be(peer),
        })
    }

    /// As [`Ports::of`], but from `inet_sport`, which remains after the release of the port at *→CLOSE
    /// (`tcp_set_state` → `inet_put_port` clears `skc_num`).
    #[inline(always)]
    pub fn of_closing(sk: Kptr) -> Result<Self, ReadError> {
        Ok(Self {
            local: u16::from_be(sk.read(place!(sport))?),
            peer: u16::from_be(sk.read(place!(dport))?),
        })
    }
}

/// Fills in the flow of a `sock` or a `request_sock`.
#[inline(always)]
pub fn fill_flow(flow: &mut Flow, sk: Kptr, ports: Ports) -> Result<(), ReadError> {
    let family: u16 = sk.read(place!(family))?;
    flow.family = family;
    flow.local_port = ports.local;
    flow.peer_port = ports.peer;
    flow.netns = netns(sk)?;
    fill_addrs(flow, sk, family)
}
