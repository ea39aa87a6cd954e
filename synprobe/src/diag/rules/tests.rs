use super::{
    nft_expr::{ParsedRule, parse_rule},
    prune::prune,
    xt_conditions, xtables,
};
use crate::model::{
    FilterAction, FilterBackend, FilterBase, FilterChain, FilterComparison, FilterFamily,
    FilterHook, FilterMatch, FilterRule, PacketField, Ruleset,
};

const INET: u8 = libc::NFPROTO_INET as u8;
/// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES of a namespace on Linux 6.18, whose rules iptables 1.8.9 made.
const FILTER_TABLE: &[u8] = include_bytes!("iptables-filter.bin");

/// An attribute, padded.
fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = Vec::new();
    bytes.extend((len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize((len + 3) & !3, 0);
    bytes
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attr(kind, &value.to_be_bytes())
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    attr(kind, &attr(1, bytes))
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    let name = format!("{name}\0");
    [attr(1, name.as_bytes()), attr(2, &data.concat())].concat()
}

fn meta(key: i32) -> Vec<u8> {
    expression("meta", &[number(1, 1), number(2, key as u32)])
}

fn payload(base: i32, at: u32, len: u32) -> Vec<u8> {
    let numbers = [
        number(1, 1),
        number(2, base as u32),
        number(3, at),
        number(4, len),
    ];
    expression("payload", &numbers)
}

fn compare(how: u32, bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, 1), number(2, how), value(3, bytes)])
}

fn mask(bytes: &[u8]) -> Vec<u8> {
    let zero = vec![0; bytes.len()];
    expression(
        "bitwise",
        &[number(1, 1), number(2, 1), value(4, bytes), value(5, &zero)],
    )
}

fn verdict(code: i32, chain: Option<&str>) -> Vec<u8> {
    let mut inside = number(1, code as u32);
    if let Some(chain) = chain {
        inside.extend(attr(2, format!("{chain}\0").as_bytes()));
    }
    expression("immediate", &[number(1, 0), attr(2, &attr(2, &inside))])
}

fn counter(packets: u64) -> Vec<u8> {
    expression(
        "counter",
        &[attr(1, &[0; 8]), attr(2, &packets.to_be_bytes())],
    )
}

/// The rule of these expressions. Its sets have keys of eight bytes.
fn parsed(expressions: &[Vec<u8>]) -> ParsedRule {
    parse_rule(INET, expressions.iter().map(Vec::as_slice), &|_| Some(8))
}

fn text(expressions: &[Vec<u8>]) -> String {
    parsed(expressions).text
}

const TRANSPORT: i32 = libc::NFT_PAYLOAD_TRANSPORT_HEADER;
const NETWORK: i32 = libc::NFT_PAYLOAD_NETWORK_HEADER;

#[test]
fn any_of_some_flags_is_written_as_nft_prints_it() {
    let flags = |how, bits| {
        text(&[
            payload(TRANSPORT, 13, 1),
            mask(&[0x02]),
            compare(how, &[bits]),
        ])
    };
    assert_eq!(flags(1, 0), "tcp flags syn");
    assert_eq!(flags(0, 0), "tcp flags 0x0 / syn");
    assert_eq!(flags(1, 0x02), "tcp flags != syn / syn");
}

#[test]
fn a_rule_of_nf_tables_is_read_as_nft_prints_it() {
    let rule = [
        meta(libc::NFT_META_NFPROTO),
        compare(0, &[2]),
        payload(NETWORK, 12, 3),
        compare(0, &[10, 1, 2]),
        meta(libc::NFT_META_L4PROTO),
        compare(0, &[6]),
        payload(TRANSPORT, 2, 2),
        compare(5, &1000u16.to_be_bytes()),
        compare(3, &2000u16.to_be_bytes()),
        payload(TRANSPORT, 13, 1),
        mask(&[0x12]),
        compare(0, &[0x02]),
        counter(7),
        verdict(libc::NF_DROP, None),
    ];
    let parsed = parsed(&rule);
    assert_eq!(
        parsed.text,
        "ip saddr 10.1.2.0/24 tcp dport >= 1000 tcp dport <= 2000 tcp flags syn / syn,ack counter drop"
    );
    assert_eq!(
        (parsed.action, parsed.counter),
        (FilterAction::Drop, Some(7))
    );
    assert_eq!(parsed.matches.len(), 6);
    assert_eq!(
        parsed.matches[5],
        FilterMatch::Bytes {
            field: PacketField::Transport(13),
            mask: vec![0x12],
            how: FilterComparison::Is,
            value: vec![2],
        }
    );
}

#[test]
fn devices_states_and_jumps_are_read() {
    let mut name = b"v0".to_vec();
    let prefix = [
        meta(libc::NFT_META_IIFNAME),
        compare(0, &name),
        verdict(libc::NFT_JUMP, Some("o")),
    ];
    assert_eq!(text(&prefix), "iifname \"v0*\" jump o");
    name.resize(16, 0);
    let whole = [
        meta(libc::NFT_META_OIFNAME),
        compare(1, &name),
        verdict(libc::NFT_GOTO, Some("o")),
    ];
    assert_eq!(text(&whole), "oifname != \"v0\" goto o");
    let state = |bits: u32| {
        let load = expression("ct", &[number(1, 1), number(2, 0)]);
        let rule = [
            load,
            mask(&bits.to_ne_bytes()),
            compare(1, &[0; 4]),
            verdict(libc::NF_DROP, None),
        ];
        let parsed = parsed(&rule);
        (parsed.matches, parsed.text)
    };
    assert_eq!(
        state(1),
        (
            vec![FilterMatch::Invalid],
            "ct state invalid drop".to_owned()
        )
    );
    assert_eq!(state(6).0, [FilterMatch::Undecided]);
    assert_eq!(state(6).1, "ct state established,related drop");
}

#[test]
fn what_is_not_known_stays_unknown() {
    for rule in [
        vec![
            expression("fib", &[number(1, 1)]),
            compare(0, &[1]),
            verdict(libc::NF_DROP, None),
        ],
        vec![expression("new_thing", &[]), verdict(libc::NF_DROP, None)],
        // A value of its own in the mask's place, and a register that was never loaded.
        vec![compare(0, &[1]), verdict(libc::NF_DROP, None)],
        vec![
            payload(TRANSPORT, 2, 2),
            expression(
                "bitwise",
                &[
                    number(1, 1),
                    number(2, 1),
                    value(4, &[1, 1]),
                    value(5, &[1, 0]),
                ],
            ),
            compare(0, &[1, 1]),
            verdict(libc::NF_DROP, None),
        ],
    ] {
        let parsed = parsed(&rule);
        assert!(
            parsed.matches.contains(&FilterMatch::Unknown),
            "{}",
            parsed.text
        );
    }
    // A counter behind the verdict does not count what the verdict took.
    let rule = [verdict(libc::NF_DROP, None), counter(7)];
    assert_eq!(parsed(&rule).counter, None);
    let target = expression("target", &[attr(1, b"NEW\0"), number(2, 0)]);
    let parsed = parsed(&[target]);
    assert_eq!(parsed.action, FilterAction::Unknown);
}

/// An address and a port in registers one after the other.
fn address_and_port() -> [Vec<u8>; 2] {
    let load = |register: u32, base: i32, at: u32, len: u32| {
        let numbers = [number(1, register), number(2, base as u32)];
        expression(
            "payload",
            &[&numbers[..], &[number(3, at), number(4, len)]].concat(),
        )
    };
    // NFT_REG_1 is NFT_REG32_00; the port is in NFT_REG32_01.
    [load(1, NETWORK, 16, 4), load(9, TRANSPORT, 2, 2)]
}

fn is(field: PacketField, value: &[u8]) -> FilterMatch {
    FilterMatch::Bytes {
        field,
        mask: vec![0xff; value.len()],
        how: FilterComparison::Is,
        value: value.to_vec(),
    }
}

#[test]
fn a_concatenation_is_compared_part_by_part() {
    let [address, port] = address_and_port();
    let rule = |how, value: &[u8]| {
        parsed(&[
            address.clone(),
            port.clone(),
            compare(how, value),
            verdict(libc::NF_DROP, None),
        ])
    };
    // A port has two bytes of its register, and zeros behind them.
    let value = [10, 0, 0, 1, 0, 80, 0, 0];
    let both = FilterMatch::AllOf(vec![
        is(PacketField::Network(16), &[10, 0, 0, 1]),
        is(PacketField::Transport(2), &[0, 80]),
    ]);
    let equal = rule(0, &value);
    assert_eq!(equal.matches, std::slice::from_ref(&both));
    assert_eq!(equal.text, "ip daddr . tcp dport 10.0.0.1 . 80 drop");
    let other = rule(1, &value);
    assert_eq!(other.matches, [FilterMatch::NoneOf(vec![both])]);
    assert_eq!(other.text, "ip daddr . tcp dport != 10.0.0.1 . 80 drop");
    // Of another length, or in another order.
    for (how, value) in [(0, &value[..5]), (2, &value[..]), (0, &[0; 20])] {
        assert_eq!(
            rule(how, value).matches,
            [FilterMatch::Unknown],
            "{value:?}"
        );
    }
}

#[test]
fn a_concatenation_is_looked_up_as_far_as_the_sets_key_goes() {
    let lookup = expression("lookup", &[attr(1, b"bad\0"), number(2, 1)]);
    let [address, port] = address_and_port();
    let rule = [address.clone(), port.clone(), lookup.clone()];
    let found = parsed(&rule);
    assert_eq!(found.text, "ip daddr . tcp dport @bad");
    let key = &found.lookups[0].1.key;
    assert!(key.has_len(8) && !key.has_len(4) && !key.has_len(12));
    let intervals = key.is(
        &[10, 0, 0, 0, 0, 80, 0, 0],
        Some(&[10, 0, 0, 255, 0, 90, 0, 0]),
    );
    let text = key.text(
        INET,
        &[10, 0, 0, 0, 0, 80, 0, 0],
        Some(&[10, 0, 0, 255, 0, 90, 0, 0]),
    );
    assert_eq!(text.as_deref(), Some("10.0.0.0/24 . 80-90"));
    assert!(matches!(&intervals, FilterMatch::AllOf(parts)
        if parts.len() == 2 && parts.iter().all(|part| matches!(part, FilterMatch::AllOf(both) if both.len() == 2))));
    // Any port.
    let any = key.is(
        &[10, 0, 0, 1, 0, 0, 0, 0],
        Some(&[10, 0, 0, 1, 0xff, 0xff, 0, 0]),
    );
    let address_alone = is(PacketField::Network(16), &[10, 0, 0, 1]);
    assert_eq!(
        any,
        FilterMatch::AllOf(vec![address_alone, FilterMatch::AllOf(Vec::new())])
    );
    // A set of addresses alone, and one whose key has a part that was never loaded.
    let of = |len| {
        let rule = rule.iter().map(Vec::as_slice);
        parse_rule(INET, rule, &|_| Some(len))
    };
    assert_eq!(of(4).text, "ip daddr @bad");
    assert!(of(12).lookups.is_empty());
    assert_eq!(of(12).matches, [FilterMatch::Unknown]);
    // The second part is of a rule's earlier condition, and is overwritten by a longer value.
    let v6 = payload(NETWORK, 24, 16);
    let stale = parsed(&[port, v6, lookup]);
    assert!(!stale.lookups[0].1.key.is_concatenation());
}

#[test]
fn a_part_that_a_record_does_not_have_is_not_decided() {
    let [_, port] = address_and_port();
    let lookup = expression("lookup", &[attr(1, b"bad\0"), number(2, 1)]);
    let found = parsed(&[meta(libc::NFT_META_MARK), port, lookup]);
    assert_eq!(found.text, "meta mark . tcp dport @bad");
    assert_eq!(found.matches, [FilterMatch::Undecided]);
    let key = &found.lookups[0].1.key;
    assert_eq!(
        key.is(&[1, 0, 0, 0, 0, 80, 0, 0], None),
        FilterMatch::AllOf(vec![
            FilterMatch::Undecided,
            is(PacketField::Transport(2), &[0, 80])
        ])
    );
}

#[test]
fn no_bytes_make_it_panic() {
    let rule = [
        payload(TRANSPORT, 2, 2),
        mask(&[0xff, 0]),
        compare(2, &[0, 1]),
        expression(
            "range",
            &[
                number(1, 1),
                number(2, 0),
                value(3, &[0, 1]),
                value(4, &[0, 2]),
            ],
        ),
        expression("lookup", &[attr(1, b"s\0"), number(2, 1)]),
        expression(
            "match",
            &[attr(1, b"multiport\0"), number(2, 1), attr(3, &[2; 48])],
        ),
        expression("ct", &[number(1, 1), number(2, 0)]),
        verdict(libc::NFT_JUMP, Some("x")),
    ];
    for one in &rule {
        for len in 0..one.len() {
            parsed(&[payload(TRANSPORT, 2, 2), one[..len].to_vec()]);
            let mut damaged = one.clone();
            damaged[len] ^= 0xff;
            parsed(&[payload(TRANSPORT, 2, 2), damaged]);
        }
    }
    for name in ["tcp", "multiport", "state", "conntrack"] {
        for len in 0..200 {
            let revision = match name {
                "multiport" => 1,
                "conntrack" => 3,
                _ => 0,
            };
            xt_conditions::condition(name, revision, &vec![0xff; len]);
        }
    }
}

#[test]
fn matches_of_x_tables_are_read() {
    let half = |n: u16| n.to_ne_bytes();
    // struct xt_tcp: --dport 10:20 --syn.
    let tcp = [
        half(0),
        half(65535),
        half(10),
        half(20),
        [0, 0x17],
        [0x02, 0],
    ]
    .concat();
    let (condition, text) = xt_conditions::condition("tcp", 0, &tcp);
    assert_eq!(text, "--dport 10:20 --tcp-flags fin,syn,rst,ack syn");
    assert!(matches!(condition, FilterMatch::AllOf(all) if all.len() == 2));
    let mut multiport = vec![1, 3];
    [80u16, 90, 443]
        .iter()
        .for_each(|port| multiport.extend(half(*port)));
    multiport.resize(2 + 30, 0);
    multiport.extend([1, 0, 0]);
    multiport.resize(2 + 45 + 1, 0);
    let (condition, text) = xt_conditions::condition("multiport", 1, &multiport);
    assert_eq!(text, "-m multiport --dports 80:90,443");
    assert!(matches!(condition, FilterMatch::AnyOf(any) if any.len() == 2));
    assert_eq!(
        xt_conditions::condition("state", 0, &1u32.to_ne_bytes()),
        (FilterMatch::Invalid, "-m state --state INVALID".to_owned())
    );
    assert_eq!(
        xt_conditions::condition("geoip", 1, &[0; 64]).0,
        FilterMatch::Unknown
    );
}

fn plain(action: FilterAction) -> FilterRule {
    FilterRule {
        handle: 1,
        text: String::new(),
        matches: Vec::new(),
        counter: None,
        action,
    }
}

fn chain(name: &str, is_base: bool, actions: &[FilterAction]) -> FilterChain {
    FilterChain {
        name: name.into(),
        show: None,
        backend: FilterBackend::Nft,
        family: FilterFamily::Any,
        base: is_base.then(|| FilterBase {
            hook: FilterHook::Input,
            devices: Vec::new(),
            drops: false,
            counter: None,
        }),
        rules: actions.iter().copied().map(plain).collect(),
    }
}

#[test]
fn what_cannot_drop_is_left_out_and_jumps_still_lead_to_their_chains() {
    use FilterAction::{Accept, Continue, Drop, Goto, Jump};
    let mut rules = Ruleset {
        chains: vec![
            chain("nat", true, &[Jump(1), Accept]),
            chain("of nat", false, &[Continue]),
            chain("input", true, &[Jump(4), Goto(3)]),
            chain("drops", false, &[Drop]),
            chain("accepts", false, &[Accept]),
        ],
        ..Ruleset::default()
    };
    prune(&mut rules);
    let names: Vec<&str> = rules
        .chains
        .iter()
        .map(|chain| chain.name.as_str())
        .collect();
    assert_eq!(names, ["input", "drops", "accepts"]);
    let actions: Vec<_> = rules.chains[0]
        .rules
        .iter()
        .map(|rule| rule.action)
        .collect();
    assert_eq!(actions, [Jump(2), Goto(1)]);
}

#[test]
fn a_table_of_iptables_is_read() {
    let rules = xtables::of_iptables(FILTER_TABLE);
    let chains: Vec<(&str, bool)> = rules
        .chains
        .iter()
        .map(|chain| {
            (
                chain.name.as_str(),
                chain.base.as_ref().is_some_and(|base| base.drops),
            )
        })
        .collect();
    assert_eq!(
        chains,
        [
            ("iptables table filter chain INPUT", true),
            ("iptables table filter chain FORWARD", false),
            ("iptables table filter chain OUTPUT", false),
            ("iptables table filter chain MINE", false),
        ]
    );
    let texts: Vec<&str> = rules
        .chains
        .iter()
        .flat_map(|chain| &chain.rules)
        .map(|rule| rule.text.as_str())
        .collect();
    assert_eq!(
        texts,
        [
            "-i lo -j ACCEPT",
            "! -s 10.99.0.0/16 -i eth+ -p tcp --dport 7001 -j DROP",
            "-p tcp -j MINE",
            "-p tcp -m multiport --dports 80,90:91 -j REJECT",
            "-j RETURN",
            // Every chain of a user ends with one more.
            "-j RETURN",
        ]
    );
    let actions: Vec<FilterAction> = rules.chains[0].rules.iter().map(|r| r.action).collect();
    assert_eq!(
        actions,
        [
            FilterAction::Accept,
            FilterAction::Drop,
            FilterAction::Jump(3)
        ]
    );
    assert_eq!(rules.chains[0].rules[1].counter, Some(3));
    // Cut anywhere, it gives what is whole.
    for len in 0..FILTER_TABLE.len() {
        xtables::of_iptables(&FILTER_TABLE[..len]);
    }
}
