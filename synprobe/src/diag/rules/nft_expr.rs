//! One rule of nf_tables: its expressions, evaluated on registers as the kernel does, become conditions.

use super::{
    nft_key::Key,
    nft_registers::{RegisterValue, Registers},
    nft_sets::SetLookup,
    nft_socket::{attr, number, number64, string},
    nft_text, xt_conditions,
};
use crate::model::{FilterAction, FilterMatch, PacketField};

/// `NFT_REG32_00`: registers of four bytes. Those before are of sixteen.
const REG32_00: u32 = 8;
/// Targets of x_tables (`NFT_COMPAT`) that end the chain and do not drop.
const ENDING: [&str; 6] = [
    "SNAT",
    "DNAT",
    "MASQUERADE",
    "REDIRECT",
    "NETMAP",
    "NFQUEUE",
];
/// Those that do neither.
const HARMLESS: [&str; 19] = [
    "LOG",
    "NFLOG",
    "MARK",
    "CONNMARK",
    "TCPMSS",
    "CT",
    "NOTRACK",
    "DSCP",
    "TOS",
    "TTL",
    "HL",
    "SET",
    "CHECKSUM",
    "CLASSIFY",
    "TRACE",
    "CONNSECMARK",
    "SECMARK",
    "AUDIT",
    "TCPOPTSTRIP",
];

/// A rule, as it is understood.
pub(super) struct ParsedRule {
    pub matches: Vec<FilterMatch>,
    pub lookups: Vec<(usize, SetLookup)>,
    /// The verdict map that decides, and what it is asked for.
    pub map: Option<(String, Key)>,
    pub counter: Option<u64>,
    pub action: FilterAction,
    /// The chain of a jump.
    pub chain: Option<String>,
    pub text: String,
}

pub(super) struct RuleParser<'a> {
    pub registers: Registers,
    words: Vec<String>,
    pub rule: ParsedRule,
    pub family: u8,
    /// The bytes of a set's key, by its name; `None`: there is no such set.
    pub key_len: &'a dyn Fn(&str) -> Option<usize>,
}

/// From the expressions of a rule, in order. `key_len`: of the sets of its table.
pub(super) fn parse_rule<'a>(
    family: u8,
    expressions: impl Iterator<Item = &'a [u8]>,
    key_len: &dyn Fn(&str) -> Option<usize>,
) -> ParsedRule {
    let mut parser = RuleParser {
        key_len,
        registers: Registers::default(),
        words: Vec::new(),
        rule: ParsedRule {
            matches: Vec::new(),
            lookups: Vec::new(),
            map: None,
            counter: None,
            action: FilterAction::Continue,
            chain: None,
            text: String::new(),
        },
        family,
    };
    for expression in expressions {
        let name = string(expression, 1).unwrap_or_default();
        parser.expression(&name, attr(expression, 2).unwrap_or_default());
    }
    parser.rule.text = nft_text::joined(parser.words);
    parser.rule
}

pub(super) fn register(bytes: &[u8], kind: u16) -> u32 {
    match number(bytes, kind).unwrap_or(0) {
        n @ 1..=4 => REG32_00 + (n - 1) * 4,
        n => n,
    }
}

/// `NFTA_DATA_VALUE` in an attribute.
pub(super) fn data(bytes: &[u8], kind: u16) -> &[u8] {
    attr(bytes, kind)
        .and_then(|data| attr(data, 1))
        .unwrap_or_default()
}

impl RuleParser<'_> {
    fn is_acting(&self) -> bool {
        self.rule.action != FilterAction::Continue
    }

    fn load(&mut self, data: &[u8], value: RegisterValue) {
        self.registers.set(register(data, 1), value);
    }

    pub fn condition(&mut self, condition: FilterMatch, words: String) {
        self.rule.matches.push(condition);
        self.words.push(words);
    }

    pub fn act(&mut self, action: FilterAction, words: String) {
        if !self.is_acting() {
            self.rule.action = action;
        }
        self.words.push(words);
    }

    fn expression(&mut self, name: &str, data: &[u8]) {
        match name {
            "meta" => self.meta(data),
            "payload" => self.payload(data),
            "ct" => self.ct(data),
            "bitwise" => self.bitwise(data),
            "cmp" => self.compare(data),
            "range" => self.range(data),
            "lookup" => self.lookup(data),
            "immediate" => self.immediate(data),
            "reject" => {
                let with = if number(data, 1) == Some(1) {
                    " with tcp reset"
                } else {
                    ""
                };
                self.act(FilterAction::Drop, format!("reject{with}"));
            }
            "counter" => {
                if !self.is_acting() {
                    self.rule.counter = self.rule.counter.or(number64(data, 2));
                }
                self.words.push("counter".to_owned());
            }
            "limit" | "quota" | "connlimit" => {
                self.condition(FilterMatch::Undecided, format!("{name} …"));
            }
            "log" | "notrack" | "last" | "flow_offload" => self.words.push(name.to_owned()),
            "dup" => self.words.push("dup".to_owned()),
            "nat" | "masq" | "redir" | "queue" | "fwd" => {
                self.act(FilterAction::Accept, name.to_owned());
            }
            "tproxy" => self.words.push(name.to_owned()),
            "match" => {
                let xt = string(data, 1).unwrap_or_default();
                let revision = number(data, 2).unwrap_or(0);
                let info = attr(data, 3).unwrap_or_default();
                let (condition, words) = xt_conditions::condition(&xt, revision, info);
                self.condition(condition, words);
            }
            "target" => {
                let xt = string(data, 1).unwrap_or_default();
                self.act(xt_target(&xt), target_words(&xt));
            }
            "fib" | "socket" | "osf" | "rt" | "exthdr" | "hash" | "numgen" | "xfrm" | "tunnel"
            | "byteorder" => {
                let to = if name == "byteorder" { 2 } else { 1 };
                self.registers
                    .set(register(data, to), RegisterValue::Unknown);
                self.words.push(format!("[{name}]"));
            }
            // It may match, or not, or drop.
            "synproxy" => self.act(FilterAction::Unknown, name.to_owned()),
            _ => self.condition(FilterMatch::Unknown, format!("[{name}]")),
        }
    }

    fn meta(&mut self, data: &[u8]) {
        let key = number(data, 2).unwrap_or(u32::MAX);
        if attr(data, 3).is_some() {
            self.words
                .push(format!("meta {} set …", nft_text::meta_name(key)));
            return;
        }
        let whole = |len| vec![0xff; len];
        let value = match key as i32 {
            libc::NFT_META_L4PROTO => RegisterValue::Field(PacketField::Protocol, whole(1)),
            libc::NFT_META_NFPROTO => RegisterValue::Field(PacketField::NetfilterFamily, whole(1)),
            libc::NFT_META_PROTOCOL => RegisterValue::Field(PacketField::EtherType, whole(2)),
            libc::NFT_META_IIF => RegisterValue::Field(PacketField::CameByIndex, whole(4)),
            libc::NFT_META_IIFNAME => RegisterValue::Device(true),
            libc::NFT_META_OIFNAME => RegisterValue::Device(false),
            _ => {
                let name = format!("meta {}", nft_text::meta_name(key));
                RegisterValue::Undecided(name, nft_text::meta_len(key))
            }
        };
        self.load(data, value);
    }

    fn payload(&mut self, data: &[u8]) {
        let (base, at, len) = (number(data, 2), number(data, 3), number(data, 4));
        let (Some(base), Some(at), Some(len)) = (base, at, len) else {
            self.condition(FilterMatch::Unknown, "[payload]".to_owned());
            return;
        };
        if attr(data, 5).is_some() {
            // It writes into the packet: what comes later is not what was dropped.
            self.condition(FilterMatch::Unknown, "[payload set]".to_owned());
            return;
        }
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        let field = match base as i32 {
            libc::NFT_PAYLOAD_NETWORK_HEADER => PacketField::Network(at),
            libc::NFT_PAYLOAD_TRANSPORT_HEADER => PacketField::Transport(at),
            _ => {
                let value = RegisterValue::Undecided("ether …".to_owned(), Some(len as usize));
                return self.load(data, value);
            }
        };
        let mask = vec![0xff; (len as usize).min(64)];
        self.load(data, RegisterValue::Field(field, mask));
    }

    fn ct(&mut self, data: &[u8]) {
        const STATE: u32 = 0;
        if attr(data, 4).is_some() {
            self.words.push("ct … set …".to_owned());
            return;
        }
        let value = match number(data, 2) {
            Some(STATE) => RegisterValue::CtState(None),
            _ => RegisterValue::Undecided("ct …".to_owned(), None),
        };
        self.load(data, value);
    }

    fn bitwise(&mut self, all: &[u8]) {
        const MASK_AND_XOR: u32 = 0;
        let (mask, xor) = (data(all, 4), data(all, 5));
        let plain =
            number(all, 6).unwrap_or(MASK_AND_XOR) == MASK_AND_XOR && xor.iter().all(|b| *b == 0);
        let value = match self.registers.value(register(all, 1)) {
            RegisterValue::Field(field, known) if plain && mask.len() == known.len() => {
                let both = known.iter().zip(mask).map(|(a, b)| a & b);
                RegisterValue::Field(field, both.collect())
            }
            RegisterValue::CtState(None) if plain => {
                let mask = mask.first_chunk().map(|mask| u32::from_ne_bytes(*mask));
                mask.map_or(RegisterValue::Unknown, |mask| {
                    RegisterValue::CtState(Some(mask))
                })
            }
            RegisterValue::Undecided(name, len) => RegisterValue::Undecided(name, len),
            _ => RegisterValue::Unknown,
        };
        self.registers.set(register(all, 2), value);
    }

    fn immediate(&mut self, all: &[u8]) {
        let Some(verdict) = attr(all, 2).and_then(|data| attr(data, 2)) else {
            self.registers.set(register(all, 1), RegisterValue::Unknown);
            return;
        };
        self.rule.chain = string(verdict, 2);
        let to = self.rule.chain.clone().unwrap_or_default();
        let code = number(verdict, 1).unwrap_or(0) as i32;
        let (action, words) = match code {
            libc::NF_DROP => (FilterAction::Drop, "drop".to_owned()),
            libc::NF_ACCEPT => (FilterAction::Accept, "accept".to_owned()),
            libc::NFT_CONTINUE => (FilterAction::Continue, "continue".to_owned()),
            libc::NFT_JUMP => (FilterAction::Jump(0), format!("jump {to}")),
            libc::NFT_GOTO => (FilterAction::Goto(0), format!("goto {to}")),
            libc::NFT_RETURN => (FilterAction::Return, "return".to_owned()),
            _ => (FilterAction::Unknown, format!("verdict {code}")),
        };
        self.act(action, words);
    }
}

/// What a target of x_tables does.
pub(super) fn xt_target(name: &str) -> FilterAction {
    match name {
        "REJECT" => FilterAction::Drop,
        _ if ENDING.contains(&name) => FilterAction::Accept,
        _ if HARMLESS.contains(&name) => FilterAction::Continue,
        _ => FilterAction::Unknown,
    }
}

fn target_words(name: &str) -> String {
    match name {
        "REJECT" => "reject".to_owned(),
        name => name.to_owned(),
    }
}
