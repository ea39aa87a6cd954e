//! Loading and attaching the eBPF object.

use std::{os::fd::AsFd, time::Instant};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{LpmTrie, MapData, PerCpuArray, RingBuf, lpm_trie::Key},
    programs::{ProgramError, RawTracePoint, raw_trace_point::RawTracePointLinkId},
};
use synprobe_ebpf::{
    config::{MEMBERS, ROLE_CLIENT, ROLE_SERVER},
    histogram::{BUCKETS, Histogram, OTHERS, SLOTS},
    stats::{STATS_SLOTS, Stats},
};
use thiserror::Error;

use super::{
    attach::{Attached, attach_exact, detach_exact},
    drop_governor::{Aside, Move, PAUSE},
    drop_reasons::Reasons,
    half_open_source::Decision,
    hooks::{Chosen, DROPS, DROPS_WITH_RECEIVER, Hook, STAND_IN, STATES},
    info::runs_and_misses,
};
use crate::model::HalfOpenSource;
use crate::{filter::KernelFilter, model::Role};

/// The compiled object, as `cargo xtask ebpf` left it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/synprobe.bpf.o");

/// [`Stats`] as the map holds it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodStats(Stats);

// SAFETY: repr(transparent) over a repr(C) struct of u64 arrays: any bytes are a valid value.
unsafe impl Pod for PodStats {}

/// [`Histogram`] as the map holds it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodHistogram(Histogram);

// SAFETY: repr(transparent) over a repr(C) struct of integers: any bytes are a valid value.
unsafe impl Pod for PodHistogram {}

/// One slot of one CPU: role, port, and the counts by bucket.
pub type CountedSlot = (Role, Option<u16>, [u64; BUCKETS]);

/// What the loader needs to know.
pub struct LoadOptions<'a> {
    /// Size of the ring, bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// What to let through.
    pub filter: &'a KernelFilter,
    /// Where this kernel keeps its members ([`MEMBERS`]' order).
    pub places: [u32; MEMBERS.len()],
    /// The hooks, each with the program that fits this kernel's prototype.
    pub hooks: &'a [Chosen],
    /// Its names for why it drops packets.
    pub reasons: &'a Reasons,
    /// What tells of a half-open's end.
    pub exact: &'a Decision,
    /// Level of the kernel side's own diagnostics: 0 off, 1 error … 5 trace (`aya_log::Level`).
    pub log_level: u8,
}

/// Why the programs could not be loaded or attached.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object could not be loaded at all.
    #[error("the eBPF object cannot be loaded: {0}")]
    Object(#[from] aya::EbpfError),
    /// A map is not there or not of its type.
    #[error("eBPF map {0}: {1}")]
    Map(&'static str, aya::maps::MapError),
    /// A map or program that the agent expects is not in the object.
    #[error("the eBPF object has no {0}: rebuild it with `cargo xtask ebpf`")]
    Absent(&'static str),
    /// The kernel refused a program.
    #[error("this kernel refuses the program for {hook}: {error}")]
    Program {
        /// The tracepoint.
        hook: &'static str,
        /// What the kernel said, with the verifier's last words.
        error: Box<ProgramError>,
    },
}

/// The attached programs. Dropping it detaches them; the kernel does so too when the process dies.
pub struct Probes {
    /// Keeps programs and links alive.
    ebpf: Ebpf,
    stats: PerCpuArray<MapData, PodStats>,
    histograms: PerCpuArray<MapData, PodHistogram>,
    attached: Vec<(Chosen, Option<RawTracePointLinkId>)>,
    stand_in: Option<RawTracePointLinkId>,
    aside: Aside,
    exact: Attached,
}

impl Probes {
    /// Loads and attaches everything; gives the ring back beside it.
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
        let peers = u32::try_from(filter.peers.len().max(1)).unwrap_or(u32::MAX);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("OFFSETS", places, true)
            .override_global("FILTER", scalars.as_slice(), true)
            .override_global("PORTS", filter.ports.as_slice(), true)
            .override_global("REASONS", reasons.as_slice(), true)
            .override_global("EXACT", options.exact.words.0.as_slice(), true)
            .override_global("AYA_LOG_LEVEL", &options.log_level, true)
            .map_max_entries("EVENTS", options.ring_bytes)
            .map_max_entries("PEERS", peers);
        let mut ebpf = loader.load(OBJECT)?;

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
        let stats = PerCpuArray::try_from(stats).map_err(|e| LoadError::Map("STATS", e))?;
        let histograms = ebpf
            .take_map("HISTOGRAMS")
            .ok_or(LoadError::Absent("map HISTOGRAMS"))?;
        let histograms =
            PerCpuArray::try_from(histograms).map_err(|e| LoadError::Map("HISTOGRAMS", e))?;

        // All are loaded before the first is attached: nothing is seen by half.
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
        give_back_memory();
        Ok((
            Self {
                ebpf,
                exact,
                stats,
                histograms,
                attached,
                stand_in,
                aside: Aside::watching(Instant::now(), 0),
            },
            ring,
        ))
    }

    /// The hooks in use.
    pub fn attached(&self) -> impl Iterator<Item = &'static str> {
        self.attached.iter().map(|(chosen, _)| chosen.hook.name)
    }

    /// What tells of a half-open's end; and why it is not what was decided.
    pub fn source(&self) -> (HalfOpenSource, Option<&str>) {
        (self.exact.source, self.exact.why.as_deref())
    }

    /// The tracepoints and functions by which it is told, each once.
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

    /// The kernel side's counters, all CPUs added up.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn stats(&self) -> Result<Stats, aya::maps::MapError> {
        let mut sum = Stats::default();
        for slot in 0..STATS_SLOTS {
            for cpu in self.stats.get(&slot, 0)?.iter() {
                sum.add(&cpu.0);
            }
        }
        Ok(sum)
    }

    /// The handshakes that were only counted: by role and port (`None`: those that found no room), CPU
    /// by CPU.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counted(&self) -> Result<Vec<CountedSlot>, aya::maps::MapError> {
        let mut counted = Vec::new();
        for index in 0..SLOTS + OTHERS {
            for PodHistogram(slot) in self.histograms.get(&index, 0)?.iter() {
                let (role, port) = match index.checked_sub(SLOTS) {
                    Some(other) => (other + 1, None),
                    None => (slot.key >> 16, Some(slot.key as u16)),
                };
                let role = match role {
                    ROLE_CLIENT => Role::Client,
                    ROLE_SERVER => Role::Server,
                    _ => continue,
                };
                if slot.counts.iter().any(|count| *count > 0) {
                    counted.push((role, port, slot.counts));
                }
            }
        }
        Ok(counted)
    }

    /// How often the kernel skipped one of the programs because it was already running on that CPU
    /// (`bpf_prog_info.recursion_misses`; for raw tracepoints since 6.1, where the check came with it):
    /// events that nobody saw, but for those where another stood in ([`Stats::stood_in`]). Apart from
    /// those of the program on [`DROPS`]: see [`Self::drops_skipped`].
    pub fn skipped(&self) -> u64 {
        self.misses(|chosen| chosen.hook.name != DROPS)
    }

    /// Likewise, of the program on [`DROPS`], which runs for every dropped packet: next to none of them
    /// would have given a record.
    pub fn drops_skipped(&self) -> u64 {
        self.misses(|chosen| chosen.hook.name == DROPS)
    }

    fn misses(&self, of: impl Fn(&Chosen) -> bool) -> u64 {
        self.attached
            .iter()
            .filter(|(chosen, _)| of(chosen))
            .filter_map(|(chosen, _)| self.ebpf.program(chosen.program)?.fd().ok())
            .filter_map(|fd| runs_and_misses(fd.as_fd()))
            .map(|(_, misses)| misses)
            .sum()
    }

    /// Leaves the drops alone while there are too many of them, and returns to them later; to be asked
    /// about once a second. `runs`: how often their program has run ([`Stats::drop_runs`]). Says what is
    /// not seen from now on.
    pub fn relieve(&mut self, runs: u64, now: Instant) -> Option<String> {
        let (chosen, link) = self
            .attached
            .iter_mut()
            .find(|(chosen, _)| chosen.hook.name == DROPS)?;
        let program = program(&mut self.ebpf, chosen).ok()?;
        let seconds = PAUSE.as_secs();
        match self.aside.decide(now, runs)? {
            Move::StepAside { per_second } => {
                if let Err(error) = program.detach(link.take()?) {
                    log::warn!("{DROPS} cannot be detached: {error}");
                }
                Some(format!(
                    "packet drops: {} a second on this host, more than it is worth to look at: not \
                     watched for {seconds} s",
                    thousands(per_second)
                ))
            }
            Move::Return => match program.attach(DROPS) {
                Ok(again) => {
                    *link = Some(again);
                    None
                }
                Err(error) => {
                    self.aside = Aside::Resting { until: now + PAUSE };
                    Some(format!(
                        "packet drops: cannot be watched again: {error}: not watched for {seconds} s"
                    ))
                }
            },
        }
    }

    /// Detaches everything: from here on nothing new reaches the ring. The programs stay loaded, for
    /// their counters to be read once more.
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

/// Without it the kernel's skips are losses, and are said.
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

/// aya reads the kernel's whole BTF to load an object, and so do we to find our members: tens of
/// megabytes in small pieces, free by now. A tool that stays running gives them back.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only returns free pages to the system.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_off() {
        let said = [0, 7, 999, 1000, 412_000, 1_234_567].map(thousands);
        assert_eq!(said, ["0", "7", "999", "1,000", "412,000", "1,234,567"]);
    }
}
