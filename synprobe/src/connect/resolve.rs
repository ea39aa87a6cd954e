//! Resolves a name to addresses with the C library, as applications do, and a zone to its interface. Both
//! in the calling thread's network namespace.

use std::{
    ffi::{CStr, CString},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

use thiserror::Error;

use super::target::{Target, TargetHost};

/// From netdb.h; the libc crate does not have it.
const EAI_NODATA: libc::c_int = -5;

/// The only family that is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl AddressFamily {
    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// Why there is no address, in one line with the remedy.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResolveError {
    /// An address of the other family.
    #[error("{0} is not an {family} address: leave out the option for the family", family = .1.name())]
    Family(IpAddr, AddressFamily),
    /// No such interface.
    #[error("no interface \"{zone}\" for {addr}; interfaces: {known}")]
    Zone {
        /// The zone of the argument.
        zone: String,
        /// The address.
        addr: IpAddr,
        /// The existing interfaces, as text.
        known: String,
    },
    /// The name has no address.
    #[error(
        "{name} does not resolve: {why}; check the spelling, /etc/hosts and /etc/resolv.conf \
         (getent ahosts {name})"
    )]
    Name {
        /// The name.
        name: String,
        /// The resolver's message.
        why: String,
    },
}

impl ResolveError {
    /// Whether the command line is wrong.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Name { .. })
    }
}

/// The addresses of a target, sorted by RFC 6724: the one to try first comes first.
///
/// # Errors
///
/// [`ResolveError`].
pub fn resolve(
    target: &Target,
    only: Option<AddressFamily>,
) -> Result<Vec<SocketAddr>, ResolveError> {
    match &target.host {
        TargetHost::Name(name) => by_name(name, target.port, only),
        TargetHost::Addr(addr, zone) => {
            if let Some(only) = only
                && (only == AddressFamily::Ipv4) != addr.to_canonical().is_ipv4()
            {
                return Err(ResolveError::Family(*addr, only));
            }
            let scope_id = match zone {
                Some(zone) => interface_index(zone).ok_or_else(|| ResolveError::Zone {
                    zone: zone.clone(),
                    addr: *addr,
                    known: interfaces(),
                })?,
                None => 0,
            };
            Ok(vec![match addr {
                IpAddr::V4(v4) => SocketAddrV4::new(*v4, target.port).into(),
                IpAddr::V6(v6) => SocketAddrV6::new(*v6, target.port, 0, scope_id).into(),
            }])
        }
    }
}

/// The name of an interface of this namespace.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that if_indextoname() wants.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: on success the buffer holds a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(name.to_string_lossy().into_owned())
}

/// By name, or by number.
fn interface_index(zone: &str) -> Option<u32> {
    let name = CString::new(zone).ok()?;
    // SAFETY: the name is a live NUL-terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => zone
            .parse::<u32>()
            .ok()
            .filter(|index| interface_name(*index).is_some()),
        index => Some(index),
    }
}

/// All of them, as words.
fn interfaces() -> String {
    // SAFETY: no arguments; the result is checked, and freed below.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return "none that could be listed".to_owned();
    }
    let mut names = Vec::new();
    let mut at = list;
    // SAFETY: the list ends with an entry whose index is 0 and whose name is null; each name before
    // it is NUL-terminated, and all of it lives until if_freenameindex().
    unsafe {
        while (*at).if_index != 0 && !(*at).if_name.is_null() {
            names.push(CStr::from_ptr((*at).if_name).to_string_lossy().into_owned());
            at = at.add(1);
        }
        libc::if_freenameindex(list);
    }
    names.join(", ")
}

fn by_name(
    name: &str,
    port: u16,
    only: Option<AddressFamily>,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let failed = |why: String| ResolveError::Name {
        name: name.to_owned(),
        why,
    };
    let asked = CString::new(name).map_err(|_| failed("it has a NUL in it".to_owned()))?;
    // SAFETY: addrinfo is integers and pointers; all zero asks for everything.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_family = match only {
        None => libc::AF_UNSPEC,
        Some(AddressFamily::Ipv4) => libc::AF_INET,
        Some(AddressFamily::Ipv6) => libc::AF_INET6,
    };
    let mut list = std::ptr::null_mut();
    // SAFETY: name and hints live through the call; the list is freed below.
    let code = unsafe {
        libc::getaddrinfo(
            asked.as_ptr(),
            std::ptr::null(),
            &raw const hints,
            &raw mut list,
        )
    };
    if code != 0 {
        return Err(failed(match (code, only) {
            (libc::EAI_SYSTEM, _) => io::Error::last_os_error().to_string(),
            (libc::EAI_AGAIN, _) => "no name server answers".to_owned(),
            (libc::EAI_NONAME | EAI_NODATA, Some(only)) => {
                format!("no such name, or it has no {} address", only.name())
            }
            (libc::EAI_NONAME | EAI_NODATA, None) => "no such name".to_owned(),
            // SAFETY: gai_strerror() gives a static NUL-terminated text for any number.
            _ => unsafe { CStr::from_ptr(libc::gai_strerror(code)) }
                .to_string_lossy()
                .into_owned(),
        }));
    }
    let mut addrs = Vec::new();
    let mut at = list;
    while !at.is_null() {
        // SAFETY: the list is getaddrinfo()'s own, each entry's address is of the family it states,
        // and nothing is freed before the loop is over.
        let entry = unsafe { &*at };
        addrs.extend(address(entry, port));
        at = entry.ai_next;
    }
    // SAFETY: it came from getaddrinfo() and is freed once.
    unsafe { libc::freeaddrinfo(list) };
    match addrs.is_empty() {
        true => Err(failed("it has no address".to_owned())),
        false => Ok(addrs),
    }
}

fn address(entry: &libc::addrinfo, port: u16) -> Option<SocketAddr> {
    if entry.ai_addr.is_null() {
        return None;
    }
    match entry.ai_family {
        libc::AF_INET => {
            // SAFETY: an AF_INET entry holds a sockaddr_in; read without assuming its alignment.
            let raw: libc::sockaddr_in = unsafe { std::ptr::read_unaligned(entry.ai_addr.cast()) };
            let addr = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(addr, port).into())
        }
        libc::AF_INET6 => {
            // SAFETY: an AF_INET6 entry holds a sockaddr_in6; read without assuming its alignment.
            let raw: libc::sockaddr_in6 = unsafe { std::ptr::read_unaligned(entry.ai_addr.cast()) };
            let addr = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(addr, port, 0, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(text: &str, only: Option<AddressFamily>) -> Result<Vec<SocketAddr>, ResolveError> {
        resolve(&text.parse().unwrap(), only)
    }

    #[test]
    fn literals_need_no_resolver() {
        let here = |text: &str| vec![text.parse::<SocketAddr>().unwrap()];
        assert_eq!(addrs("10.0.0.1:80", None), Ok(here("10.0.0.1:80")));
        assert_eq!(
            addrs("[::1]:80", Some(AddressFamily::Ipv6)),
            Ok(here("[::1]:80"))
        );
        let line = addrs("[::1]:80", Some(AddressFamily::Ipv4)).unwrap_err();
        assert!(line.is_usage() && line.to_string().contains("not an IPv4 address"));
    }

    #[test]
    fn a_zone_is_an_interface_by_name_or_by_number() {
        let lo = interface_index("lo").unwrap();
        assert_eq!(interface_name(lo).as_deref(), Some("lo"));
        for zone in ["lo".to_owned(), lo.to_string()] {
            let addrs = addrs(&format!("[fe80::1%{zone}]:22"), None).unwrap();
            let SocketAddr::V6(v6) = addrs[0] else {
                panic!("{addrs:?}")
            };
            assert_eq!((v6.scope_id(), v6.port()), (lo, 22));
        }
        let error = addrs("[fe80::1%nosuch0]:22", None).unwrap_err();
        let line = error.to_string();
        assert!(
            error.is_usage() && line.contains("nosuch0") && line.contains("lo"),
            "{line}"
        );
    }

    #[test]
    fn localhost_is_in_every_hosts_file() {
        let addrs = addrs("localhost:5432", Some(AddressFamily::Ipv4)).unwrap();
        assert_eq!(addrs[0], "127.0.0.1:5432".parse().unwrap());
    }

    #[test]
    #[ignore = "needs root"]
    fn a_name_that_does_not_resolve_is_one_line() {
        // RFC 6761: `.invalid` never resolves; and in there no name server can be reached.
        let alone = crate::sys::netns::NetNs::new_anonymous().unwrap();
        let error = alone.run(|| addrs("db.invalid:80", None)).unwrap();
        let error = error.unwrap_err();
        let line = error.to_string();
        assert!(!error.is_usage() && !line.contains('\n'), "{line}");
        assert!(line.contains("db.invalid does not resolve"), "{line}");
        assert!(line.contains("getent ahosts db.invalid"), "{line}");
    }
}
