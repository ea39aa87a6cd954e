//! The expressions of a rule (`linux/netfilter/nf_tables.h`).

use super::{NFTA_EXPR_DATA, NFTA_EXPR_NAME};
use crate::rtnl::NetlinkRequest;

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
/// Adds an expression to a rule.
pub(super) type Expression = Box<dyn FnOnce(NetlinkRequest) -> NetlinkRequest>;

/// Builds an expression from its name and its attributes (type, value).
pub(super) fn expression(
    name: &'static [u8],
    numbers: Vec<(u16, u32)>,
    data: Vec<(u16, Vec<u8>)>,
) -> Expression {
    Box::new(move |m| {
        m.attr(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, |m| {
            let m = numbers
                .into_iter()
                .fold(m, |m, (kind, value)| m.attr(kind, &value.to_be_bytes()));
            data.into_iter().fold(m, |m, (kind, value)| {
                m.nested(kind, |m| m.attr(NFTA_DATA_VALUE, &value))
            })
        })
    })
}

const REG_1: u32 = libc::NFT_REG_1 as u32;

/// NFTA_META_DREG, NFTA_META_KEY.
pub(super) fn meta(key: u32) -> Expression {
    expression(b"meta\0", vec![(1, REG_1), (2, key)], vec![])
}

/// NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN.
pub(super) fn payload(base: libc::c_int, offset: u32, len: usize) -> Expression {
    let numbers = vec![(1, REG_1), (2, base as u32), (3, offset), (4, len as u32)];
    expression(b"payload\0", numbers, vec![])
}

/// NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR.
pub(super) fn bitwise(mask: &[u8]) -> Expression {
    let numbers = vec![(1, REG_1), (2, REG_1), (3, mask.len() as u32)];
    let data = vec![(4, mask.to_vec()), (5, vec![0; mask.len()])];
    expression(b"bitwise\0", numbers, data)
}

/// NFTA_CMP_SREG, _OP, _DATA.
pub(super) fn compare(value: &[u8]) -> Expression {
    let numbers = vec![(1, REG_1), (2, libc::NFT_CMP_EQ as u32)];
    expression(b"cmp\0", numbers, vec![(3, value.to_vec())])
}

/// NFTA_IMMEDIATE_DREG, _DATA.
pub(super) fn immediate(register: u32, value: &[u8]) -> Expression {
    expression(
        b"immediate\0",
        vec![(1, register)],
        vec![(2, value.to_vec())],
    )
}

/// NFTA_TPROXY_FAMILY, _REG_PORT (`nft_tproxy_init()`, Linux 4.19).
pub(super) fn tproxy(v6: bool) -> Expression {
    expression(b"tproxy\0", vec![(1, protocol(v6)), (3, REG_1)], vec![])
}

pub(super) fn protocol(v6: bool) -> u32 {
    match v6 {
        true => libc::NFPROTO_IPV6 as u32,
        false => libc::NFPROTO_IPV4 as u32,
    }
}

/// NFTA_NAT_TYPE, _FAMILY, _REG_ADDR_MIN, _REG_PROTO_MIN.
pub(super) fn nat(v6: bool, kind: u32, with_port: bool) -> Expression {
    let mut numbers = vec![(1, kind), (2, protocol(v6)), (3, REG_1)];
    if with_port {
        numbers.push((5, libc::NFT_REG_2 as u32));
    }
    expression(b"nat\0", numbers, vec![])
}

pub(super) fn verdict(code: u32) -> Expression {
    Box::new(move |m| {
        m.attr(NFTA_EXPR_NAME, b"immediate\0")
            .nested(NFTA_EXPR_DATA, |m| {
                m.attr(1, &(libc::NFT_REG_VERDICT as u32).to_be_bytes())
                    .nested(2, |m| {
                        m.nested(NFTA_DATA_VERDICT, |m| {
                            m.attr(NFTA_VERDICT_CODE, &code.to_be_bytes())
                        })
                    })
            })
    })
}
