//! The addresses of a namespace.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

use crate::sys::netns::NetNs;

/// Every address of every device in `netns`, loopback included, sorted, each once.
///
/// # Errors
/// The namespace cannot be entered, or the error of getifaddrs(3).
pub fn addresses(netns: &NetNs) -> io::Result<Vec<IpAddr>> {
    netns.run(of_this_thread)?
}

/// The addresses of the calling thread's namespace: getifaddrs() opens a netlink socket, which belongs to
/// the namespace of the thread.
fn of_this_thread() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: getifaddrs writes one pointer, which outlives the call.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = list;
    // SAFETY: the list is what getifaddrs made, not yet freed; each entry is null or valid.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: ifa_addr is null or a socket address that lives as long as the list.
        addresses.extend(unsafe { address(entry.ifa_addr) });
    }
    // SAFETY: the list is what getifaddrs made, freed once; nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The IP address in a socket address; `None` for null and for other families (AF_PACKET).
///
/// # Safety
/// `from` is null or points to a live socket address of the length that its family says.
unsafe fn address(from: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: as the caller promises; sockaddr is the common head of every family.
    let family = unsafe { from.as_ref() }?.sa_family;
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in.
            let v4 = unsafe { from.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6.
            let v6 = unsafe { from.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn a_namespace_has_its_own_addresses_and_no_others() {
        let ns = NetNs::new_anonymous().unwrap();
        let mut expected: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
        if synprobe_lab::has_ipv6() {
            expected.push(Ipv6Addr::LOCALHOST.into());
        }
        assert_eq!(addresses(&ns).unwrap(), expected);
    }

    #[test]
    #[ignore = "needs root"]
    fn both_ends_of_the_lab_have_the_addresses_they_were_given() {
        let lab = synprobe_lab::Lab::new(synprobe_lab::SocketFamily::V4).unwrap();
        let of = |ns: &synprobe_lab::Ns| addresses(&ns.netns()).unwrap();
        let (client, server) = (of(&lab.client), of(&lab.server));
        let (c, s) = (
            synprobe_lab::CLIENT_V4.into(),
            synprobe_lab::SERVER_V4.into(),
        );
        assert!(client.contains(&c) && !client.contains(&s), "{client:?}");
        assert!(server.contains(&s) && !server.contains(&c), "{server:?}");
    }
}
