//! Drops chosen segments on their way into a namespace: the userspace part of the fault classifier
//! (`synprobe-ebpf/src/lab_main.rs`).

use std::mem;

use anyhow::{Context, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, PerCpuArray},
    programs::{SchedClassifier, TcAttachType, tc},
    util::KernelVersion,
};
use synprobe_ebpf::lab_config::{FAULT_ALWAYS, FAULT_FIRST, FAULT_ORDINALS, FAULT_RULES};
pub use synprobe_ebpf::lab_config::{FaultCount, FaultRule, PAYLOAD_NONE, PAYLOAD_ONLY, flags};

use crate::{net::INTERFACE, ns::Ns};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/synprobe-lab.bpf.o");

#[repr(transparent)]
#[derive(Clone, Copy)]
struct RulePod(FaultRule);
// SAFETY: `repr(C)` integers without implicit padding.
unsafe impl Pod for RulePod {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct CountPod(FaultCount);
// SAFETY: `repr(C)` integers without implicit padding.
unsafe impl Pod for CountPod {}

/// SYN without ACK.
pub fn syn() -> FaultRule {
    by_flags(flags::SYN | flags::ACK, flags::SYN)
}

/// SYN with ACK.
pub fn syn_ack() -> FaultRule {
    by_flags(flags::SYN | flags::ACK, flags::SYN | flags::ACK)
}

/// An ACK with no data, SYN, FIN or RST: the third segment of a handshake.
pub fn bare_ack() -> FaultRule {
    FaultRule {
        payload: PAYLOAD_NONE,
        ..by_flags(
            flags::SYN | flags::ACK | flags::FIN | flags::RST,
            flags::ACK,
        )
    }
}

/// Any segment with data.
pub fn data() -> FaultRule {
    FaultRule {
        payload: PAYLOAD_ONLY,
        ..by_flags(0, 0)
    }
}

fn by_flags(flags_mask: u8, flags_value: u8) -> FaultRule {
    FaultRule {
        flags_mask,
        flags_value,
        ..FaultRule::default()
    }
}

/// Which of the matching segments are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossPattern {
    /// All.
    All,
    /// The first ones of each flow.
    First(u64),
    /// Those whose ordinal in their flow (0 to 63) has its bit set.
    Ordinals(u64),
}

/// The classifier, attached to the ingress of one namespace. Dropping it lifts every fault.
pub struct FaultInjector<'ns> {
    ns: &'ns Ns,
    ebpf: Option<Ebpf>,
    rules: Array<MapData, RulePod>,
    counts: PerCpuArray<MapData, CountPod>,
    generation: u32,
}

impl<'ns> FaultInjector<'ns> {
    /// Attaches the classifier, without a rule, to the ingress of `ns`.
    pub fn attach(ns: &'ns Ns) -> Result<Self> {
        Self::attach_to(ns, INTERFACE)
    }

    /// The same for another interface.
    pub fn attach_to(ns: &'ns Ns, interface: &str) -> Result<Self> {
        // Before Linux 5.11 maps are charged to the memory lock limit.
        let unlimited = libc::rlimit {
            rlim_cur: libc::RLIM_INFINITY,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the limit is alive for the call. If it fails, loading reports what is missing.
        unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
        let mut ebpf = Ebpf::load(OBJECT).context("loading the lab's fault classifier")?;
        // aya talks netlink, and the kernel looks the interface up, in the calling thread's
        // namespace.
        ns.run(|| {
            let old = KernelVersion::current().is_ok_and(|now| now < KernelVersion::new(6, 6, 0));
            if old {
                tc::qdisc_add_clsact(interface).context("adding clsact to the lab's interface")?;
            }
            let program = ebpf
                .program_mut("lose")
                .context("the classifier is missing")?;
            let program: &mut SchedClassifier = program.try_into()?;
            program
                .load()
                .context("loading the lab's fault classifier")?;
            program
                .attach(interface, TcAttachType::Ingress)
                .context("attaching the lab's fault classifier")?;
            Ok(())
        })?;
        let mut map = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("the map {name}"))
        };
        let rules = Array::try_from(map("RULES")?)?;
        let counts = PerCpuArray::try_from(map("COUNTS")?)?;
        Ok(Self {
            ns,
            ebpf: Some(ebpf),
            rules,
            counts,
            generation: 0,
        })
    }

    /// Sets rule `slot` and restarts its ordinals. `port` is the server's port (0: any): the destination
    /// into the server, the source into the client. The client's port is that of `segments`.
    pub fn set(
        &mut self,
        slot: u32,
        segments: FaultRule,
        lose: LossPattern,
        port: u16,
    ) -> Result<()> {
        debug_assert!((slot as usize) < FAULT_RULES);
        self.generation += 1;
        let (action, which) = match lose {
            LossPattern::All => (FAULT_ALWAYS, 0),
            LossPattern::First(count) => (FAULT_FIRST, count),
            LossPattern::Ordinals(bitmap) => (FAULT_ORDINALS, bitmap),
        };
        let into_client = self.ns.label() == crate::CLIENT;
        let rule = FaultRule {
            action,
            which,
            generation: self.generation,
            source_port: if into_client {
                port
            } else {
                segments.source_port
            },
            destination_port: if into_client {
                segments.destination_port
            } else {
                port
            },
            ..segments
        };
        self.rules
            .set(slot, RulePod(rule), 0)
            .context("setting a fault")
    }

    /// As [`Self::set`], but this host drops the segments, and the kernel reports that
    /// (`skb:kfree_skb`, TC_INGRESS).
    pub fn drop_here(
        &mut self,
        slot: u32,
        segments: FaultRule,
        lose: LossPattern,
        port: u16,
    ) -> Result<()> {
        let segments = FaultRule {
            dropped_here: 1,
            ..segments
        };
        self.set(slot, segments, lose, port)
    }

    /// Disables rule `slot`; its counts remain.
    pub fn lift(&mut self, slot: u32) -> Result<()> {
        self.rules
            .set(slot, RulePod(FaultRule::default()), 0)
            .context("lifting a fault")
    }

    /// Counts of rule `slot` since the classifier was attached.
    pub fn count(&self, slot: u32) -> Result<FaultCount> {
        let mut sum = FaultCount::default();
        for CountPod(one) in self
            .counts
            .get(&slot, 0)
            .context("reading a fault's counts")?
            .iter()
        {
            sum.seen += one.seen;
            sum.dropped += one.dropped;
        }
        Ok(sum)
    }
}

impl Drop for FaultInjector<'_> {
    fn drop(&mut self) {
        // Before Linux 6.6 detaching is a netlink request by interface index. Outside the namespace it
        // would reach another interface, so leak it instead: it vanishes with the namespace.
        let mut ebpf = self.ebpf.take();
        let detached = self.ns.run(|| {
            drop(ebpf.take());
            Ok(())
        });
        if detached.is_err() {
            mem::forget(ebpf.take());
        }
    }
}
