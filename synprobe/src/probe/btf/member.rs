//! Finds the offset of a member by structure name and path.

use super::{Btf, BtfError, MAX_DEPTH, MEMBER_LEN, TYPE_LEN, Type, kind};

/// Members examined in one lookup, at most. The largest kernel structures have a few hundred; a structure
/// that contains itself anonymously would never end.
const MAX_STEPS: u32 = 1 << 18;

/// Where a member lies in its outer structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the start; of a bitfield, the byte that holds its first bit.
    pub byte_offset: u32,
    /// First bit of a bitfield in that byte, counted as the compiler does: from the least
    /// significant bit on little-endian machines, from the most significant on big-endian ones.
    pub bit_offset_in_byte: u32,
    /// Width of a bitfield; 0 for any other member.
    pub bit_width: u32,
    /// Size of the member; of a bitfield, of the bytes it touches.
    pub size_bytes: u32,
}

/// A member that was found.
#[derive(Clone, Copy)]
struct FoundMember {
    /// Bits from the start of the searched structure.
    bits: u64,
    /// Width in the member's own record; 0: none.
    width: u32,
    type_id: u32,
}

impl Btf {
    /// The place of a member. `path` names members separated by dots; anonymous structures and
    /// unions, typedefs and qualifiers are followed. Every part but the last must be an
    /// embedded structure. Of several structures with the same name, the first that has the path
    /// counts.
    ///
    /// # Errors
    /// [`BtfError::NoStruct`], [`BtfError::NoMember`] or [`BtfError::NotEmbedded`] where the kernel
    /// does not have it, any other where its BTF is malformed.
    pub fn member(&self, container: &str, path: &str) -> Result<Place, BtfError> {
        let mut first = None;
        for id in self.named(container, &[kind::STRUCT, kind::UNION])? {
            match self.place(id, container, path) {
                Ok(place) => return Ok(place),
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| BtfError::NoStruct(container.to_owned())))
    }

    fn place(&self, id: u32, container: &str, path: &str) -> Result<Place, BtfError> {
        let mut steps = MAX_STEPS;
        let mut scope = self.get(id)?;
        let mut bits = 0;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let missing = || BtfError::NoMember {
                container: container.to_owned(),
                path: path.to_owned(),
            };
            if part.is_empty() {
                return Err(missing());
            }
            let found = self
                .find(scope, part, MAX_DEPTH, &mut steps)?
                .ok_or_else(missing)?;
            bits += found.bits;
            if parts.peek().is_none() {
                return self.finish(FoundMember { bits, ..found });
            }
            scope = self.strip(found.type_id)?.ok_or_else(missing)?;
            if !scope.is_composite() {
                return Err(BtfError::NotEmbedded {
                    container: container.to_owned(),
                    path: path.to_owned(),
                    part: part.to_owned(),
                    what: match scope.kind() {
                        kind::PTR => "a pointer",
                        kind::ARRAY => "an array",
                        _ => "a plain value",
                    },
                });
            }
        }
        Err(BtfError::NoMember {
            container: container.to_owned(),
            path: path.to_owned(),
        })
    }

    /// A member by its name, also inside anonymous members.
    fn find(
        &self,
        scope: Type,
        part: &str,
        depth: u32,
        steps: &mut u32,
    ) -> Result<Option<FoundMember>, BtfError> {
        for i in 0..scope.len() as usize {
            *steps = steps.checked_sub(1).ok_or(BtfError::TooDeep(scope.id))?;
            let at = scope.at + TYPE_LEN + i * MEMBER_LEN;
            let (name, type_id, offset) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let (bits, width) = match scope.kind_flag() {
                true => (offset & 0x00ff_ffff, offset >> 24),
                false => (offset, 0),
            };
            let bits = u64::from(bits);
            let text = self.text(name)?;
            if text == part.as_bytes() {
                return Ok(Some(FoundMember {
                    bits,
                    width,
                    type_id,
                }));
            }
            if !text.is_empty() {
                continue;
            }
            let Some(inner) = self.strip(type_id)?.filter(|t| t.is_composite()) else {
                continue;
            };
            let depth = depth.checked_sub(1).ok_or(BtfError::TooDeep(inner.id))?;
            if let Some(found) = self.find(inner, part, depth, steps)? {
                return Ok(Some(FoundMember {
                    bits: found.bits + bits,
                    ..found
                }));
            }
        }
        Ok(None)
    }

    fn finish(&self, found: FoundMember) -> Result<Place, BtfError> {
        let FoundMember {
            mut bits,
            mut width,
            type_id,
        } = found;
        let size = self.size(type_id)?;
        // Before kind_flag (and where every bitfield of a structure fits its int) the width stands
        // in the int's own encoding: BTF_INT_OFFSET, BTF_INT_BITS.
        if let (0, Some(t)) = (width, self.strip(type_id)?)
            && t.kind() == kind::INT
        {
            let encoding = self.word(t.at + TYPE_LEN)?;
            let (int_offset, int_bits) = (encoding >> 16 & 0xff, encoding & 0xff);
            if int_offset != 0 || u64::from(int_bits) != size * 8 || bits % 8 != 0 {
                bits += u64::from(int_offset);
                width = int_bits;
            }
        }
        let in_byte = (bits % 8) as u32;
        if width == 0 && in_byte != 0 {
            return Err(BtfError::Malformed {
                id: type_id,
                what: "no place in bytes",
            });
        }
        let size = if width == 0 {
            size
        } else {
            u64::from((in_byte + width).div_ceil(8))
        };
        let too_large = |_| BtfError::Malformed {
            id: type_id,
            what: "too large",
        };
        Ok(Place {
            byte_offset: u32::try_from(bits / 8).map_err(too_large)?,
            bit_offset_in_byte: in_byte,
            bit_width: width,
            size_bytes: u32::try_from(size).map_err(too_large)?,
        })
    }

    pub(super) fn size(&self, mut id: u32) -> Result<u64, BtfError> {
        let mut times = 1u64;
        for _ in 0..MAX_DEPTH {
            let Some(t) = self.strip(id)? else { break };
            let one = match t.kind() {
                // The kernel's own BTF: its pointers are as wide as ours.
                kind::PTR => size_of::<usize>() as u64,
                kind::INT
                | kind::STRUCT
                | kind::UNION
                | kind::ENUM
                | kind::ENUM64
                | kind::FLOAT => u64::from(t.size_or_type),
                kind::ARRAY => {
                    id = self.word(t.at + TYPE_LEN)?;
                    let len = u64::from(self.word(t.at + TYPE_LEN + 8)?);
                    times = times.checked_mul(len).ok_or(BtfError::Malformed {
                        id,
                        what: "too large",
                    })?;
                    continue;
                }
                _ => break,
            };
            return one.checked_mul(times).ok_or(BtfError::Malformed {
                id,
                what: "too large",
            });
        }
        Err(BtfError::Malformed {
            id,
            what: "no size",
        })
    }
}
