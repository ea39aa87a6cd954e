//! The reader against BTF built by hand, broken BTF, and the running kernel's.

use super::{
    blob::{Blob, Field},
    *,
};
use crate::probe::hooks::HOOKS;

fn place(byte: u32, bit: u32, width: u32, size: u32) -> Place {
    Place {
        byte_offset: byte,
        bit_offset_in_byte: bit,
        bit_width: width,
        size_bytes: size,
    }
}

/// One of everything that member() must look through.
fn sample() -> Blob {
    let mut b = Blob::new();
    let u8_ = b.int("u8", 1);
    let u32_ = b.int("unsigned int", 4);
    let net_type = b.composite(kind::STRUCT, "net_inner", 4, &[Field("n", u32_, 0, 0)]);
    let net_ptr = b.link(kind::PTR, "", net_type);
    let possible = b.composite(kind::STRUCT, "possible", 8, &[Field("net", net_ptr, 0, 0)]);
    let possible_t = b.link(kind::TYPEDEF, "possible_t", possible);
    let possible_c = b.link(kind::CONST, "", possible_t);
    let pair = b.composite(
        kind::STRUCT,
        "",
        8,
        &[Field("low", u32_, 0, 0), Field("high", u32_, 32, 0)],
    );
    let whole = b.int("u64", 8);
    let union = b.composite(
        kind::UNION,
        "",
        8,
        &[Field("whole", whole, 0, 0), Field("", pair, 0, 0)],
    );
    let cb = b.array(u8_, 48);
    b.composite(
        kind::STRUCT,
        "outer",
        72,
        &[
            Field("flag", u8_, 3, 5),
            Field("byte", u8_, 8, 0),
            Field("wide", u32_, 22, 10),
            Field("", union, 32, 0),
            Field("link", possible_c, 96, 0),
            Field("cb", cb, 160, 0),
        ],
    );
    let old = b.old_bitfield("u8", 1, 2, 3);
    let bool_ = b.int("_Bool", 1);
    b.composite(
        kind::STRUCT,
        "oldstyle",
        3,
        &[
            Field("plain", u8_, 0, 0),
            Field("bits", old, 8, 0),
            Field("bool", bool_, 16, 0),
        ],
    );
    b.raw("colour", kind::ENUM << 24 | 1, 4, &[0, 7]);
    b.tracepoint("hook", &["const struct sock *", "const int"]);
    b
}

fn parsed(blob: &Blob) -> Btf {
    Btf::parse(blob.bytes()).unwrap()
}

#[test]
fn members_are_found_through_everything() {
    let btf = parsed(&sample());
    let at = |path| btf.member("outer", path).unwrap();
    assert_eq!(at("flag"), place(0, 3, 5, 1));
    assert_eq!(at("byte"), place(1, 0, 0, 1));
    assert_eq!(at("wide"), place(2, 6, 10, 2));
    assert_eq!(at("whole"), place(4, 0, 0, 8));
    assert_eq!(at("high"), place(8, 0, 0, 4));
    assert_eq!(at("link.net"), place(12, 0, 0, size_of::<usize>() as u32));
    assert_eq!(at("cb"), place(20, 0, 0, 48));
    assert_eq!(btf.member("oldstyle", "bits").unwrap(), place(1, 2, 3, 1));
    assert_eq!(btf.member("oldstyle", "bool").unwrap(), place(2, 0, 0, 1));
}

#[test]
fn what_is_not_there_is_named() {
    let btf = parsed(&sample());
    let says = |container, path| btf.member(container, path).unwrap_err().to_string();
    assert_eq!(says("inner", "x"), "no struct inner");
    assert_eq!(says("outer", "nothing"), "no struct outer member nothing");
    assert_eq!(says("outer", "link."), "no struct outer member link.");
    assert_eq!(says("outer", ""), "no struct outer member ");
    assert_eq!(
        says("outer", "link.net.n"),
        "struct outer member link.net.n: net is a pointer, not an embedded structure"
    );
    assert!(says("outer", "cb.x").contains("an array"));
    assert!(says("outer", "byte.x").contains("a plain value"));
}

#[test]
fn of_two_structures_with_a_name_the_one_with_the_path_counts() {
    let mut b = Blob::new();
    let n = b.int("int", 4);
    b.composite(kind::STRUCT, "twin", 4, &[Field("other", n, 0, 0)]);
    b.composite(
        kind::STRUCT,
        "twin",
        8,
        &[Field("other", n, 0, 0), Field("wanted", n, 32, 0)],
    );
    let btf = parsed(&b);
    assert_eq!(btf.member("twin", "wanted").unwrap().byte_offset, 4);
}

fn value(btf: &Btf, enum_name: &str, name: &str) -> Option<i64> {
    let all = btf.enumerators(enum_name).unwrap();
    all.into_iter().find(|(n, _)| n == name).map(|(_, v)| v)
}

#[test]
fn enumerators() {
    let mut b = Blob::new();
    let (kept, signed) = (kind::ENUM << 24, 1 << 31 | kind::ENUM << 24);
    b.raw("empty", kept, 4, &[]);
    // The name of the only enumerator is the enum's own.
    b.raw("small", kept | 1, 4, &[7, 3]);
    b.raw("minus", signed | 1, 4, &[13, u32::MAX]);
    b.raw("large", kind::ENUM64 << 24 | 1, 8, &[19, 5, 1]);
    let btf = parsed(&b);
    assert_eq!(value(&btf, "small", "small"), Some(3));
    assert_eq!(value(&btf, "minus", "minus"), Some(-1));
    assert_eq!(value(&btf, "large", "large"), Some((1 << 32) + 5));
    assert_eq!(value(&btf, "small", "other"), None);
    assert_eq!(value(&btf, "none", "small"), None);

    b.enumeration("several", &[("one", 1), ("two", 2), ("most", u32::MAX)]);
    let btf = parsed(&b);
    let all = |name| btf.enumerators(name).unwrap();
    let named = |name: &str, value: i64| (name.to_owned(), value);
    let several = [named("one", 1), named("two", 2), named("most", 0xffff_ffff)];
    assert_eq!(all("several"), several);
    assert_eq!(value(&btf, "several", "two"), Some(2));
    assert_eq!(all("minus"), [named("minus", -1)]);
    assert_eq!(all("large"), [named("large", (1 << 32) + 5)]);
    assert_eq!(all("empty"), []);
    assert_eq!(all("none"), []);
    // A name that is not there.
    b.raw("broken", kind::ENUM << 24 | 1, 4, &[u32::MAX, 0]);
    assert!(parsed(&b).enumerators("broken").is_err());
}

#[test]
fn prototypes_read_like_c() {
    let mut b = Blob::new();
    for hook in HOOKS {
        b.tracepoint(hook.name, hook.variants[0].args);
    }
    let sock = b.raw("sock", kind::FWD << 24, 0, &[]);
    let pointer = b.link(kind::PTR, "", sock);
    let twice = b.link(kind::PTR, "", pointer);
    let fixed = b.link(kind::CONST, "", pointer);
    let proto = b.proto(sock, &[twice, fixed, 0]);
    b.link(kind::FUNC, "function", proto);
    let btf = parsed(&b);
    for hook in HOOKS {
        let prototype = btf.tracepoint_prototype(hook.name).unwrap();
        assert_eq!(prototype.args, hook.variants[0].args);
        assert!(prototype.takes(hook.variants[0].args));
    }
    let function = btf.function_prototype("function").unwrap();
    assert_eq!(
        function.to_string(),
        "(struct sock **, struct sock * const, ...)"
    );
    assert_eq!(function.returns, "struct sock");
    assert!(function.takes(&["struct sock **", "struct sock *", "..."]));
    assert!(!function.takes(&["struct sock **", "struct sock *"]));
    assert!(matches!(
        btf.tracepoint_prototype("none"),
        Err(BtfError::NoTracepoint(_))
    ));
    assert!(matches!(
        btf.function_prototype("none"),
        Err(BtfError::NoFunction(_))
    ));
}

#[test]
fn cycles_end() {
    let mut b = Blob::new();
    // Type 1 is a typedef of itself, type 2 a structure that holds itself twice, type 3 an array of
    // itself, type 4 a pointer to itself.
    b.link(kind::TYPEDEF, "loop", 1);
    b.composite(
        kind::STRUCT,
        "nest",
        4,
        &[Field("", 2, 0, 0), Field("", 2, 0, 0)],
    );
    b.array(3, 2);
    b.link(kind::PTR, "", 4);
    let fields = [
        Field("loop", 1, 0, 0),
        Field("", 1, 0, 0),
        Field("array", 3, 0, 0),
    ];
    b.composite(kind::STRUCT, "outer", 4, &fields);
    b.tracepoint("hook", &[]);
    let proto = b.proto(4, &[]);
    b.link(kind::FUNC, "function", proto);
    let btf = parsed(&b);
    assert!(matches!(btf.member("nest", "x"), Err(BtfError::TooDeep(_))));
    assert!(matches!(
        btf.member("outer", "loop"),
        Err(BtfError::TooDeep(_))
    ));
    assert!(matches!(
        btf.member("outer", "x"),
        Err(BtfError::TooDeep(_))
    ));
    assert!(matches!(
        btf.function_prototype("function"),
        Err(BtfError::TooDeep(_))
    ));
    let mut b = Blob::new();
    b.array(1, 2);
    b.composite(kind::STRUCT, "outer", 4, &[Field("array", 1, 0, 0)]);
    assert!(matches!(
        parsed(&b).member("outer", "array"),
        Err(BtfError::Malformed { .. })
    ));
}

#[test]
fn a_structure_that_multiplies_ends() {
    let mut b = Blob::new();
    // Each holds the one before it eight times: 8^20 members, without any cycle.
    for id in 0..20u32 {
        let fields: Vec<Field> = (0..8)
            .map(|_| Field(if id == 0 { "leaf" } else { "" }, id, 0, 0))
            .collect();
        b.composite(
            kind::STRUCT,
            if id == 19 { "outer" } else { "" },
            4,
            &fields,
        );
    }
    assert!(matches!(
        parsed(&b).member("outer", "x"),
        Err(BtfError::TooDeep(_))
    ));
}

#[test]
fn foreign_bytes_are_refused_in_words() {
    let error = |bytes: &[u8]| Btf::parse(bytes).err().unwrap();
    assert!(matches!(error(b""), BtfError::Truncated { .. }));
    assert!(matches!(error(b"\x7fELF...."), BtfError::Magic(_)));
    let mut bytes = sample().bytes();
    bytes.swap(0, 1);
    assert!(matches!(error(&bytes), BtfError::ForeignEndian));
    bytes.swap(0, 1);
    bytes[2] = 2;
    assert!(matches!(error(&bytes), BtfError::Version(2)));
    let mut b = Blob::new();
    b.int("int", 4);
    b.raw("later", 25 << 24, 0, &[]);
    let unknown = error(&b.bytes());
    assert!(
        matches!(
            unknown,
            BtfError::UnknownKind {
                id: 2,
                kind: 25,
                offset: 40
            }
        ),
        "{unknown}"
    );
    let read = |kind: io::ErrorKind| Btf::from_read(Err(kind.into())).err().unwrap();
    assert!(matches!(read(io::ErrorKind::NotFound), BtfError::Absent));
    assert!(matches!(
        read(io::ErrorKind::PermissionDenied),
        BtfError::Denied
    ));
    assert!(matches!(
        read(io::ErrorKind::OutOfMemory),
        BtfError::Read(_)
    ));
}

/// Asks for everything; whatever the answer, there is one.
fn exercise(bytes: Vec<u8>) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    for path in ["flag", "wide", "high", "link.net", "cb", "none"] {
        let _ = btf.member("outer", path);
    }
    let _ = btf.member("oldstyle", "bits");
    let _ = btf.enumerators("colour");
    let _ = btf.tracepoint_prototype("hook");
    for id in 1..btf.starts.len() as u32 {
        let _ = btf.size(id);
    }
}

#[test]
fn no_corrupt_byte_and_no_truncation_panics() {
    let good = sample().bytes();
    for at in 0..good.len() {
        exercise(good[..at].to_vec());
        // Every bit, and the values at which sizes, kinds and offsets tip over.
        let flips = (0..8).map(|bit| good[at] ^ 1 << bit);
        for value in flips.chain([0, 1, 0x0c, 0x13, 0x14, 0x1f, 0x7f, 0x80, 0xfe, 0xff]) {
            let mut bytes = good.clone();
            bytes[at] = value;
            exercise(bytes);
        }
    }
}

#[test]
fn no_truncation_of_the_kernels_own_panics() {
    let Ok(good) = fs::read(KERNEL_BTF) else {
        return;
    };
    for at in (0..good.len()).step_by(good.len() / 50 + 1) {
        // A prefix alone is refused for its length. With the header made to fit, the types of the
        // first part are read, and refer to others that are not there.
        assert!(Btf::parse(&good[..at]).is_err());
        let (Ok((types, strings)), true) = (sections(&good), at > HEADER_LEN) else {
            continue;
        };
        let kept = (at.min(types.end) - types.start) & !3;
        let mut bytes = good[..types.start + kept].to_vec();
        bytes.extend(&good[strings.clone()]);
        bytes[12..16].copy_from_slice(&(kept as u32).to_ne_bytes());
        bytes[16..20].copy_from_slice(&(kept as u32).to_ne_bytes());
        let Ok(btf) = Btf::parse(bytes) else { continue };
        let _ = crate::probe::offsets::resolve(&btf);
        for hook in HOOKS {
            let _ = btf.tracepoint_prototype(hook.name);
        }
    }
}

#[test]
fn the_running_kernel_is_understood() {
    let Ok(btf) = Btf::from_kernel() else { return };
    // Facts that hold on every kernel: include/net/sock.h, include/net/request_sock.h.
    assert_eq!(btf.member("sock", "__sk_common").unwrap().byte_offset, 0);
    assert_eq!(
        btf.member("sock", "__sk_common.skc_state").unwrap(),
        btf.member("request_sock", "__req_common.skc_state")
            .unwrap()
    );
    assert_eq!(btf.member("sk_buff", "cb").unwrap().size_bytes, 48);
    let hook = btf.tracepoint_prototype("inet_sock_set_state").unwrap();
    assert!(hook.takes(&["const struct sock *", "int", "int"]));
    assert!(btf.function_prototype("tcp_conn_request").is_ok());
}
