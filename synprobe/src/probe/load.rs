//! Loads and attaches the eBPF object.

use std::{io, os::fd::AsFd, time::Instant};

use aya::{
    Ebpf, EbpfLoader,
    maps::{LpmTrie, MapData, RingBuf, lpm_trie::Key},
    programs::{ProgramError, RawTracePoint, raw_trace_point::RawTracePointLinkId},
};
use synprobe_ebpf::{
    config::{MEMBERS, REFUSING_FUNCTIONS, REFUSING_WORDS},
    histogram::SLOTS,
};
use thiserror::Error;

use super::{
    attach::{AttachedSource, attach_exact, detach_exact},
    counters::{PodAcceptHistogram, PodHistogram, PodStats},
    drop_governor::{DropGovernor, GovernorAction, PAUSE},
    drop_reasons::Reasons,
    half_open_source::{ACCEPT, Decision, HookProgram},
    hooks::{Chosen, DROPS, DROPS_WITH_RECEIVER, Hook, STAND_IN, STATES},
    info::runs_and_misses,
    kallsyms::Places,
    object::Object,
    per_cpu::PerCpuSlots,
};
use crate::{filter::KernelFilter, model::HalfOpenSource};

/// What the loader needs to know.
pub struct LoadOptions<'a> {
    /// Size of the ring, bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// What the kernel side lets through.
    pub filter: &'a KernelFilter,
    /// Offsets of this kernel's structure members, in the order of [`MEMBERS`].
    pub places: [u32; MEMBERS.len()],
    /// The hooks, each with the program that fits this kernel's prototype.
    pub hooks: &'a [Chosen],
    /// The kernel's drop reasons.
    pub reasons: &'a Reasons,
    /// What reports the end of a half-open.
    pub exact: &'a Decision,
    /// Level of the kernel side's own diagnostics: 0 off, 1 error … 5 trace (`aya_log::Level`).
    pub log_level: u8,
}

/// Why the programs could not be loaded or attached.
#[derive(Debug, Error)]
pub enum LoadError {
    /// What is embedded is not what was compiled.
    #[error("the embedded eBPF object is damaged: {0}")]
    Embedded(#[from] lz4_flex::block::DecompressError),
    /// The object could not be loaded at all.
    #[error("the eBPF object cannot be loaded: {0}")]
    Object(#[from] aya::EbpfError),
    /// A map is not there or not of its type.
    #[error("eBPF map {0}: {1}")]
    Map(&'static str, #[source] aya::maps::MapError),
    /// A map or program that the agent expects is not in the object.
    #[error("the eBPF object has no {0}: rebuild it with `cargo xtask ebpf`")]
    Absent(&'static str),
    /// The kernel refused a program.
    #[error("this kernel refuses the program for {hook}: {error}")]
    Program {
        /// The tracepoint.
        hook: &'static str,
        /// The kernel's error, with the end of the verifier's log.
        #[source]
        error: Box<ProgramError>,
    },
}

/// The attached programs. Dropping this value detaches them, and so does the kernel when the process
/// ends.
pub struct Probes {
    /// Keeps programs and links alive.
    pub(super) ebpf: Ebpf,
    pub(super) stats: PerCpuSlots<PodStats>,
    pub(super) histograms: PerCpuSlots<PodHistogram>,
    /// How long connections waited for accept(); `None`: accept() is not watched.
    pub(super) accept_waits: Option<PerCpuSlots<PodAcceptHistogram>>,
    pub(super) attached: Vec<(Chosen, Option<RawTracePointLinkId>)>,
    stand_in: Option<RawTracePointLinkId>,
    drop_governor: DropGovernor,
    exact: AttachedSource,
}

impl Probes {
    /// Loads and attaches everything. Returns the ring too.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; an optional hook that the kernel refuses is left out, see [`Self::attached`].
    pub fn load(options: &LoadOptions<'_>) -> Result<(Self, RingBuf<MapData>), LoadError> {
        let filter = options.filter;
        let scalars = [
            filter.filter.netns,
            filter.filter.netns_too,
            filter.filter.role,
            filter.filter.ports,
            filter.filter.peers,
            filter.filter.all_states,
            filter.filter.unbound,
            filter.filter.slow_us,
            filter.filter.stand_in,
        ];
        let places = options.places.as_slice();
        let with_receiver = options
            .hooks
            .iter()
            .any(|chosen| chosen.program == DROPS_WITH_RECEIVER);
        let reasons = options.reasons.to_kernel(with_receiver);
        let refusing = refusing_functions();
        let peers = u32::try_from(filter.peers.len().max(1)).unwrap_or(u32::MAX);
        let watches_accept = |parts: &[&HookProgram]| parts.iter().any(|part| part.hook == ACCEPT);
        let accept_slots = match watches_accept(&options.exact.parts.programs) {
            true => SLOTS + 1,
            false => 1,
        };
        let mut loader = EbpfLoader::new();
        loader
            .override_global("OFFSETS", places, true)
            .override_global("FILTER", scalars.as_slice(), true)
            .override_global("PORTS", filter.ports.as_slice(), true)
            .override_global("REASONS", reasons.as_slice(), true)
            .override_global("REFUSING", refusing.as_slice(), true)
            .override_global("EXACT", options.exact.params.0.as_slice(), true)
            .override_global("AYA_LOG_LEVEL", &options.log_level, true)
            .map_max_entries("ACCEPT_WAITS", accept_slots)
            .map_max_entries("EVENTS", options.ring_bytes)
            .map_max_entries("PEERS", peers);
        let mut ebpf = loader.load(Object::embedded()?.bytes())?;

        if let Some(map) = ebpf.map_mut("PEERS") {
            let mut trie: LpmTrie<_, [u8; 16], u8> =
                map.try_into().map_err(|e| LoadError::Map("PEERS", e))?;
            for (prefix, addr) in &filter.peers {
                trie.insert(&Key::new(*prefix, *addr), 1, 0)
                    .map_err(|e| LoadError::Map("PEERS", e))?;
            }
        }
        let ring = ebpf
            .take_map("EVENTS")
            .ok_or(LoadError::Absent("map EVENTS"))?;
        let ring = RingBuf::try_from(ring).map_err(|e| LoadError::Map("EVENTS", e))?;
        let stats = ebpf
            .take_map("STATS")
            .ok_or(LoadError::Absent("map STATS"))?;
        let stats = PerCpuSlots::new(stats).map_err(|e| LoadError::Map("STATS", e))?;
        let histograms = ebpf
            .take_map("HISTOGRAMS")
            .ok_or(LoadError::Absent("map HISTOGRAMS"))?;
        let histograms =
            PerCpuSlots::new(histograms).map_err(|e| LoadError::Map("HISTOGRAMS", e))?;

        // All are loaded before the first is attached, so that every event has all its programs.
        let mut loaded = Vec::new();
        for chosen in options.hooks {
            match program(&mut ebpf, chosen)?.load() {
                Ok(()) => loaded.push(chosen),
                Err(error) => refused(chosen.hook, error)?,
            }
        }
        let mut attached = Vec::new();
        for chosen in loaded {
            match program(&mut ebpf, chosen)?.attach(chosen.hook.name) {
                Ok(link) => attached.push((*chosen, Some(link))),
                Err(error) => refused(chosen.hook, error)?,
            }
        }
        let stand_in = match filter.filter.stand_in {
            0 => None,
            _ => attach_stand_in(&mut ebpf)?,
        };
        let exact = attach_exact(&mut ebpf, options.exact)?;
        let accept_waits = match exact.links.iter().any(|(part, _)| part.hook == ACCEPT) {
            true => {
                let map = ebpf
                    .take_map("ACCEPT_WAITS")
                    .ok_or(LoadError::Absent("map ACCEPT_WAITS"))?;
                let map = PerCpuSlots::new(map);
                Some(map.map_err(|e| LoadError::Map("ACCEPT_WAITS", e))?)
            }
            false => None,
        };
        give_back_memory();
        Ok((
            Self {
                ebpf,
                exact,
                stats,
                histograms,
                accept_waits,
                attached,
                stand_in,
                drop_governor: DropGovernor::watching(Instant::now(), 0),
            },
            ring,
        ))
    }

    /// The hooks in use.
    pub fn attached(&self) -> impl Iterator<Item = &'static str> {
        self.attached.iter().map(|(chosen, _)| chosen.hook.name)
    }

    /// What reports the end of a half-open, and why it is not the source that was chosen.
    pub fn source(&self) -> (HalfOpenSource, Option<&str>) {
        (self.exact.source, self.exact.why.as_deref())
    }

    /// The tracepoints and functions of the exact mode, each once.
    pub fn exact_hooks(&self) -> Vec<&'static str> {
        let mut hooks: Vec<_> = self.exact.links.iter().map(|(part, _)| part.hook).collect();
        let mut seen = Vec::new();
        hooks.retain(|hook| {
            !seen.contains(hook) && {
                seen.push(*hook);
                self.attached().all(|attached| attached != *hook)
            }
        });
        hooks
    }

    /// Detaches the program on [`DROPS`] while too many packets are dropped, and attaches it again later.
    /// To be called about once a second. `runs`: how often that program has run
    /// ([`Stats::drop_runs`](synprobe_ebpf::stats::Stats::drop_runs)). Returns what is not watched from
    /// now on, in words.
    pub fn relieve(&mut self, runs: u64, now: Instant) -> Option<String> {
        let (chosen, link) = self
            .attached
            .iter_mut()
            .find(|(chosen, _)| chosen.hook.name == DROPS)?;
        let program = program(&mut self.ebpf, chosen).ok()?;
        let seconds = PAUSE.as_secs();
        match self.drop_governor.decide(now, runs)? {
            GovernorAction::Detach { per_second } => {
                if let Err(error) = program.detach(link.take()?) {
                    log::warn!("{DROPS} cannot be detached: {error}");
                }
                Some(format!(
                    "packet drops: {} a second on this host, too many to watch: not watched for \
                     {seconds} s",
                    thousands(per_second)
                ))
            }
            GovernorAction::Attach => match program.attach(DROPS) {
                Ok(again) => {
                    *link = Some(again);
                    None
                }
                Err(error) => {
                    self.drop_governor = DropGovernor::Resting { until: now + PAUSE };
                    Some(format!(
                        "packet drops: attaching again failed ({error}): not watched for {seconds} s"
                    ))
                }
            },
        }
    }

    /// Detaches everything: nothing new reaches the ring after this. The programs stay loaded, so that
    /// their counters can be read once more.
    pub fn detach(&mut self) {
        detach_exact(&mut self.ebpf, std::mem::take(&mut self.exact.links));
        if let Some(link) = self.stand_in.take()
            && let Ok(program) = by_name(&mut self.ebpf, STAND_IN)
            && let Err(error) = program.detach(link)
        {
            log::warn!("{STAND_IN} cannot be detached: {error}");
        }
        if let Ok(stats) = self.stats() {
            log::info!("{STAND_IN}: {} runs in place of another", stats.stood_in);
        }
        for (chosen, link) in &mut self.attached {
            let program = program(&mut self.ebpf, chosen).ok();
            let counts = program
                .as_ref()
                .and_then(|p| runs_and_misses(p.fd().ok()?.as_fd()));
            log::info!("{}: {counts:?} runs and skips", chosen.program);
            if let (Some(program), Some(link)) = (program, link.take())
                && let Err(error) = program.detach(link)
            {
                log::warn!("{} cannot be detached: {error}", chosen.hook.name);
            }
        }
    }

    /// The kernel side's log, for `aya_log::EbpfLogger`.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, chosen: &Chosen) -> Result<&'a mut RawTracePoint, LoadError> {
    by_name(ebpf, chosen.program)
}

fn by_name<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut RawTracePoint, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Absent(name))?;
    program.try_into().map_err(|_| LoadError::Absent(name))
}

/// Without the stand-in program, events that the kernel skips are reported as lost.
fn attach_stand_in(ebpf: &mut Ebpf) -> Result<Option<RawTracePointLinkId>, LoadError> {
    let program = by_name(ebpf, STAND_IN)?;
    match program.load().and_then(|()| program.attach(STATES)) {
        Ok(link) => Ok(Some(link)),
        Err(error) => {
            log::info!("{STAND_IN} is not used: {error}");
            Ok(None)
        }
    }
}

fn refused(hook: &'static Hook, error: ProgramError) -> Result<(), LoadError> {
    if hook.required {
        return Err(LoadError::Program {
            hook: hook.name,
            error: Box::new(error),
        });
    }
    log::info!("{} is not used: {error}", hook.name);
    Ok(())
}

/// `412000` as `412,000`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns freed memory to the system. Loading the object parses the kernel's whole BTF twice: tens of
/// megabytes in small pieces, all free by now.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only returns free pages to the system.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The address ranges of [`REFUSING_FUNCTIONS`]; 0 where the kernel does not have one, or hides addresses.
fn refusing_functions() -> [u64; REFUSING_WORDS] {
    let mut words = [0; REFUSING_WORDS];
    if let Err(error) = find_refusing_functions(&mut words) {
        log::info!("/proc/kallsyms: {error}: some drops without a reason are not seen");
    }
    words
}

fn find_refusing_functions(words: &mut [u64; REFUSING_WORDS]) -> io::Result<()> {
    let places = Places::of_kernel()?;
    let each = REFUSING_WORDS / REFUSING_FUNCTIONS.len();
    for (name, words) in REFUSING_FUNCTIONS.iter().zip(words.chunks_mut(each)) {
        let ranges = places.ranges_with_module(name)?;
        for ((begin, end), words) in ranges.iter().zip(words.chunks_mut(2)) {
            words.copy_from_slice(&[*begin, *end]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let shown = [0, 7, 999, 1000, 412_000, 1_234_567].map(thousands);
        assert_eq!(shown, ["0", "7", "999", "1,000", "412,000", "1,234,567"]);
    }
}
