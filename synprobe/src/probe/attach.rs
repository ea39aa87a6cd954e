//! Loads and attaches the programs of the exact mode.

use aya::{
    Ebpf,
    programs::{
        FEntry, FExit, ProgramError, RawTracePoint, fentry::FEntryLinkId, fexit::FExitLinkId,
        raw_trace_point::RawTracePointLinkId,
    },
};

use super::{
    LoadError,
    half_open_source::{AttachType, Decision, HookProgram},
};
use crate::model::HalfOpenSource;

/// The attached source.
#[derive(Default)]
pub(super) struct AttachedSource {
    pub(super) source: HalfOpenSource,
    pub(super) links: Vec<(&'static HookProgram, ExactLink)>,
    /// Why it is not the source that was chosen.
    pub(super) why: Option<String>,
}

pub(super) enum ExactLink {
    Tracepoint(RawTracePointLinkId),
    Entry(FEntryLinkId),
    Exit(FExitLinkId),
}

/// Loads all programs of a source, then attaches them in order. If the kernel refuses a program that
/// the source needs, the TCP tracepoints replace it where the decision allows that.
pub(super) fn attach_exact(
    ebpf: &mut Ebpf,
    decision: &Decision,
) -> Result<AttachedSource, LoadError> {
    let mut attached = AttachedSource {
        source: decision.source,
        ..AttachedSource::default()
    };
    let mut failed = None;
    let mut loaded = Vec::new();
    // fentry needs the BTF id of the function.
    let btf = match decision.source {
        HalfOpenSource::Fentry => Some(aya::Btf::from_sys_fs().map_err(aya::EbpfError::from)?),
        _ => None,
    };
    for &part in &decision.parts.programs {
        match load_program(ebpf, part, btf.as_ref()) {
            Ok(()) => loaded.push(part),
            Err(error) if part.feature.is_empty() => failed = failed.or(Some((part, error))),
            Err(error) => log::info!("{} is not used: {error}", part.program),
        }
    }
    for part in loaded {
        if failed.is_some() {
            break;
        }
        match attach_program(ebpf, part) {
            Ok(link) => attached.links.push((part, link)),
            Err(error) if part.feature.is_empty() => failed = Some((part, error)),
            Err(error) => log::info!("{} is not used: {error}", part.program),
        }
    }
    let Some((part, error)) = failed else {
        return Ok(attached);
    };
    detach_exact(ebpf, std::mem::take(&mut attached.links));
    if !decision.may_fall_back {
        return Err(LoadError::Program {
            hook: part.hook,
            error: Box::new(error),
        });
    }
    Ok(AttachedSource {
        source: HalfOpenSource::Tracepoints,
        links: Vec::new(),
        why: Some(format!("{}: {error}", part.hook)),
    })
}

fn load_program(
    ebpf: &mut Ebpf,
    part: &HookProgram,
    btf: Option<&aya::Btf>,
) -> Result<(), ProgramError> {
    let program = ebpf
        .program_mut(part.program)
        .ok_or(ProgramError::NotLoaded)?;
    match (part.attach, btf) {
        (AttachType::Entry, Some(btf)) => <&mut FEntry>::try_from(program)?.load(part.hook, btf),
        (AttachType::Exit, Some(btf)) => <&mut FExit>::try_from(program)?.load(part.hook, btf),
        _ => <&mut RawTracePoint>::try_from(program)?.load(),
    }
}

fn attach_program(ebpf: &mut Ebpf, part: &HookProgram) -> Result<ExactLink, ProgramError> {
    let program = ebpf
        .program_mut(part.program)
        .ok_or(ProgramError::NotLoaded)?;
    Ok(match part.attach {
        AttachType::Tracepoint => {
            ExactLink::Tracepoint(<&mut RawTracePoint>::try_from(program)?.attach(part.hook)?)
        }
        AttachType::Entry => ExactLink::Entry(<&mut FEntry>::try_from(program)?.attach()?),
        AttachType::Exit => ExactLink::Exit(<&mut FExit>::try_from(program)?.attach()?),
    })
}

/// In reverse order: a program is detached before those that it relies on.
pub(super) fn detach_exact(ebpf: &mut Ebpf, links: Vec<(&'static HookProgram, ExactLink)>) {
    for (part, link) in links.into_iter().rev() {
        let Some(program) = ebpf.program_mut(part.program) else {
            continue;
        };
        let detached = match link {
            ExactLink::Tracepoint(link) => {
                <&mut RawTracePoint>::try_from(program).and_then(|p| p.detach(link))
            }
            ExactLink::Entry(link) => <&mut FEntry>::try_from(program).and_then(|p| p.detach(link)),
            ExactLink::Exit(link) => <&mut FExit>::try_from(program).and_then(|p| p.detach(link)),
        };
        if let Err(error) = detached {
            log::warn!("{} cannot be detached: {error}", part.program);
        }
    }
}
