//! The offsets of all structure members that the programs read, from the running kernel's BTF.

use synprobe_ebpf::config::{Access, MEMBERS, MISSING, Member, Offsets, bits};
use thiserror::Error;

use super::btf::{Btf, BtfError, Place};

/// The offset of every member, and the members that this kernel does not have.
#[derive(Clone, Debug)]
pub struct MemberOffsets {
    /// In the order of [`MEMBERS`]; [`MISSING`] for an optional member that does not exist.
    pub places: [u32; MEMBERS.len()],
    /// The optional members that do not exist; each has the feature that is lost.
    pub missing: Vec<&'static Member>,
}

impl MemberOffsets {
    /// The table in the programs' form.
    pub fn offsets(&self) -> Offsets {
        Offsets::from_array(self.places)
    }

    /// The features that are lost on this kernel, each once.
    pub fn missing_features(&self) -> Vec<&'static str> {
        let mut features: Vec<_> = self.missing.iter().map(|m| m.feature).collect();
        features.sort_unstable();
        features.dedup();
        features
    }
}

/// Why the programs cannot read this kernel.
#[derive(Debug, Error)]
pub enum OffsetsError {
    /// A required member does not exist.
    #[error("this kernel's BTF has no struct {} member {}", .0.container, .0.path)]
    Missing(&'static Member),
    /// The member exists, but the programs cannot read it.
    #[error("this kernel's struct {} member {} {what}", .member.container, .member.path)]
    Unexpected {
        /// The member.
        member: &'static Member,
        /// What it is instead.
        what: String,
    },
    /// The type information is malformed.
    #[error("this kernel's BTF does not describe struct {} member {}: {source}", .member.container, .member.path)]
    Btf {
        /// The member.
        member: &'static Member,
        /// What is wrong.
        source: BtfError,
    },
}

impl OffsetsError {
    /// What to do about it.
    pub const REMEDY: &'static str =
        "synprobe does not know this kernel: please report it with the output of `uname -r`";
}

/// Finds the offset of every member.
///
/// # Errors
/// [`OffsetsError`], which names the member: a required one is missing, or one has a type that the
/// programs do not expect. That is an error for an optional member too: it would be misread.
pub fn resolve(btf: &Btf) -> Result<MemberOffsets, OffsetsError> {
    let mut places = [MISSING; MEMBERS.len()];
    let mut missing = Vec::new();
    for (slot, member) in places.iter_mut().zip(MEMBERS) {
        match btf.member(member.container, member.path) {
            Ok(place) => *slot = encode(member, place)?,
            Err(BtfError::NoStruct(_) | BtfError::NoMember { .. }) if !member.required => {
                missing.push(member);
            }
            Err(BtfError::NoStruct(_) | BtfError::NoMember { .. }) => {
                return Err(OffsetsError::Missing(member));
            }
            Err(source) => return Err(OffsetsError::Btf { member, source }),
        }
    }
    Ok(MemberOffsets { places, missing })
}

/// The offset in the programs' form, if they can read the member.
fn encode(member: &'static Member, place: Place) -> Result<u32, OffsetsError> {
    let unexpected = |what| Err(OffsetsError::Unexpected { member, what });
    let Place {
        byte_offset,
        bit_offset_in_byte: first,
        bit_width: width,
        size_bytes,
    } = place;
    match member.access {
        Access::Bytes(_) if width != 0 => unexpected(format!(
            "is a bitfield of {width} bits, expected whole bytes"
        )),
        Access::Bytes(wanted) if size_bytes < wanted => {
            unexpected(format!("has {size_bytes} bytes, expected {wanted}"))
        }
        Access::Bytes(_) if byte_offset == MISSING => unexpected("has no offset".to_owned()),
        Access::Bytes(_) => Ok(byte_offset),
        Access::Bits if byte_offset >= 1 << 24 => {
            unexpected(format!("is at byte {byte_offset}, which is too far"))
        }
        Access::Bits if width == 0 && size_bytes == 1 => Ok(bits(byte_offset, 0, 8)),
        Access::Bits if width == 0 => unexpected(format!(
            "has {size_bytes} bytes, expected a bitfield in one byte"
        )),
        Access::Bits if first + width > 8 => unexpected(format!(
            "is a bitfield of {width} bits across bytes, expected one byte"
        )),
        Access::Bits => {
            // On big-endian machines BTF counts bits from the most significant one, a shift from the
            // least significant one.
            let shift = if cfg!(target_endian = "big") {
                8 - first - width
            } else {
                first
            };
            Ok(bits(byte_offset, shift, width))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::btf::{KERNEL_BTF, blob::Blob};
    use synprobe_ebpf::config::unpack_bits;

    fn kernel_without(without: impl Fn(&Member) -> bool) -> Result<MemberOffsets, OffsetsError> {
        resolve(&Btf::parse(Blob::kernel(without, &[]).bytes()).unwrap())
    }

    #[test]
    fn every_member_is_found() {
        let resolved = kernel_without(|_| false).unwrap();
        assert!(resolved.missing.is_empty());
        for (member, place) in MEMBERS.iter().zip(resolved.places) {
            assert_ne!(place, MISSING, "{}", member.path);
            if member.access == Access::Bits {
                let shift = if cfg!(target_endian = "big") { 3 } else { 2 };
                assert_eq!((unpack_bits(place).1, unpack_bits(place).2), (shift, 3));
            }
        }
    }

    #[test]
    fn a_missing_optional_member_turns_its_feature_off() {
        let resolved = kernel_without(|m| !m.required).unwrap();
        let optional = MEMBERS.iter().filter(|m| !m.required);
        assert_eq!(resolved.missing.len(), optional.clone().count());
        for member in optional {
            assert!(
                resolved.missing_features().contains(&member.feature),
                "{}",
                member.path
            );
        }
    }

    #[test]
    fn a_missing_required_member_is_named() {
        for member in MEMBERS.iter().filter(|m| m.required) {
            let error =
                kernel_without(|m| (m.container, m.path) == (member.container, member.path))
                    .unwrap_err();
            let wanted = format!(
                "this kernel's BTF has no struct {} member {}",
                member.container, member.path
            );
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn places_are_checked_against_the_access() {
        let plain = |size_bytes| Place {
            byte_offset: 5,
            bit_offset_in_byte: 0,
            bit_width: 0,
            size_bytes,
        };
        let field = |first, width| Place {
            bit_offset_in_byte: first,
            bit_width: width,
            ..plain(1)
        };
        let find = |access: fn(Access) -> bool| MEMBERS.iter().find(|m| access(m.access)).unwrap();
        let bytes = find(|a| matches!(a, Access::Bytes(2)));
        let one = find(|a| a == Access::Bits);

        assert_eq!(encode(bytes, plain(2)).unwrap(), 5);
        assert_eq!(encode(bytes, plain(4)).unwrap(), 5);
        assert!(
            encode(bytes, plain(1))
                .unwrap_err()
                .to_string()
                .contains("has 1 bytes")
        );
        assert!(
            encode(bytes, field(0, 7))
                .unwrap_err()
                .to_string()
                .contains("is a bitfield")
        );
        assert_eq!(encode(one, plain(1)).unwrap(), bits(5, 0, 8));
        assert_eq!(encode(one, field(0, 8)).unwrap(), bits(5, 0, 8));
        assert!(encode(one, plain(2)).is_err());
        assert!(
            encode(one, field(5, 4))
                .unwrap_err()
                .to_string()
                .contains("across bytes")
        );
        assert!(
            encode(
                one,
                Place {
                    byte_offset: 1 << 24,
                    ..field(0, 1)
                }
            )
            .is_err()
        );
    }

    #[test]
    fn the_running_kernel_has_every_required_member() {
        let Ok(bytes) = std::fs::read(KERNEL_BTF) else {
            return;
        };
        resolve(&Btf::parse(bytes).unwrap()).unwrap();
    }
}
