//! Addresses of the lab's links.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    ns::Ns,
    rtnl::{Netlink, NetlinkRequest, family, index, octets},
};

/// Until then the kernel has made the local route of an IPv6 address.
const ROUTE_DEADLINE: Duration = Duration::from_secs(2);
/// `RTMGRP_IPV6_ROUTE` (linux/rtnetlink.h).
const RTMGRP_IPV6_ROUTE: libc::c_int = 0x400;

/// Adds `(address, prefix length)` to the link `name`, ready for use.
pub(super) fn add_address(ns: &Ns, name: &str, (address, prefix): (IpAddr, u8)) -> Result<()> {
    ns.run(|| {
        let mut header = [0; 8];
        header[0] = family(address);
        header[1] = prefix;
        header[4..8].copy_from_slice(&index(name)?.to_ne_bytes());
        let flags = libc::IFA_F_NODAD | libc::IFA_F_PERMANENT;
        let message = NetlinkRequest::new(
            libc::RTM_NEWADDR,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            &header,
        )
        .attr(libc::IFA_LOCAL, &octets(address))
        .attr(libc::IFA_ADDRESS, &octets(address))
        .attr(libc::IFA_FLAGS, &flags.to_ne_bytes());
        let mut rtnl = Netlink::open(libc::NETLINK_ROUTE, RTMGRP_IPV6_ROUTE)?;
        rtnl.request(message)
            .with_context(|| format!("adding {address}"))?;
        if address.is_ipv6() {
            rtnl.wait_local_route(&octets(address), Instant::now() + ROUTE_DEADLINE)
                .with_context(|| format!("waiting for the route to {address}"))?;
        }
        Ok(())
    })
}
