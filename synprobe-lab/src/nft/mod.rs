//! nf_tables: as much of it as dropping and redirecting chosen segments needs.
//!
//! Types, attributes and expressions: `linux/netfilter/nf_tables.h`. One transaction, between a
//! begin and an end of batch, makes the table, its base chains and the rules, or nothing.

mod expressions;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result};

use expressions::{
    Expression, bitwise, compare, expression, immediate, meta, nat, payload, tproxy, verdict,
};

use super::{
    ns::Ns,
    rtnl::{Netlink, NetlinkRequest, octets},
};

const TABLE: &[u8] = b"synprobe_lab\0";

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFT_NAT_SNAT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;
/// Where protocol, source and destination stand in the IPv4 and IPv6 headers.
const ADDRESS_OFFSETS: [[u32; 2]; 2] = [[12, 16], [8, 24]];
/// Where they stand in the TCP header.
const SOURCE_PORT_OFFSET: u32 = 0;
const DESTINATION_PORT_OFFSET: u32 = 2;
const FLAGS_OFFSET: u32 = 13;

/// The netfilter hook of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NftHook {
    /// Packets to this host.
    Input,
    /// Packets from this host.
    Output,
    /// Received packets before DNAT: TPROXY.
    Mangle,
    /// Received packets before routing: DNAT.
    Prerouting,
    /// Packets that are forwarded.
    Forward,
    /// Packets that leave: SNAT.
    Postrouting,
    /// Packets that leave, after SNAT.
    AfterSnat,
}

impl NftHook {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Input => b"input\0",
            Self::Output => b"output\0",
            Self::Mangle => b"mangle\0",
            Self::Prerouting => b"prerouting\0",
            Self::Forward => b"forward\0",
            Self::Postrouting => b"postrouting\0",
            Self::AfterSnat => b"after_snat\0",
        }
    }

    /// Number, priority and type of its base chain.
    fn base(self) -> (libc::c_int, libc::c_int, &'static [u8]) {
        let filter = (libc::NF_IP_PRI_FILTER, &b"filter\0"[..]);
        let nat = (libc::NF_IP_PRI_NAT_DST, &b"nat\0"[..]);
        let (number, (priority, kind)) = match self {
            Self::Input => (libc::NF_INET_LOCAL_IN, filter),
            Self::Output => (libc::NF_INET_LOCAL_OUT, filter),
            Self::Mangle => (
                libc::NF_INET_PRE_ROUTING,
                (libc::NF_IP_PRI_MANGLE, &b"filter\0"[..]),
            ),
            Self::Prerouting => (libc::NF_INET_PRE_ROUTING, nat),
            Self::Forward => (libc::NF_INET_FORWARD, filter),
            Self::Postrouting => (
                libc::NF_INET_POST_ROUTING,
                (libc::NF_IP_PRI_NAT_SRC, &b"nat\0"[..]),
            ),
            Self::AfterSnat => (
                libc::NF_INET_POST_ROUTING,
                (libc::NF_IP_PRI_NAT_SRC + 50, &b"filter\0"[..]),
            ),
        };
        (number, priority, kind)
    }
}

/// How a rule answers the segment that it drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NftReject {
    /// RST.
    Reset,
    /// ICMP or ICMPv6: administratively prohibited.
    Prohibited,
}

impl NftReject {
    /// NFTA_REJECT_TYPE, NFTA_REJECT_ICMP_CODE (one byte).
    fn expression(self) -> Expression {
        const TCP_RST: u32 = 1;
        const ICMPX: u32 = 2;
        const ICMPX_PROHIBITED: u8 = 3;
        Box::new(move |m| {
            m.attr(NFTA_EXPR_NAME, b"reject\0")
                .nested(NFTA_EXPR_DATA, |m| match self {
                    Self::Reset => m.attr(1, &TCP_RST.to_be_bytes()),
                    Self::Prohibited => {
                        m.attr(1, &ICMPX.to_be_bytes()).attr(2, &[ICMPX_PROHIBITED])
                    }
                })
        })
    }
}

/// A network: address and prefix length. The full length is one host.
pub type Network = (IpAddr, u8);

/// A rule for TCP segments. `None` matches anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NftRule {
    /// The hook.
    pub hook: NftHook,
    /// Network of the source.
    pub source: Option<Network>,
    /// Network of the destination.
    pub destination: Option<Network>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Mask and value of the flags byte.
    pub flags: Option<(u8, u8)>,
    /// Answers what it drops.
    pub reject: Option<NftReject>,
    /// Counts what it matches.
    pub counter: bool,
    /// `None`: drop. Otherwise the new destination of the connection, valid only at
    /// [`NftHook::Prerouting`].
    pub dnat: Option<SocketAddr>,
    /// The new source of the connection in place of a drop, valid only at [`NftHook::Postrouting`].
    pub snat: Option<IpAddr>,
    /// The one port that `snat` gives; `None`: any that is free.
    pub snat_port: Option<u16>,
    /// The port of the transparent listener that takes the connection in place of a drop, valid only at
    /// [`NftHook::Mangle`].
    pub tproxy: Option<u16>,
}

impl NftRule {
    /// A rule that drops every segment at a hook.
    pub fn drop(hook: NftHook) -> Self {
        Self {
            hook,
            source: None,
            destination: None,
            source_port: None,
            destination_port: None,
            flags: None,
            reject: None,
            counter: false,
            dnat: None,
            snat: None,
            snat_port: None,
            tproxy: None,
        }
    }

    /// A rule that rewrites the destination `from` to `to`.
    pub fn dnat(from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            destination: Some((from.ip(), whole(from.ip()))),
            destination_port: Some(from.port()),
            dnat: Some(to),
            ..Self::drop(NftHook::Prerouting)
        }
    }

    /// A rule that rewrites the source of connections to a port.
    pub fn snat(port: u16, to: IpAddr) -> Self {
        Self {
            destination_port: Some(port),
            snat: Some(to),
            ..Self::drop(NftHook::Postrouting)
        }
    }

    /// A rule that hands connections to a port to the transparent listener on another one.
    pub fn tproxy(port: u16, listener: u16) -> Self {
        Self {
            destination_port: Some(port),
            tproxy: Some(listener),
            ..Self::drop(NftHook::Mangle)
        }
    }

    fn expressions(&self, v6: bool) -> Vec<Expression> {
        let tcp = [libc::IPPROTO_TCP as u8];
        let mut all = vec![meta(libc::NFT_META_L4PROTO as u32), compare(&tcp)];
        let offsets = ADDRESS_OFFSETS[usize::from(v6)];
        for (network, at) in [self.source, self.destination].into_iter().zip(offsets) {
            let Some((address, prefix)) = network else {
                continue;
            };
            let mut value = octets(address);
            let mask = mask(value.len(), prefix);
            all.push(payload(libc::NFT_PAYLOAD_NETWORK_HEADER, at, value.len()));
            if prefix < whole(address) {
                value.iter_mut().zip(&mask).for_each(|(v, m)| *v &= m);
                all.push(bitwise(&mask));
            }
            all.push(compare(&value));
        }
        for (port, at) in [
            (self.source_port, SOURCE_PORT_OFFSET),
            (self.destination_port, DESTINATION_PORT_OFFSET),
        ] {
            if let Some(port) = port {
                all.push(payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, at, 2));
                all.push(compare(&port.to_be_bytes()));
            }
        }
        if let Some((mask, value)) = self.flags {
            all.push(payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, FLAGS_OFFSET, 1));
            all.push(bitwise(&[mask]));
            all.push(compare(&[value]));
        }
        if self.counter {
            all.push(expression(b"counter\0", vec![], vec![]));
        }
        if let Some(listener) = self.tproxy {
            all.push(immediate(libc::NFT_REG_1 as u32, &listener.to_be_bytes()));
            all.push(tproxy(v6));
            return all;
        }
        match (self.dnat, self.snat) {
            (None, None) => all.push(match self.reject {
                Some(with) => with.expression(),
                None => verdict(libc::NF_DROP as u32),
            }),
            (Some(to), _) => {
                all.push(immediate(libc::NFT_REG_1 as u32, &octets(to.ip())));
                all.push(immediate(libc::NFT_REG_2 as u32, &to.port().to_be_bytes()));
                all.push(nat(v6, NFT_NAT_DNAT, true));
            }
            (None, Some(to)) => {
                all.push(immediate(libc::NFT_REG_1 as u32, &octets(to)));
                if let Some(port) = self.snat_port {
                    all.push(immediate(libc::NFT_REG_2 as u32, &port.to_be_bytes()));
                }
                all.push(nat(v6, NFT_NAT_SNAT, self.snat_port.is_some()));
            }
        }
        all
    }
}

/// Adds rules to a namespace in one transaction, with the table and the chains that they need. They
/// vanish with the namespace. Needs CAP_NET_ADMIN.
pub fn install(ns: &Ns, v6: bool, rules: &[NftRule]) -> Result<()> {
    // The generic ICMP code exists for both families together only.
    let family = match v6 {
        _ if rules.iter().any(|rule| rule.reject.is_some()) => libc::NFPROTO_INET,
        true => libc::NFPROTO_IPV6,
        false => libc::NFPROTO_IPV4,
    } as u8;
    let create = libc::NLM_F_CREATE;
    let mut batch =
        vec![message(libc::NFT_MSG_NEWTABLE, create, family).attr(NFTA_TABLE_NAME, TABLE)];
    let hooks: BTreeSet<NftHook> = rules.iter().map(|rule| rule.hook).collect();
    for hook in hooks {
        let (number, priority, kind) = hook.base();
        let chain = message(libc::NFT_MSG_NEWCHAIN, create, family)
            .attr(NFTA_CHAIN_TABLE, TABLE)
            .attr(NFTA_CHAIN_NAME, hook.name())
            .nested(NFTA_CHAIN_HOOK, |m| {
                m.attr(NFTA_HOOK_HOOKNUM, &number.to_be_bytes())
                    .attr(NFTA_HOOK_PRIORITY, &priority.to_be_bytes())
            })
            .attr(NFTA_CHAIN_TYPE, kind);
        batch.push(chain);
    }
    for rule in rules {
        let flags = create | libc::NLM_F_APPEND;
        let message = message(libc::NFT_MSG_NEWRULE, flags, family)
            .attr(NFTA_RULE_TABLE, TABLE)
            .attr(NFTA_RULE_CHAIN, rule.hook.name())
            .nested(NFTA_RULE_EXPRESSIONS, |m| {
                let each = |m: NetlinkRequest, expression| m.nested(NFTA_LIST_ELEM, expression);
                rule.expressions(v6).into_iter().fold(m, each)
            });
        batch.push(message);
    }
    ns.run(|| commit(batch).context("setting nf_tables rules (needs CAP_NET_ADMIN and nf_tables)"))
}

fn commit(batch: Vec<NetlinkRequest>) -> io::Result<()> {
    let bound = |kind: libc::c_int| {
        let subsystem = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
        NetlinkRequest::new(kind as u16, 0, &[0, 0, subsystem[0], subsystem[1]]).without_ack()
    };
    let mut all = vec![bound(libc::NFNL_MSG_BATCH_BEGIN)];
    all.extend(batch);
    all.push(bound(libc::NFNL_MSG_BATCH_END));
    Netlink::open(libc::NETLINK_NETFILTER, 0)?.request_all(all)
}

/// A request with `struct nfgenmsg`.
fn message(kind: libc::c_int, flags: libc::c_int, family: u8) -> NetlinkRequest {
    let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16;
    NetlinkRequest::new(kind, flags, &[family, 0, 0, 0])
}

fn whole(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn mask(len: usize, prefix: u8) -> Vec<u8> {
    let bits = |at: usize| usize::from(prefix).saturating_sub(at * 8).min(8) as u32;
    (0..len)
        .map(|at| !0xff_u8.checked_shr(bits(at)).unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests;
