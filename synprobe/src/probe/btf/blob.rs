//! Builds small BTF for tests.

use std::collections::BTreeMap;

use super::{MAGIC, VERSION, kind};
use crate::probe::hooks::Hook;
use synprobe_ebpf::config::{Access, MEMBERS, Member};

/// A member of a structure under construction: name, type, offset in bits, width (0: none).
pub struct Field<'a>(pub &'a str, pub u32, pub u32, pub u32);

/// BTF under construction. Every method that adds a type gives its number.
pub struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: u32,
}

impl Blob {
    pub fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            next: 1,
        }
    }

    fn text(&mut self, s: &str) -> u32 {
        if s.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(s.as_bytes());
        self.strings.push(0);
        at
    }

    /// Any type: its record, and the words behind it.
    pub fn raw(&mut self, name: &str, info: u32, size_or_type: u32, extra: &[u32]) -> u32 {
        let name = self.text(name);
        for word in [name, info, size_or_type].iter().chain(extra) {
            self.types.extend(word.to_ne_bytes());
        }
        self.next += 1;
        self.next - 1
    }

    pub fn int(&mut self, name: &str, size: u32) -> u32 {
        self.raw(name, kind::INT << 24, size, &[size * 8])
    }

    /// An int of the encoding that bitfields had before kind_flag.
    pub fn old_bitfield(&mut self, name: &str, size: u32, offset: u32, bits: u32) -> u32 {
        self.raw(name, kind::INT << 24, size, &[offset << 16 | bits])
    }

    /// A pointer, typedef or qualifier.
    pub fn link(&mut self, kind: u32, name: &str, to: u32) -> u32 {
        self.raw(name, kind << 24, to, &[])
    }

    pub fn array(&mut self, of: u32, len: u32) -> u32 {
        self.raw("", kind::ARRAY << 24, 0, &[of, of, len])
    }

    /// A structure or union; with kind_flag as soon as one of its members has a width.
    pub fn composite(&mut self, kind: u32, name: &str, size: u32, fields: &[Field]) -> u32 {
        let flag = fields.iter().any(|f| f.3 != 0);
        let mut extra = Vec::new();
        for Field(name, type_id, offset, width) in fields {
            extra.extend([self.text(name), *type_id, offset | width << 24]);
        }
        let info = u32::from(flag) << 31 | kind << 24 | fields.len() as u32;
        self.raw(name, info, size, &extra)
    }

    /// An unsigned enum of 32 bits.
    pub fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
        let mut extra = Vec::new();
        for (name, value) in values {
            extra.extend([self.text(name), *value]);
        }
        self.raw(name, kind::ENUM << 24 | values.len() as u32, 4, &extra)
    }

    /// A function prototype from its arguments' types.
    pub fn proto(&mut self, returns: u32, args: &[u32]) -> u32 {
        let extra: Vec<u32> = args.iter().flat_map(|&a| [0, a]).collect();
        self.raw(
            "",
            kind::FUNC_PROTO << 24 | args.len() as u32,
            returns,
            &extra,
        )
    }

    /// A tracepoint's typedef, from arguments as C writes them.
    pub fn tracepoint(&mut self, name: &str, args: &[&str]) -> u32 {
        let data = self.link(kind::PTR, "", 0);
        let mut ids = vec![data];
        for arg in args {
            let (base, pointers) = arg.split_once('*').map_or((*arg, 0), |(b, _)| (b, 1));
            let base = base.trim();
            let plain = base.trim_start_matches("const ");
            let mut id = match plain.strip_prefix("struct ") {
                Some(name) => self.raw(name, kind::FWD << 24, 0, &[]),
                None => self.int(plain, 4),
            };
            if base != plain {
                id = self.link(kind::CONST, "", id);
            }
            if pointers == 1 {
                id = self.link(kind::PTR, "", id);
            }
            ids.push(id);
        }
        let proto = self.proto(0, &ids);
        let pointer = self.link(kind::PTR, "", proto);
        self.link(kind::TYPEDEF, &format!("btf_trace_{name}"), pointer)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_ne_bytes().to_vec();
        out.extend([VERSION, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(&self.types);
        out.extend(&self.strings);
        out
    }

    /// A kernel that has every member but those that `without` picks, and these hooks.
    pub fn kernel<'a>(
        without: impl Fn(&Member) -> bool,
        hooks: impl IntoIterator<Item = &'a Hook>,
    ) -> Self {
        let mut blob = Self::new();
        let mut tree: BTreeMap<&str, Node> = BTreeMap::new();
        for member in MEMBERS.iter().filter(|m| !without(m)) {
            let mut node = tree.entry(member.container).or_default();
            for part in member.path.split('.') {
                node = node.children.entry(part).or_default();
            }
            node.leaf = Some(member.access);
        }
        for (name, node) in &tree {
            node.build(&mut blob, name);
        }
        for hook in hooks {
            if let Some(variant) = hook.variants.last() {
                blob.tracepoint(hook.name, variant.args);
            }
        }
        blob
    }
}

/// A structure that is described by paths.
#[derive(Default)]
struct Node<'a> {
    children: BTreeMap<&'a str, Node<'a>>,
    leaf: Option<Access>,
}

impl Node<'_> {
    /// Its type and size in bytes; a bitfield has the width 3.
    fn build(&self, blob: &mut Blob, name: &str) -> (u32, u32) {
        match self.leaf {
            Some(Access::Bytes(n @ (1 | 2 | 4 | 8))) => (blob.int("n", n), n),
            Some(Access::Bytes(n)) => {
                let byte = blob.int("char", 1);
                (blob.array(byte, n), n)
            }
            Some(Access::Bits) => (blob.int("u8", 1), 1),
            None => {
                let mut at = 0;
                let mut fields = Vec::new();
                for (&child, node) in &self.children {
                    let (id, size) = node.build(blob, "");
                    let width = if node.leaf == Some(Access::Bits) {
                        3
                    } else {
                        0
                    };
                    // A bitfield begins at the byte's third bit.
                    fields.push(Field(
                        child,
                        id,
                        at * 8 + if width == 0 { 0 } else { 2 },
                        width,
                    ));
                    at += size;
                }
                (blob.composite(kind::STRUCT, name, at, &fields), at)
            }
        }
    }
}
