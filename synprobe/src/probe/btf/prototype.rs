//! Prototypes of tracepoints and functions, as C types.

use std::fmt;

use super::{Btf, BtfError, MAX_DEPTH, TYPE_LEN, Type, kind};

/// More arguments than this are no prototype: BPF itself stops at twelve (MAX_BPF_FUNC_ARGS).
const MAX_ARGS: usize = 64;

/// What a tracepoint or function takes and returns, each type as C writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// Types of the arguments.
    pub args: Vec<String>,
    /// Type of the result.
    pub returns: String,
}

impl Prototype {
    /// Whether the arguments are these. `const` and `volatile` are ignored: a program that only
    /// reads is not affected by them.
    pub fn takes(&self, args: &[&str]) -> bool {
        self.args.len() == args.len() && self.begins_with(args)
    }

    /// As [`Prototype::takes`], of the first arguments; more may follow.
    pub fn begins_with(&self, args: &[&str]) -> bool {
        self.args.len() >= args.len()
            && self
                .args
                .iter()
                .zip(args)
                .all(|(have, want)| unqualified(have).eq(unqualified(want)))
    }
}

impl fmt::Display for Prototype {
    /// The arguments: `(const struct sock *, int)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", self.args.join(", "))
    }
}

fn unqualified(c_type: &str) -> impl Iterator<Item = &str> {
    c_type
        .split_whitespace()
        .filter(|word| !matches!(*word, "const" | "volatile"))
}

impl Btf {
    /// The arguments that a raw tracepoint passes to its programs: the arguments of `btf_trace_<name>`
    /// (include/trace/bpf_probe.h) without the leading `void *__data`.
    ///
    /// # Errors
    /// [`BtfError::NoTracepoint`] where the kernel has none of this name.
    pub fn tracepoint_prototype(&self, name: &str) -> Result<Prototype, BtfError> {
        for id in self.named(&format!("btf_trace_{name}"), &[kind::TYPEDEF])? {
            let pointer = self.strip(id)?.filter(|t| t.kind() == kind::PTR);
            let Some(pointer) = pointer else { continue };
            let proto = self
                .strip(pointer.size_or_type)?
                .filter(|t| t.kind() == kind::FUNC_PROTO);
            let Some(proto) = proto else { continue };
            let mut prototype = self.prototype(proto)?;
            if prototype.args.is_empty() {
                return Err(BtfError::Malformed {
                    id,
                    what: "a tracepoint without its data",
                });
            }
            prototype.args.remove(0);
            return Ok(prototype);
        }
        Err(BtfError::NoTracepoint(name.to_owned()))
    }

    /// The prototype of a kernel function.
    ///
    /// # Errors
    /// [`BtfError::NoFunction`] where the kernel has none of this name, or has it only inlined.
    pub fn function_prototype(&self, name: &str) -> Result<Prototype, BtfError> {
        let function = self.get(self.function_id(name)?)?;
        match self.strip(function.size_or_type)? {
            Some(proto) if proto.kind() == kind::FUNC_PROTO => self.prototype(proto),
            _ => Err(BtfError::Malformed {
                id: function.id,
                what: "a function without prototype",
            }),
        }
    }

    fn prototype(&self, proto: Type) -> Result<Prototype, BtfError> {
        let count = proto.len() as usize;
        if count > MAX_ARGS {
            return Err(BtfError::Malformed {
                id: proto.id,
                what: "too many arguments",
            });
        }
        let mut args = Vec::new();
        for i in 0..count {
            let type_id = self.word(proto.at + TYPE_LEN + i * 8 + 4)?;
            args.push(match type_id {
                // A last parameter without name and type is the `...` of a variadic function.
                0 if i + 1 == count => "...".to_owned(),
                id => self.c_type(id, MAX_DEPTH)?,
            });
        }
        Ok(Prototype {
            args,
            returns: self.c_type(proto.size_or_type, MAX_DEPTH)?,
        })
    }

    fn c_type(&self, id: u32, depth: u32) -> Result<String, BtfError> {
        if id == 0 {
            return Ok("void".to_owned());
        }
        let depth = depth.checked_sub(1).ok_or(BtfError::TooDeep(id))?;
        let t = self.get(id)?;
        let inner = || self.c_type(t.size_or_type, depth);
        Ok(match t.kind() {
            kind::STRUCT => self.tagged("struct", t)?,
            kind::UNION => self.tagged("union", t)?,
            kind::ENUM | kind::ENUM64 => self.tagged("enum", t)?,
            kind::FWD => self.tagged(if t.kind_flag() { "union" } else { "struct" }, t)?,
            kind::PTR => {
                let target = inner()?;
                let space = if target.ends_with('*') { "" } else { " " };
                format!("{target}{space}*")
            }
            kind::CONST => qualified("const", inner()?),
            kind::VOLATILE => qualified("volatile", inner()?),
            kind::RESTRICT | kind::TYPE_TAG => inner()?,
            kind::ARRAY => {
                let element = self.c_type(self.word(t.at + TYPE_LEN)?, depth)?;
                format!("{element}[{}]", self.word(t.at + TYPE_LEN + 8)?)
            }
            kind::FUNC_PROTO => "function".to_owned(),
            _ => String::from_utf8_lossy(self.text(t.name)?).into_owned(),
        })
    }

    fn tagged(&self, tag: &str, t: Type) -> Result<String, BtfError> {
        Ok(match self.text(t.name)? {
            [] => format!("{tag} (anonymous)"),
            name => format!("{tag} {}", String::from_utf8_lossy(name)),
        })
    }
}

/// A qualifier stands before a plain type and behind a pointer.
fn qualified(word: &str, c_type: String) -> String {
    if c_type.ends_with('*') {
        format!("{c_type} {word}")
    } else {
        format!("{word} {c_type}")
    }
}
