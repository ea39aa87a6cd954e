//! The kernel's type information, and what the programs need from it.

use std::{io::ErrorKind, path::Path};

use synprobe_ebpf::config::Member;

use crate::{
    preflight::{Check, HostAccess, Status},
    probe::{
        btf::{Btf, BtfError, KERNEL_BTF, Prototype},
        hooks::{Chosen, Hook},
        offsets::{MemberOffsets, OffsetsError, resolve},
    },
};

/// The kernel's type information.
pub(in crate::preflight) fn btf(host: &impl HostAccess) -> (Check, Option<Btf>) {
    let check = |status, detail: String| Check::new("btf", "BTF", status, detail);
    match Btf::from_read(host.read(Path::new(KERNEL_BTF))) {
        Ok(btf) => (check(Status::Ok, KERNEL_BTF.to_owned()), Some(btf)),
        Err(e) => {
            let remedy = match &e {
                BtfError::Absent => {
                    "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build them; \
                     in a container, mount the host's /sys"
                }
                BtfError::Denied => "run with sudo",
                BtfError::Read(error) if error.kind() == ErrorKind::OutOfMemory => {
                    "raise the limit of memory (ulimit -v, MemoryMax= of the service, or that of the container)"
                }
                _ => OffsetsError::REMEDY,
            };
            (
                check(Status::Missing, e.to_string()).with_remedy(remedy),
                None,
            )
        }
    }
}

/// Every structure member that the programs read.
pub(in crate::preflight) fn members(btf: &Btf) -> (Check, Option<MemberOffsets>) {
    let check = |status, detail: String| Check::new("members", "kernel members", status, detail);
    match resolve(btf) {
        Ok(resolved) if resolved.missing.is_empty() => {
            let detail = format!("all {} found", resolved.places.len());
            (check(Status::Ok, detail), Some(resolved))
        }
        Ok(resolved) => {
            let missing: Vec<_> = resolved
                .missing
                .iter()
                .map(|m| format!("{}.{}", m.container, m.path))
                .collect();
            let check = check(
                Status::Degraded,
                format!("this kernel has no {}", missing.join(", ")),
            )
            .with_lost(resolved.missing_features().join("; "));
            (check, Some(resolved))
        }
        Err(e) => (
            check(Status::Missing, e.to_string()).with_remedy(OffsetsError::REMEDY),
            None,
        ),
    }
}

/// A tracepoint, its prototype, and the members that its program reads. Returns the program that fits.
/// `missing`: the members that this kernel does not have.
pub(in crate::preflight) fn hook(
    btf: &Btf,
    hook: &'static Hook,
    missing: &[&'static Member],
) -> (Check, Option<Chosen>) {
    let id = format!("tracepoint.{}", hook.name);
    let check = |status, detail: String| Check::new(&id, hook.name, status, detail);
    let lacking = |detail: String, remedy: Option<&str>| {
        let mut check = match hook.required {
            true => check(Status::Missing, detail),
            false => check(Status::Degraded, detail).with_lost(hook.feature),
        };
        check.remedy = remedy.map(str::to_owned);
        (check, None)
    };
    let (major, minor) = hook.since;
    let newer = format!("boot Linux {major}.{minor} or later");
    if let Some(member) = missing.iter().find(|m| m.feature == hook.feature) {
        let Member {
            container, path, ..
        } = member;
        let detail = format!("this kernel's BTF has no struct {container} member {path}");
        return lacking(detail, Some(OffsetsError::REMEDY));
    }
    match btf.tracepoint_prototype(hook.name) {
        Ok(prototype) => match hook.choose(&prototype) {
            Some(chosen) if chosen.lost.is_empty() => {
                (check(Status::Ok, prototype.to_string()), Some(chosen))
            }
            Some(chosen) => {
                let less = check(Status::Degraded, prototype.to_string()).with_lost(chosen.lost);
                (less, Some(chosen))
            }
            None if hook.is_too_old(&prototype) => {
                let detail = format!(
                    "this kernel's tracepoint {} passes {prototype}, without the arguments that Linux \
                     {major}.{minor} added",
                    hook.name
                );
                lacking(detail, Some(&newer))
            }
            None => {
                let known: Vec<_> = hook.variants.iter().map(|v| wanted(v.args)).collect();
                let name = hook.name;
                let detail = format!(
                    "this kernel's tracepoint {name} passes {prototype}, expected {}",
                    known.join(" or ")
                );
                lacking(detail, Some(OffsetsError::REMEDY))
            }
        },
        Err(BtfError::NoTracepoint(name)) => {
            let detail =
                format!("this kernel has no tracepoint {name} (since Linux {major}.{minor})");
            lacking(detail, Some(&newer))
        }
        Err(e) => lacking(
            format!("tracepoint {}: {e}", hook.name),
            Some(OffsetsError::REMEDY),
        ),
    }
}

fn wanted(args: &[&str]) -> String {
    let args = args.iter().map(|a| (*a).to_owned()).collect();
    Prototype {
        args,
        returns: String::new(),
    }
    .to_string()
}
