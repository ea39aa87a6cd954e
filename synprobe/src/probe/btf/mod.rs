//! A small reader of the running kernel's type information: it finds members, enumerators and prototypes
//! by name.
//!
//! Format: Documentation/bpf/btf.rst and include/uapi/linux/btf.h. A kernel's BTF holds about a
//! hundred thousand types, of which a few dozen are needed. So only two things are kept for each type:
//! its offset and a link in a table of names. Every input gives an answer or a [`BtfError`]; none makes
//! the reader panic or run forever.

#[cfg(test)]
pub(crate) mod blob;
mod error;
mod member;
mod prototype;
#[cfg(test)]
mod tests;

use std::{fs, io, ops::Range};

pub use error::BtfError;
pub use member::Place;
pub use prototype::Prototype;

/// The kernel's own type information (Linux 5.4, CONFIG_DEBUG_INFO_BTF).
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// `struct btf_header` up to and including `str_len`; longer headers are legal.
const HEADER_LEN: usize = 24;
/// `struct btf_type`.
const TYPE_LEN: usize = 12;
/// `struct btf_member`, `struct btf_enum64`, `struct btf_var_secinfo`.
const MEMBER_LEN: usize = 12;

/// Typedefs, qualifiers, arrays and anonymous structures deeper than this are a cycle: C headers
/// stay below ten.
const MAX_DEPTH: u32 = 32;
/// `BTF_KIND_*`.
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// One `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    id: u32,
    /// Where its record begins, in the type section.
    at: usize,
    name: u32,
    info: u32,
    /// `size` or `type`, by kind.
    size_or_type: u32,
}

impl Type {
    // Seven bits of kind and 24 of length. The bits that btf.h leaves unused are zero in every BTF that a
    // kernel accepts; the format may grow into them.
    fn kind(self) -> u32 {
        self.info >> 24 & 0x7f
    }

    fn len(self) -> u32 {
        self.info & 0x00ff_ffff
    }

    fn kind_flag(self) -> bool {
        self.info >> 31 == 1
    }

    /// Bytes behind the record; `None` for an unknown kind.
    fn extra(self) -> Option<usize> {
        let len = self.len() as usize;
        Some(match self.kind() {
            kind::PTR | kind::FWD | kind::TYPEDEF | kind::VOLATILE | kind::CONST => 0,
            kind::RESTRICT | kind::FUNC | kind::FLOAT | kind::TYPE_TAG => 0,
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::ENUM | kind::FUNC_PROTO => len * 8,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => len * MEMBER_LEN,
            _ => return None,
        })
    }

    fn is_composite(self) -> bool {
        matches!(self.kind(), kind::STRUCT | kind::UNION)
    }

    /// Whether [`Btf::named`] must find it.
    fn is_indexed(self) -> bool {
        self.name != 0
            && matches!(
                self.kind(),
                kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::TYPEDEF | kind::FUNC
            )
    }
}

/// Type information, indexed.
pub struct Btf {
    data: Vec<u8>,
    types: Range<usize>,
    strings: Range<usize>,
    /// Type number → offset of its record in the type section. Number 0 is `void`.
    starts: Vec<u32>,
    /// Hash of a name → last type with such a name, 0 for none.
    heads: Vec<u32>,
    /// Type number → the type before it in the same chain.
    chain: Vec<u32>,
}

impl Btf {
    /// The running kernel's.
    ///
    /// # Errors
    /// [`BtfError::Absent`] where the kernel was built without it, [`BtfError::Denied`] where it
    /// may not be read, any other where what it shows is not understood.
    pub fn from_kernel() -> Result<Self, BtfError> {
        Self::from_read(fs::read(KERNEL_BTF))
    }

    /// What reading [`KERNEL_BTF`] gave.
    ///
    /// # Errors
    /// As [`Btf::from_kernel`].
    pub fn from_read(read: io::Result<Vec<u8>>) -> Result<Self, BtfError> {
        match read {
            Ok(bytes) => Self::parse(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(BtfError::Absent),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(BtfError::Denied),
            Err(e) => Err(BtfError::Read(e)),
        }
    }

    /// Indexes raw BTF in one pass.
    ///
    /// # Errors
    /// The bytes are malformed. Types that are never looked up are checked only as far as needed to find
    /// the next one.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, BtfError> {
        let data = bytes.into();
        let (types, strings) = sections(&data)?;
        let count = types.len() / TYPE_LEN;
        // Half as many buckets as a kernel has types: most types have no name of their own.
        let buckets = (count / 4).clamp(16, 1 << 16).next_power_of_two();
        let mut btf = Self {
            starts: Vec::with_capacity(count / 2),
            chain: Vec::with_capacity(count / 2),
            heads: vec![0; buckets],
            data,
            types,
            strings,
        };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<(), BtfError> {
        // Void has no record.
        self.starts.push(u32::MAX);
        self.chain.push(0);
        let mut at = 0;
        while at < self.types.len() {
            let id = self.starts.len() as u32;
            let offset = self.types.start + at;
            let record = self.record(id, at)?;
            let Some(extra) = record.extra() else {
                return Err(BtfError::UnknownKind {
                    id,
                    kind: record.kind(),
                    offset,
                });
            };
            let mut previous = 0;
            if record.is_indexed() {
                let bucket = hash(self.text(record.name)?) as usize & (self.heads.len() - 1);
                previous = std::mem::replace(&mut self.heads[bucket], id);
            }
            self.starts.push(at as u32);
            self.chain.push(previous);
            at += TYPE_LEN + extra;
            if at > self.types.len() {
                return Err(BtfError::Truncated {
                    what: "a type",
                    offset,
                });
            }
        }
        Ok(())
    }

    /// All enumerators of an enum in order; none if the enum does not exist. A value of an unsigned 64-bit
    /// enum above `i64::MAX` wraps.
    ///
    /// # Errors
    /// The type information is malformed.
    pub fn enumerators(&self, enum_name: &str) -> Result<Vec<(String, i64)>, BtfError> {
        let mut all = Vec::new();
        for id in self.named(enum_name, &[kind::ENUM, kind::ENUM64])? {
            for found in self.values(self.get(id)?) {
                let (text, value) = found?;
                all.push((String::from_utf8_lossy(text).into_owned(), value));
            }
        }
        Ok(all)
    }

    /// Names and values of an enum.
    fn values(&self, e: Type) -> impl Iterator<Item = Result<(&[u8], i64), BtfError>> {
        let wide = e.kind() == kind::ENUM64;
        let stride = if wide { MEMBER_LEN } else { 8 };
        (0..e.len() as usize).map(move |i| {
            let at = e.at + TYPE_LEN + i * stride;
            let text = self.text(self.word(at)?)?;
            let low = self.word(at + 4)?;
            let value = match (wide, e.kind_flag()) {
                (true, _) => (i64::from(self.word(at + 8)?) << 32) | i64::from(low),
                (false, true) => i64::from(low as i32),
                (false, false) => i64::from(low),
            };
            Ok((text, value))
        })
    }

    /// The number of a kernel function's type, as `bpf(2)` wants it in `attach_btf_id`.
    ///
    /// # Errors
    /// [`BtfError::NoFunction`] where there is none of this name.
    pub fn function_id(&self, name: &str) -> Result<u32, BtfError> {
        let ids = self.named(name, &[kind::FUNC])?;
        ids.first()
            .copied()
            .ok_or_else(|| BtfError::NoFunction(name.to_owned()))
    }

    /// Types of one of these kinds with this name, in the order of their numbers.
    fn named(&self, name: &str, kinds: &[u32]) -> Result<Vec<u32>, BtfError> {
        let mut ids = Vec::new();
        let mut id = self.heads[hash(name.as_bytes()) as usize & (self.heads.len() - 1)];
        // A chain leads to ever smaller numbers, so it ends.
        while id != 0 {
            let candidate = self.get(id)?;
            if kinds.contains(&candidate.kind()) && self.text(candidate.name)? == name.as_bytes() {
                ids.push(id);
            }
            id = self.chain[id as usize];
        }
        ids.reverse();
        Ok(ids)
    }

    /// Follows typedefs, qualifiers and tags; `None` for `void`.
    fn strip(&self, mut id: u32) -> Result<Option<Type>, BtfError> {
        let from = id;
        for _ in 0..MAX_DEPTH {
            if id == 0 {
                return Ok(None);
            }
            let t = self.get(id)?;
            match t.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = t.size_or_type;
                }
                _ => return Ok(Some(t)),
            }
        }
        Err(BtfError::TooDeep(from))
    }

    /// A type by its number, which is not 0.
    fn get(&self, id: u32) -> Result<Type, BtfError> {
        match self.starts.get(id as usize) {
            Some(&at) if id != 0 => self.record(id, at as usize),
            _ => Err(BtfError::BadType(id)),
        }
    }

    fn record(&self, id: u32, at: usize) -> Result<Type, BtfError> {
        let (name, info, size_or_type) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
        Ok(Type {
            id,
            at,
            name,
            info,
            size_or_type,
        })
    }

    /// A word of the type section.
    fn word(&self, at: usize) -> Result<u32, BtfError> {
        word(&self.data[self.types.clone()], at).ok_or(BtfError::Truncated {
            what: "a type",
            offset: self.types.start + at,
        })
    }

    /// A name's bytes, without the NUL.
    fn text(&self, at: u32) -> Result<&[u8], BtfError> {
        let tail = self.data[self.strings.clone()].get(at as usize..);
        let tail = tail
            .filter(|t| !t.is_empty())
            .ok_or(BtfError::BadString(at))?;
        // The section ends with a NUL: sections() has seen to it.
        Ok(tail.split(|&b| b == 0).next().unwrap_or_default())
    }
}

/// The type and the string section.
fn sections(data: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
    let truncated = |what, offset| BtfError::Truncated { what, offset };
    let header = |at| word(data, at).ok_or(truncated("the header", 0));
    let [a, b, version, _flags, ..] = *data else {
        return Err(truncated("the header", 0));
    };
    match u16::from_ne_bytes([a, b]) {
        MAGIC => {}
        magic if magic.swap_bytes() == MAGIC => return Err(BtfError::ForeignEndian),
        magic => return Err(BtfError::Magic(magic)),
    }
    if version != VERSION {
        return Err(BtfError::Version(version));
    }
    let header_len = header(4)? as usize;
    if header_len < HEADER_LEN {
        return Err(truncated("the header", 0));
    }
    let section = |what, at: usize| {
        let (offset, len) = (header(at)? as usize, header(at + 4)? as usize);
        let start = header_len
            .checked_add(offset)
            .ok_or(truncated(what, offset))?;
        let end = start.checked_add(len).filter(|&end| end <= data.len());
        Ok(start..end.ok_or(truncated(what, start))?)
    };
    let types = section("the type section", 8)?;
    let strings = section("the string section", 16)?;
    match &data[strings.clone()] {
        [0] | [0, .., 0] => Ok((types, strings)),
        _ => Err(BtfError::BadString(0)),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_ne_bytes(*b))
}

/// FNV-1a.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |h, &b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    })
}
