use super::*;
use crate::{
    model::{
        FilterAction, FilterBase, FilterComparison, FilterFamily, FilterHook, FilterMatch,
        FilterRule, Outcome, PacketField,
    },
    verdict::{context::Packet, fixtures::*},
};

const INPUT: FilterHook = FilterHook::Input;

fn bytes(field: PacketField, value: &[u8]) -> FilterMatch {
    FilterMatch::Bytes {
        field,
        mask: vec![0xff; value.len()],
        how: FilterComparison::Is,
        value: value.to_vec(),
    }
}

fn to_port(port: u16) -> FilterMatch {
    bytes(PacketField::Transport(2), &port.to_be_bytes())
}

fn from_net(octets: &[u8]) -> FilterMatch {
    bytes(PacketField::Network(12), octets)
}

fn came_by(name: &str) -> FilterMatch {
    FilterMatch::Device {
        came_by: true,
        name: name.into(),
        is_prefix: false,
        is_not: false,
    }
}

fn rule(handle: u64, matches: Vec<FilterMatch>, action: FilterAction) -> FilterRule {
    FilterRule {
        handle,
        text: format!("text{handle}"),
        matches,
        counter: None,
        action,
    }
}

fn drops(handle: u64, matches: Vec<FilterMatch>) -> FilterRule {
    rule(handle, matches, FilterAction::Drop)
}

fn chain(name: &str, hook: Option<FilterHook>, rules: Vec<FilterRule>) -> FilterChain {
    FilterChain {
        name: format!("table inet f chain {name}"),
        show: Some(format!("nft -a list chain inet f {name}")),
        backend: FilterBackend::Nft,
        family: FilterFamily::Any,
        base: hook.map(|hook| FilterBase {
            hook,
            devices: Vec::new(),
            drops: false,
            counter: None,
        }),
        rules,
    }
}

fn policy_drop(mut chain: FilterChain) -> FilterChain {
    chain.base.as_mut().unwrap().drops = true;
    chain
}

fn reading(at_s: f64, chains: Vec<FilterChain>) -> FilterReading {
    let at_ns = T0 + (at_s * SEC as f64) as u64;
    FilterReading {
        netns: NETNS,
        before_ns: at_ns,
        at_ns: at_ns + 1000,
        found: FilterFound::Rules(Ruleset {
            rules_read: 9,
            chains,
            is_partial: false,
        }),
    }
}

/// A SYN of 10.0.0.9 to port 8080 of this host, by eth0. The drop is one second after T0.
fn syn() -> DroppedPacket {
    let h = half_open(Outcome::Expired);
    let plain = discard(&h, Packet::Syn, 1);
    DroppedPacket {
        from: plain.to,
        to: plain.from,
        incoming: true,
        came_by: 2,
        device: Some("eth0".into()),
        ..plain
    }
}

fn said(d: &DroppedPacket, readings: Vec<FilterReading>) -> RuleWords {
    let mut context = Context::default();
    context.has_addresses(NETNS, vec!["10.0.0.1".parse().unwrap()]);
    context.note_drop_by_rule(d);
    for reading in readings {
        context.note_rules(reading);
    }
    context.rule_of_drop(d).unwrap()
}

/// The sentence where the rules were read once, a moment after the drop.
fn once(d: &DroppedPacket, chains: Vec<FilterChain>) -> String {
    said(d, vec![reading(1.01, chains)]).fact
}

fn input(rules: Vec<FilterRule>) -> Vec<FilterChain> {
    vec![chain("in", Some(INPUT), rules)]
}

/// The same rules read before and after the drop, with the counters of each.
fn counted(rules: Vec<FilterRule>, before: &[Option<u64>], after: &[Option<u64>]) -> String {
    let with = |counters: &[Option<u64>]| {
        let mut rules = rules.clone();
        let both = rules.iter_mut().zip(counters);
        both.for_each(|(rule, counter)| rule.counter = *counter);
        input(rules)
    };
    said(
        &syn(),
        vec![reading(0.5, with(before)), reading(1.5, with(after))],
    )
    .fact
}

#[test]
fn the_only_rule_that_fits_is_named_and_shown() {
    let rules = vec![
        drops(1, vec![to_port(80)]),
        drops(2, vec![to_port(8080)]),
        drops(3, vec![from_net(&[10, 1])]),
        drops(4, vec![bytes(PacketField::Protocol, &[17])]),
        drops(5, vec![came_by("eth1")]),
        drops(6, vec![bytes(PacketField::NetfilterFamily, &[10])]),
        drops(7, vec![bytes(PacketField::Transport(0), &[0, 1])]),
    ];
    let words = said(&syn(), vec![reading(1.01, input(rules))]);
    assert_eq!(
        words.fact,
        "the rule: table inet f chain in handle 2: text2; no other rule or policy of nf_tables that drops \
         fits the packet (rules read 10.0 ms after it)"
    );
    assert_eq!(words.show.as_deref(), Some("nft -a list chain inet f in"));
}

#[test]
fn of_two_that_fit_neither_is_named_without_counters() {
    let rules = vec![
        drops(1, vec![FilterMatch::Undecided]),
        drops(2, vec![to_port(8080)]),
        drops(3, vec![]),
    ];
    // The second takes every packet: the third sees none.
    assert_eq!(
        once(&syn(), input(rules)),
        "rules that can have done it: table inet f chain in handle 1: text1; table inet f chain in handle 2: \
         text2 (rules read 10.0 ms after it)"
    );
}

#[test]
fn a_counter_that_did_not_rise_rules_its_rule_out() {
    let rules = vec![
        drops(1, vec![FilterMatch::Undecided]),
        drops(2, vec![to_port(8080)]),
    ];
    let fact = counted(rules.clone(), &[Some(5), Some(7)], &[Some(5), Some(8)]);
    assert_eq!(
        fact,
        "the rule: table inet f chain in handle 2: text2; its counter rose by 1 between two readings, and 1 \
         packet that it fits was seen to be dropped then"
    );
    // One that rose does not clear another that does not count, nor one that rose too.
    for (before, after) in [
        ([None, Some(7)], [None, Some(8)]),
        ([Some(5), Some(7)], [Some(6), Some(8)]),
    ] {
        let fact = counted(rules.clone(), &before, &after);
        assert!(fact.starts_with("rules that can have done it: "), "{fact}");
        assert!(fact.contains("text1") && fact.contains("text2"), "{fact}");
        assert!(fact.contains("(it counted once)"), "{fact}");
    }
    // None rose: none did it.
    let fact = counted(rules, &[Some(5), Some(7)], &[Some(5), Some(7)]);
    assert!(
        fact.starts_with("no rule of nf_tables that was read can"),
        "{fact}"
    );
}

#[test]
fn readings_on_one_side_of_the_drop_rule_nothing_out() {
    let with = |counter| {
        let counting = FilterRule {
            counter: Some(counter),
            ..drops(1, vec![to_port(8080)])
        };
        input(vec![counting])
    };
    for times in [[1.1, 1.2], [0.1, 0.2]] {
        let readings = times.map(|at| reading(at, with(3)));
        let fact = said(&syn(), readings.to_vec()).fact;
        assert!(
            fact.starts_with("the rule: table inet f chain in handle 1"),
            "{fact}"
        );
        assert!(!fact.contains("rose"), "{fact}");
    }
}

#[test]
fn rules_that_were_read_long_before_are_not_said_to_have_done_it() {
    let mut d = syn();
    let rules = || vec![reading(0.5, input(vec![drops(1, vec![])]))];
    let fact = said(&d, rules()).fact;
    assert!(
        fact.starts_with("the rule: ") && fact.ends_with("(rules read 500 ms before it)"),
        "{fact}"
    );
    d.last_ns = T0 + 100 * SEC;
    let fact = said(&d, rules()).fact;
    assert_eq!(
        fact,
        "this rule can have done it: table inet f chain in handle 1: text1 (rules read 99.5 s before it)"
    );
    // An equal reading after it shows that they stood.
    let mut both = rules();
    both.push(reading(103.0, input(vec![drops(1, vec![])])));
    let fact = said(&d, both).fact;
    assert!(
        fact.starts_with("the rule: ") && fact.ends_with("fits the packet"),
        "{fact}"
    );
}

#[test]
fn the_counter_of_fewer_packets_than_were_dropped_proves_nothing() {
    let d = syn();
    let mut context = Context::default();
    (0..3).for_each(|_| context.note_drop_by_rule(&d));
    for (at, counter) in [(0.5, 1), (1.5, 3)] {
        let counting = FilterRule {
            counter: Some(counter),
            ..drops(1, vec![to_port(8080)])
        };
        context.note_rules(reading(at, input(vec![counting])));
    }
    assert_eq!(
        context.rule_of_drop(&d).unwrap().fact,
        "this rule can have done it: table inet f chain in handle 1: text1; but its counter rose by 2 while \
         packets that it fits were dropped 3 times"
    );
}

#[test]
fn a_policy_drops_what_no_rule_accepts() {
    let with = |rules| vec![policy_drop(chain("in", Some(INPUT), rules))];
    let accepts = |matches| rule(1, matches, FilterAction::Accept);
    let fact = once(&syn(), with(vec![accepts(vec![to_port(80)])]));
    assert!(
        fact.starts_with("the rule: table inet f chain in: policy drop; no other"),
        "{fact}"
    );
    let fact = once(&syn(), with(vec![accepts(vec![FilterMatch::Undecided])]));
    assert!(
        fact.starts_with("the rule: table inet f chain in: policy drop; no other"),
        "{fact}"
    );
    let fact = once(&syn(), with(vec![accepts(vec![to_port(8080)])]));
    assert!(
        fact.starts_with("no rule of nf_tables that was read can"),
        "{fact}"
    );
    let fact = once(&syn(), with(vec![drops(1, vec![FilterMatch::Invalid])]));
    assert!(
        fact.contains("handle 1")
            && fact.contains("policy drop")
            && fact.starts_with("rules that can"),
        "{fact}"
    );
    // Conntrack's counter did not rise: it was not INVALID.
    let d = DroppedPacket {
        invalid: Some(false),
        ..syn()
    };
    let fact = once(&d, with(vec![drops(1, vec![FilterMatch::Invalid])]));
    assert!(
        fact.starts_with("the rule: table inet f chain in: policy drop"),
        "{fact}"
    );
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let other = |action| chain("other", None, vec![rule(7, vec![to_port(8080)], action)]);
    let by = |jump, action| {
        let base = chain(
            "in",
            Some(INPUT),
            vec![rule(1, vec![], jump), drops(2, vec![])],
        );
        once(&syn(), vec![policy_drop(base), other(action)])
    };
    let (jump, goto) = (FilterAction::Jump(1), FilterAction::Goto(1));
    let fact = by(jump, FilterAction::Drop);
    assert!(
        fact.starts_with("the rule: table inet f chain other handle 7"),
        "{fact}"
    );
    let fact = by(jump, FilterAction::Return);
    assert!(
        fact.starts_with("the rule: table inet f chain in handle 2"),
        "{fact}"
    );
    let fact = by(jump, FilterAction::Accept);
    assert!(
        fact.starts_with("no rule of nf_tables that was read can"),
        "{fact}"
    );
    let fact = by(goto, FilterAction::Return);
    assert!(
        fact.starts_with("the rule: table inet f chain in: policy drop"),
        "{fact}"
    );
    // A circle ends.
    let circle = vec![chain(
        "in",
        Some(INPUT),
        vec![rule(1, vec![], FilterAction::Jump(0)); 3],
    )];
    assert!(once(&syn(), circle).contains("not all rules could be"));
}

#[test]
fn what_is_not_understood_is_never_named() {
    let rules = || vec![drops(1, vec![FilterMatch::Unknown])];
    let fact = once(&syn(), input(rules()));
    assert_eq!(
        fact,
        "of the rules that drop, this one can have done it: table inet f chain in handle 1: text1 (not fully \
         understood) (rules read 10.0 ms after it)"
    );
    let fact = once(&syn(), input(vec![rule(1, vec![], FilterAction::Unknown)]));
    assert!(fact.contains("(not fully understood)"), "{fact}");
    let fact = counted(rules(), &[Some(1)], &[Some(2)]);
    assert!(fact.ends_with("(not fully understood)"), "{fact}");
    // Nor is any where not everything was read.
    let mut partial = reading(1.01, input(vec![drops(1, vec![])]));
    if let FilterFound::Rules(rules) = &mut partial.found {
        rules.is_partial = true;
    }
    let fact = said(&syn(), vec![partial]).fact;
    assert!(
        fact.starts_with("of the 9 rules that were read, this one can"),
        "{fact}"
    );
}

#[test]
fn only_hooks_on_the_way_of_the_packet_count() {
    let hooks = [
        FilterHook::Ingress,
        FilterHook::Prerouting,
        FilterHook::Input,
        FilterHook::Forward,
        FilterHook::Output,
        FilterHook::Postrouting,
        FilterHook::Egress,
    ];
    let chains = || -> Vec<FilterChain> {
        let each = hooks.iter().enumerate();
        each.map(|(n, hook)| chain(&format!("c{n}"), Some(*hook), vec![drops(n as u64, vec![])]))
            .collect()
    };
    let listed = |d: &DroppedPacket, context: &mut Context| -> Vec<usize> {
        context.note_drop_by_rule(d);
        context.note_rules(reading(1.01, chains()));
        let known = context.rules.known(NETNS).unwrap();
        let found = context.suspects(d, known).unwrap();
        found.left.iter().map(|at| at.chain).collect()
    };
    let mut context = Context::default();
    assert_eq!(listed(&syn(), &mut context), [0, 1, 2, 3, 5, 6]);
    context.has_addresses(NETNS, vec!["10.0.0.1".parse().unwrap()]);
    assert_eq!(listed(&syn(), &mut context), [0, 1, 2]);
    let out = discard(&half_open(Outcome::Expired), Packet::SynAck, 1);
    assert_eq!(listed(&out, &mut context), [4, 5, 6]);
}

#[test]
fn another_device_family_or_backend_is_not_listed() {
    let mut ingress = chain("ingress", Some(FilterHook::Ingress), vec![drops(1, vec![])]);
    ingress.base.as_mut().unwrap().devices = vec!["eth1".into()];
    let v6 = FilterChain {
        family: FilterFamily::V6,
        ..chain("v6", Some(INPUT), vec![drops(2, vec![])])
    };
    let legacy = FilterChain {
        backend: FilterBackend::Legacy,
        ..chain("legacy", Some(INPUT), vec![drops(3, vec![])])
    };
    let all = || vec![ingress.clone(), v6.clone(), legacy.clone()];
    assert!(
        once(&syn(), all())
            .starts_with("no rule of nf_tables that was read can have dropped this SYN (9 were read): the one that did it is gone")
    );
    let d = DroppedPacket {
        place: Some("nf_hook_slow".into()),
        ..syn()
    };
    assert_eq!(
        once(&d, all()),
        "of all rules and policies that drop, only this one fits: table inet f chain legacy rule 3: text3 \
         (rules read 10.0 ms after it)"
    );
    let eth1 = DroppedPacket {
        device: Some("eth1".into()),
        ..syn()
    };
    assert!(once(&eth1, all()).contains("chain ingress handle 1"));
}

#[test]
fn what_could_not_be_read_is_said() {
    let refused = |found| {
        let failed = FilterReading {
            found,
            ..reading(1.01, Vec::new())
        };
        said(&syn(), vec![failed])
    };
    assert_eq!(
        refused(FilterFound::NotPermitted).fact,
        "which rule did it was not looked at: reading rules needs CAP_NET_ADMIN"
    );
    assert!(
        refused(FilterFound::Failed("ENOBUFS".into()))
            .fact
            .ends_with("read: ENOBUFS")
    );
    let mut context = Context::default();
    context.note_drop_by_rule(&syn());
    assert_eq!(context.rule_of_drop(&syn()), None, "nothing was read");
    // A recording before this version: connection tracking and other reasons have no rule either.
    context.note_rules(reading(1.01, input(vec![drops(1, vec![])])));
    let other = DroppedPacket {
        reason: "IP_RPFILTER".into(),
        ..syn()
    };
    assert_eq!(context.rule_of_drop(&other), None);
}

#[test]
fn rules_that_changed_name_no_rule_of_before() {
    let first = reading(0.5, input(vec![drops(1, vec![])]));
    let later = |at| vec![first.clone(), reading(at, input(vec![drops(2, vec![])]))];
    let fact = said(&syn(), later(1.5)).fact;
    assert!(
        fact.starts_with("the rule: table inet f chain in handle 2"),
        "{fact}"
    );
    assert!(fact.ends_with("(rules read 500 ms after it)"), "{fact}");
    assert_eq!(
        said(&syn(), later(2.5)).fact,
        "the rules were changed after it: which one did it is not known"
    );
    let late = reading(8.0, input(vec![drops(2, vec![])]));
    let fact = said(&syn(), vec![late]).fact;
    assert_eq!(
        fact,
        "this rule can have done it: table inet f chain in handle 2: text2 (rules read 7.00 s after it)"
    );
}

#[test]
fn it_is_asked_once_and_again_after_a_pause() {
    let mut context = Context::default();
    assert!(context.wanted_rules(true).is_empty());
    let mut d = syn();
    context.note_drop_by_rule(&d);
    assert_eq!(context.wanted_rules(false), [NETNS]);
    assert!(context.wanted_rules(false).is_empty());
    context.note_rules(reading(1.01, Vec::new()));
    assert!(context.wanted_rules(true).is_empty(), "no drop since");
    d.last_ns = T0 + 2 * SEC;
    context.note_drop_by_rule(&d);
    assert!(context.wanted_rules(false).is_empty());
    assert_eq!(context.wanted_rules(true), [NETNS]);
    context.note_rules(reading(2.1, Vec::new()));
    d.last_ns = T0 + 5 * SEC;
    context.note_drop_by_rule(&d);
    assert_eq!(context.wanted_rules(false), [NETNS]);
    let refused = FilterReading {
        found: FilterFound::NotPermitted,
        ..reading(5.1, Vec::new())
    };
    context.note_rules(refused);
    d.last_ns = T0 + 60 * SEC;
    context.note_drop_by_rule(&d);
    assert!(
        context.wanted_rules(true).is_empty(),
        "it would be refused again"
    );
}
