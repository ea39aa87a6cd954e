//! Lines as JSON: the most frequent ones field by field, any value by serde.

mod fields;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

pub use fields::{Fields, LastConnection};

use crate::util::format::is_hazardous;

/// Writes one value, by serde.
///
/// # Errors
///
/// The value has no JSON form.
pub fn write(out: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Harmless))?;
    Ok(())
}

/// Compact JSON that is safe on a terminal: in addition to what JSON requires, every character with an
/// effect on a terminal is escaped.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        // The serializer has escaped the control characters below a space.
        if text.is_ascii() && !text.contains('\x7f') {
            return out.write_all(text.as_bytes());
        }

        for part in text.split_inclusive(is_hazardous) {
            let last = part.chars().next_back().filter(|c| is_hazardous(*c));
            let plain = last.map_or(part, |c| &part[..part.len() - c.len_utf8()]);
            out.write_all(plain.as_bytes())?;
            if let Some(c) = last {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}
