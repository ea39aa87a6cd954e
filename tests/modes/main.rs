//! All modes give the same results wherever they have the information. Two agents watch every scenario of the
//! lab at the same time: one with TCP's tracepoints only, one in the exact mode. Their handshakes are compared
//! one by one, and each allowed difference has a name. What only the exact mode reports is compared with
//! captures, the kernel's counters and sock_diag.

mod exact_only;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use synprobe::{
    filter::Detail,
    model::{Body, HalfOpenSource, Handshake, Line, Outcome, Role, VerdictKind},
    pipeline::Setup,
    probe::half_open_source::RequestedMode,
    util::table_bounds::TableBounds,
    verbs::lab,
    verdict::Mode,
    view::JsonView,
};
use synprobe_lab::{Lab, LabRun, Scenario, SocketFamily};
use synprobe_tests::{
    harness::{self, Case, Undecided, figure},
    kernel::Capabilities,
    pipeline_run::{AMPLE_RING, WatchedRun, options_for, watch},
    schema,
};

/// Two programs see one event one after the other: between the times that they note lie microseconds,
/// or the machine did something else.
const SAME_US: u64 = 2_000;
/// A half-open that lives no longer than this may come and go between two looks at sock_diag: a second
/// lies between them, and longer where they are expensive.
const BETWEEN_LOOKS_US: u64 = 2_500_000;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for scenario in harness::scenarios() {
        for family in [SocketFamily::V4, SocketFamily::V6] {
            if scenario.supports(family) {
                cases.push(Case::for_family(scenario.name(), family, move |family| {
                    compare(scenario, family)
                }));
            }
        }
    }
    cases.extend(exact_only::cases());
    harness::main_with(cases, 6)
}

/// The exact mode is there: else there is nothing to test, and that is a failure.
fn exact_source() -> Result<HalfOpenSource> {
    let decided = harness::host()?.exact_by(RequestedMode::Exact, Detail::Handshakes)?;
    Ok(decided.source)
}

fn compare(scenario: &'static dyn Scenario, family: SocketFamily) -> Result<()> {
    let source = exact_source()?;
    let lab = Lab::new(family)?;
    let mut options = options_for(&lab)?;
    options.requested_mode = RequestedMode::Exact;
    let setup = Setup {
        ring_bytes: AMPLE_RING,
        tables: TableBounds::default(),
        log_level: 0,
        detail: Detail::Handshakes,
        mode: Mode::AtOnce,
        requested_mode: RequestedMode::Tracepoints,
    };
    let (by_tracepoints, exact) = watch(options, |_| {
        let never = Box::pin(std::future::pending());
        let view = JsonView::new(Vec::new());
        let (run, view) = lab::watched(harness::host()?, scenario, lab, &setup, view, never)?;
        let text = String::from_utf8(view.into_inner()).context("the lines are UTF-8")?;
        schema::check(text.lines())?;
        Ok(run)
    })?;
    let exact = exact.complete()?;
    let lost = by_tracepoints.end.lost;
    if lost > 0 {
        return Err(Undecided(format!("{lost} records lost by the tracepoints' agent")).into());
    }
    ensure!(
        mode(&exact.lines)? == source.name(),
        "not {}",
        source.name()
    );
    ensure!(mode(&by_tracepoints.lines)? == HalfOpenSource::Tracepoints.name());

    let mut comparison = ModeComparison::new(&by_tracepoints)?;
    comparison.all(&exact)?;
    if !by_tracepoints.incident {
        counters_agree(&exact, &by_tracepoints)?;
    }
    figure(format!(
        "{}: {} handshake lines compared, {}; differences with a name: {:?}",
        scenario.name(),
        comparison.compared,
        source.name(),
        comparison.named
    ));
    Ok(())
}

fn mode(lines: &[Line]) -> Result<&str> {
    match lines.first().map(|line| &line.body) {
        Some(Body::Start(start)) => Ok(&start.mode),
        other => bail!("the first line is {other:?}"),
    }
}

/// Exact equalities with the MIB that need no allowance for what was not seen.
fn counters_agree(exact: &WatchedRun, run: &LabRun) -> Result<()> {
    let mib = &run.counters.server;
    let server = run.namespaces[1];
    let count = |outcome: Outcome| {
        let such = exact.handshakes().filter(|(_, h)| {
            let c = &h.connection;
            c.role == Role::Server && c.netns == server && h.outcome == outcome
        });
        such.count() as u64
    };
    let equalities = [
        (
            "reset half-opens = EmbryonicRsts",
            count(Outcome::Reset),
            "EmbryonicRsts",
        ),
        (
            "established passive opens = PassiveOpens",
            count(Outcome::Established),
            "PassiveOpens",
        ),
    ];
    for (what, seen, name) in equalities {
        let counted = mib.get(name);
        ensure!(seen == counted, "{what}: {seen} seen, {counted} counted");
    }
    Ok(())
}

type HandshakesByEnds = (Role, u32, String, String);

fn ends(h: &Handshake) -> HandshakesByEnds {
    let c = &h.connection;
    let end = |addr: std::net::IpAddr, port: Option<u16>| format!("{addr} {port:?}");
    (
        c.role,
        c.netns,
        end(c.local_addr, c.local_port),
        end(c.peer_addr, c.peer_port),
    )
}

fn by_ends<'l>(
    handshakes: impl Iterator<Item = (u64, &'l Handshake)>,
) -> BTreeMap<HandshakesByEnds, Vec<(u64, &'l Handshake)>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (at_ns, h) in handshakes {
        all.entry(ends(h)).or_default().push((at_ns, h));
    }
    for of_one in all.values_mut() {
        of_one.sort_by_key(|(at_ns, _)| *at_ns);
    }
    all
}

/// The two agents' words.
struct ModeComparison<'l> {
    by_tracepoints: BTreeMap<HandshakesByEnds, Vec<(u64, &'l Handshake)>>,
    /// When all of the tracepoints' agent's programs were attached: in the middle, of a incident.
    began_ns: u64,
    /// When it first knew of an end: the programs are attached one after the other.
    first_end_ns: u64,
    incident: bool,
    tells: Capabilities,
    compared: u64,
    named: BTreeMap<&'static str, u64>,
}

impl<'l> ModeComparison<'l> {
    fn new(run: &'l LabRun) -> Result<Self> {
        let handshakes = run.lines.iter().filter_map(|line| match &line.body {
            Body::Handshake(h) => Some((line.mono_ns, &**h)),
            _ => None,
        });
        let by_tracepoints = by_ends(handshakes);
        let ends = by_tracepoints.values().flatten().map(|(at_ns, _)| *at_ns);
        let began_ns = run.lines.first().map_or(0, |line| line.mono_ns);
        Ok(Self {
            first_end_ns: ends.fold(began_ns, u64::min).saturating_sub(SAME_US * 1000),
            by_tracepoints,
            began_ns,
            incident: run.incident,
            tells: Capabilities::of(harness::host()?),
            compared: 0,
            named: BTreeMap::new(),
        })
    }

    fn name(&mut self, difference: &'static str) {
        *self.named.entry(difference).or_default() += 1;
    }

    fn all(&mut self, exact: &WatchedRun) -> Result<()> {
        let mut exact = by_ends(exact.handshakes());
        for (ends, theirs) in std::mem::take(&mut self.by_tracepoints) {
            let ours = exact.remove(&ends).unwrap_or_default();
            self.one_pair_of_ends(&theirs, ours)
                .with_context(|| format!("{ends:?}"))?;
        }
        for (ends, ours) in exact {
            self.one_pair_of_ends(&[], ours)
                .with_context(|| format!("{ends:?}"))?;
        }
        Ok(())
    }

    fn one_pair_of_ends(
        &mut self,
        theirs: &[(u64, &Handshake)],
        mut ours: Vec<(u64, &Handshake)>,
    ) -> Result<()> {
        if self.incident {
            // The exact agent has watched from the beginning.
            ours.retain(|(at_ns, _)| *at_ns >= self.first_end_ns);
        }
        let several = ours.len() > theirs.len();
        let mut at = 0;
        while ours.len() > theirs.len() && at < ours.len() {
            match self.may_be_unseen(ours[at], theirs.get(at)) {
                Some(name) => {
                    self.name(name);
                    ours.remove(at);
                }
                None => at += 1,
            }
        }
        ensure!(
            ours.len() == theirs.len(),
            "by tracepoints {theirs:#?}, exact {ours:#?}"
        );
        for ((_, t), (_, e)) in theirs.iter().zip(&ours) {
            self.one(t, e, several)
                .with_context(|| format!("by tracepoints {t:#?}, exact {e:#?}"))?;
            self.compared += 1;
        }
        Ok(())
    }

    /// Why the tracepoints may not know of it at all. `beside`: what they tell in its place.
    fn may_be_unseen(
        &self,
        (at_ns, e): (u64, &Handshake),
        beside: Option<&(u64, &Handshake)>,
    ) -> Option<&'static str> {
        // A look at a thousand half-opens is dear, and the pause after it the longer.
        let young = e.dwell_us.is_some_and(|us| us < BETWEEN_LOOKS_US) || self.incident;
        let young = young && e.retransmits == 0;
        let ended_unseen = match e.outcome {
            Outcome::Reset => !self.tells.half_open_deaths,
            // Its SYN-ACK could not be sent, its listener was closed: no packet tells.
            Outcome::Dropped | Outcome::Expired => true,
            _ => false,
        };
        let other = beside.is_none_or(|(_, t)| t.outcome != e.outcome);
        if e.connection.role == Role::Server && young && ended_unseen && other {
            return Some("it came and went between two looks");
        }
        if self.incident && beside.is_none() {
            return Some(match e.outcome != Outcome::Open && at_ns < self.began_ns {
                true => "the tracepoints' agent was attaching its programs",
                false => "the tracepoints' agent was gone already",
            });
        }
        None
    }

    /// `several`: the exact mode knows more half-opens of these ends than the tracepoints.
    fn one(&mut self, t: &Handshake, e: &Handshake, several: bool) -> Result<()> {
        if self.incident && t.outcome == Outcome::Open && e.outcome != Outcome::Open {
            self.name("the tracepoints' agent was gone already");
            return Ok(());
        }
        if self.incident && e.outcome == Outcome::Open && t.outcome == Outcome::Open {
            self.name("the tracepoints' agent was gone already");
            return Ok(());
        }
        if t.outcome != e.outcome {
            // Removed, by one of several causes: so they say themselves.
            let says = |what: &str| t.evidence.iter().any(|e| e.fact.contains(what));
            let unsure = match e.outcome {
                Outcome::Expired => t.outcome == Outcome::Dropped && says("pruned"),
                _ => says("cannot be told apart"),
            };
            ensure!(unsure, "another outcome");
            self.name("the tracepoints say that they cannot tell the outcome");
            return Ok(());
        }
        ensure!(t.error == e.error, "another error");
        ensure!(t.retransmits == e.retransmits, "sent again");
        match (t.verdict, e.verdict) {
            (t, e) if t == e => (),
            // A line is judged when it is printed, by the queues at the last look and by what others
            // went through; no program of the exact mode has a part in these.
            _ if e.connection.role == Role::Client || e.outcome == Outcome::Established => {
                self.name("judged at once, by what each agent had seen of others by then");
            }
            // The way back to a silent peer is looked up while the run goes on. A line that is printed before the
            // answer names what is certain without it.
            (Some(t), Some(e))
                if [t, e].contains(&VerdictKind::AsymmetricNat)
                    && [t, e].contains(&VerdictKind::PeerSilent) =>
            {
                self.name("judged at once, before the way back was known");
            }
            // What was there before a run is judged by less.
            _ if self.incident => self.name("a verdict on what was there before the run"),
            _ => bail!("another verdict"),
        }
        if t.retransmits_by_peer != e.retransmits_by_peer {
            ensure!(
                self.incident,
                "sent again because the peer repeated its SYN"
            );
            self.name("of what was sent before the run a lower bound is told");
        }
        // Its SYN-ACK cannot be sent, so it is dropped after a second, and the next SYN makes the next
        // one: where no look falls between them, they look like one whose timer goes on.
        // In an incident each of them has several, and their numbers are equal by chance.
        let several = several || self.incident;
        if several && e.outcome == Outcome::Dropped && t.dwell_us > e.dwell_us {
            self.name("several that followed each other between two looks are one");
            return Ok(());
        }
        self.dwell(t, e)
    }

    fn dwell(&mut self, t: &Handshake, e: &Handshake) -> Result<()> {
        let (Some(they), Some(we)) = (t.dwell_us, e.dwell_us) else {
            ensure!(
                t.dwell_us.is_none(),
                "the exact mode does not know how long it took"
            );
            if e.dwell_us.is_some() {
                self.name("only the exact mode knows when it began");
            }
            return Ok(());
        };
        // An open one ended with its agent.
        if e.outcome == Outcome::Open {
            return Ok(());
        }
        let bound = t.dwell_error_us.unwrap_or(0) + e.dwell_error_us.unwrap_or(0) + SAME_US;
        ensure!(
            they.abs_diff(we) <= bound,
            "{they} µs and {we} µs are further apart than {bound} µs"
        );
        if e.connection.role == Role::Server && e.outcome != Outcome::Established {
            ensure!(e.dwell_error_us.is_none(), "the exact mode states an error");
            if t.dwell_error_us.is_some() {
                self.name("the exact mode knows the moment of the end");
            }
        }
        Ok(())
    }
}
