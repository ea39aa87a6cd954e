//! Verdicts on handshakes whose cause is known: every scenario once in IPv4 and once in IPv6, with healthy
//! background traffic, as in `diagnose`. `cargo xtask matrix` repeats this many times.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use synprobe::{
    filter::Detail,
    model::{
        AcceptWaitSource, Body, Confidence, Counted, Evidence, HalfOpenSource, Lost, Missed,
        Problem, Role, VerdictKind,
    },
    pipeline::Setup,
    probe::half_open_source::RequestedMode,
    util::table_bounds::TableBounds,
    verbs::lab,
    verdict::Mode,
    view::{JsonView, Page, PageCounts, Style, View},
};
use synprobe_lab::{
    self, Answer, Cause, Classification, ConfusionMatrix, Jitter, Lab, LabRun, Scenario,
    SocketFamily,
};
use synprobe_tests::{
    harness::{self, Case, Undecided},
    pipeline_run::AMPLE_RING,
    schema,
};

/// A table that evicts nothing.
const AMPLE_TABLE: usize = 100_000;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for scenario in harness::scenarios() {
        for family in [SocketFamily::V4, SocketFamily::V6] {
            if scenario.supports(family) {
                cases.push(Case::for_family(scenario.name(), family, |family| {
                    told(scenario, family)
                }));
            }
        }
    }
    for family in [SocketFamily::V4, SocketFamily::V6] {
        cases.push(Case::for_family(
            "data-unacknowledged::problem",
            family,
            stuck_data,
        ));
        let slow = Duration::from_secs(1);
        for (name, detail) in [
            ("problem", Detail::Handshakes),
            ("quiet", Detail::Quiet { slow }),
        ] {
            let title = format!("listener-reload::{name}");
            cases.push(Case::for_family(&title, family, move |family| {
                replaced_listener(family, detail)
            }));
        }
        cases.push(Case::for_family(
            "reset-after-handshake::problem",
            family,
            reset_at_once,
        ));
    }
    for family in [SocketFamily::V4, SocketFamily::V6] {
        for (name, looks) in ACCEPT_LOOKS {
            let title = format!("accept-slow::{name}");
            cases.push(Case::for_family(&title, family, move |family| {
                accept_slow(family, looks)
            }));
            let title = format!("accept-burst::{name}");
            cases.push(Case::for_family(&title, family, move |family| {
                accept_burst(family, looks)
            }));
        }
    }
    cases.push(Case::new("a-ring-that-is-too-small", too_small_a_ring));
    cases.push(Case::new("issue14_1_4-evictions", issue14_1_4_evictions));
    harness::main_with(cases, 10)
}

fn run(
    scenario: &'static dyn Scenario,
    family: SocketFamily,
    ring_bytes: u32,
    max_handshakes: usize,
    background: bool,
) -> Result<(LabRun, String)> {
    let detail = Detail::Handshakes;
    run_in_detail(
        scenario,
        family,
        (ring_bytes, max_handshakes),
        background,
        detail,
    )
}

fn run_in_detail(
    scenario: &'static dyn Scenario,
    family: SocketFamily,
    (ring_bytes, max_handshakes): (u32, usize),
    background: bool,
    detail: Detail,
) -> Result<(LabRun, String)> {
    let setup = Setup {
        ring_bytes,
        tables: TableBounds {
            half_opens: max_handshakes,
            clients: max_handshakes,
            ..TableBounds::default()
        },
        log_level: 0,
        detail,
        mode: Mode::AtTheEnd,
        requested_mode: synprobe::probe::half_open_source::RequestedMode::default(),
    };
    let mut lab = Lab::new(family)?;
    lab.jitter = Jitter {
        seed: 7,
        background,
    };
    let never = Box::pin(std::future::pending());
    let view = JsonView::new(Vec::new());
    let (run, view) = lab::watched(harness::host()?, scenario, lab, &setup, view, never)?;
    let json = String::from_utf8(view.into_inner()).context("the lines are UTF-8")?;
    Ok((run, json))
}

fn lost(run: &LabRun) -> Vec<Lost> {
    let of = |body: &Body| match body {
        Body::Lost(lost) if lost.is_of_handshakes() => Some(lost.clone()),
        _ => None,
    };
    run.lines.iter().filter_map(|l| of(&l.body)).collect()
}

fn problems(run: &LabRun) -> Vec<&Problem> {
    let mut found = Vec::new();
    for line in &run.lines {
        if let Body::Problem(problem) = &line.body {
            found.push(problem.as_ref());
        }
    }
    found
}

fn told(scenario: &'static dyn Scenario, family: SocketFamily) -> Result<()> {
    let (run, json) = run(scenario, family, AMPLE_RING, AMPLE_TABLE, true)?;
    schema::check(json.lines())?;
    match (is_right(scenario, family, &run), lost(&run).first()) {
        // It is less sure of itself then, as it should be; that has a test of its own.
        (Err(_), Some(lost)) => {
            bail!(Undecided(format!("{} lost: {}", lost.events, lost.reason)))
        }
        (told, _) => told,
    }
}

/// Whether each cause is told, and nothing false.
fn is_right(scenario: &dyn Scenario, family: SocketFamily, run: &LabRun) -> Result<()> {
    let said = run.classifications();
    let mut matrix = ConfusionMatrix::default();
    said.iter().for_each(|s| matrix.add(s));
    let wrong: Vec<&Classification> = said
        .iter()
        .filter(|s| !s.is_right() && s.answer != Answer::Insufficient)
        .collect();
    ensure!(
        wrong.iter().all(|s| s.confidence != Confidence::Certain),
        "said with certainty, and wrong:\n{matrix}\n{:#?}",
        wrong.first()
    );
    let untrue = said.iter().find(|s| !s.false_sentences.is_empty());
    ensure!(
        untrue.is_none(),
        "said, and not true of what was made:\n{untrue:#?}"
    );
    let mut causes: BTreeMap<Cause, (usize, usize)> = BTreeMap::new();
    for s in said.iter().filter(|s| s.cause != Cause::Healthy) {
        let (all, right) = causes.entry(s.cause).or_default();
        *all += 1;
        *right += usize::from(s.is_right());
    }
    for (cause, (all, right)) in causes {
        // Each line, too: it says what was missing.
        let told = || {
            run.lines
                .iter()
                .filter(|l| matches!(&l.body, Body::Handshake(h) if h.verdict.is_some()))
        };
        ensure!(
            right > 0,
            "of {all} handshakes with {} not one is told so:\n{matrix}\n{:#?}",
            cause.name(),
            told().collect::<Vec<_>>()
        );
    }
    if scenario.is_incident() {
        riddle(scenario, run)?;
    }
    if ["own-firewall", "own-reject", "incident-firewall"].contains(&scenario.name()) {
        names_its_rules(run)?;
    }
    if scenario.name() == "transparent-proxy" {
        blames_the_proxy(run)?;
    }
    harness::figure(format!(
        "{} {}: {} handshakes with a known cause, {} without enough evidence, {} wrong",
        scenario.name(),
        harness::family_name(family),
        matrix.handshakes(),
        matrix.insufficient(),
        wrong.len()
    ));
    Ok(())
}

/// The worst problem of the riddle's server is what was done to it, with half-opens by the hundred.
fn riddle(scenario: &dyn Scenario, run: &LabRun) -> Result<()> {
    let made = &run.truth.handshakes;
    let cause = made
        .iter()
        .filter(|m| m.role == Role::Server)
        .find_map(|m| m.cause.filter(|cause| *cause != Cause::Healthy))
        .context("the riddle has a cause")?;
    let problems = problems(run);
    let worst = problems
        .iter()
        .find(|p| p.role == Role::Server && p.local_port == Some(synprobe_lab::PORT))
        .with_context(|| format!("no problem of the server: {problems:#?}"))?;
    ensure!(
        worst.verdict.map(Cause::Verdict) == Some(cause) && worst.handshakes >= 100,
        "{}: {} is called {} ({} handshakes): {:#?}",
        scenario.name(),
        cause.name(),
        worst.verdict_name(),
        worst.handshakes,
        worst.evidence
    );
    ensure!(!worst.evidence.is_empty() && worst.remedy.is_some());
    ensure!(
        worst.peers.len() == 5 && worst.peers_more > 0,
        "{:?}",
        worst.peers
    );
    Ok(())
}

/// Each handshake that a rule of the lab has stopped names that rule, and shows its chain. Whether it is the right one
/// is compared with what was made.
fn names_its_rules(run: &LabRun) -> Result<()> {
    let mut named = 0;
    for line in &run.lines {
        let Body::Handshake(h) = &line.body else {
            continue;
        };
        let facts = || h.evidence.iter().map(|e| e.fact.as_str());
        if h.verdict != Some(VerdictKind::DroppedHere)
            || !facts().any(|f| f.contains("NETFILTER_DROP"))
        {
            continue;
        }
        // The lab removes its rules when the scenario ends. On a busy host they are read too late.
        if facts().any(|f| f.starts_with("the rules were changed after it")) {
            bail!(Undecided("the rules were read too late".to_owned()));
        }
        ensure!(
            facts().any(|f| f.starts_with("the rule: table ")),
            "no rule is named: {h:#?}"
        );
        let show = h.remedy.as_deref().unwrap_or_default();
        ensure!(show.contains("nft -a list chain "), "{show}");
        named += 1;
    }
    ensure!(named > 0, "no handshake was stopped by a rule");
    harness::figure(format!(
        "{named} handshakes name the rule that stopped them"
    ));
    Ok(())
}

/// The queue that is full is the proxy's. The application listens on the port that was called, and has room.
fn blames_the_proxy(run: &LabRun) -> Result<()> {
    let [called, proxy] = [synprobe_lab::PORT, synprobe_lab::PORT + 1];
    let mut of_handshakes = 0;
    for line in &run.lines {
        let evidence = match &line.body {
            Body::Handshake(h) if h.verdict == Some(VerdictKind::AcceptQueueFull) => {
                of_handshakes += 1;
                let handed = format!(":{called} to listener ");
                let said = |e: &Evidence| {
                    e.fact.contains(&handed) && e.fact.contains(&format!(":{proxy} ("))
                };
                ensure!(h.evidence.iter().any(said), "{h:#?}");
                &h.evidence
            }
            Body::Problem(p) => &p.evidence,
            _ => continue,
        };
        let full = |port: u16| {
            let words = format!(":{port} (");
            let is_full = |f: &str| f.starts_with("listener ") && f.contains("accept queue full");
            evidence
                .iter()
                .any(move |e| is_full(&e.fact) && e.fact.contains(&words))
        };
        ensure!(full(proxy) && !full(called), "{evidence:#?}");
    }
    ensure!(
        of_handshakes == 2,
        "{of_handshakes} handshakes at a full queue"
    );
    Ok(())
}

/// No handshake is in trouble, and yet a connection hangs.
fn stuck_data(family: SocketFamily) -> Result<()> {
    let scenario = synprobe_lab::find("data-unacknowledged").context("the scenario")?;
    let (run, _) = run(scenario, family, AMPLE_RING, AMPLE_TABLE, false)?;
    if run.lines.iter().any(|l| matches!(l.body, Body::Lost(_))) {
        bail!(Undecided("records were lost".to_owned()));
    }
    let problems = problems(&run);
    let [problem] = problems[..] else {
        bail!("not one problem: {problems:#?}");
    };
    ensure!(
        problem.verdict == Some(VerdictKind::DataUnacknowledged)
            && problem.confidence == Confidence::Likely
            && problem.role == Role::Client
            && problem.handshakes == 1
            && problem.peer_port == Some(synprobe_lab::PORT)
            && problem.evidence[0].fact.contains("retransmitted 4 times"),
        "{problem:#?}"
    );
    Ok(())
}

/// No handshake is in trouble, and the connections are reset.
fn reset_at_once(family: SocketFamily) -> Result<()> {
    let scenario = synprobe_lab::find("reset-after-handshake").context("the scenario")?;
    let (run, json) = run(scenario, family, AMPLE_RING, AMPLE_TABLE, true)?;
    schema::check(json.lines())?;
    if run.lines.iter().any(|l| matches!(l.body, Body::Lost(_))) {
        bail!(Undecided("records were lost".to_owned()));
    }
    if let Some(late) = run.truth.notes.first() {
        bail!(Undecided(late.clone()));
    }
    let problems = problems(&run);
    let of = |role: Role, port: u16| {
        let called = |p: &&&Problem| p.role == role && p.local_port.or(p.peer_port) == Some(port);
        let found: Vec<&&Problem> = problems.iter().filter(called).collect();
        match found[..] {
            [one] => Ok(*one),
            _ => bail!("port {port}: {problems:#?}"),
        }
    };
    let facts = |p: &Problem| {
        let facts = p.evidence.iter().map(|e| e.fact.clone());
        facts.collect::<Vec<String>>().join("\n")
    };
    let proxy = of(Role::Client, synprobe_lab::PORT)?;
    let said = facts(proxy);
    ensure!(
        proxy.verdict == Some(VerdictKind::ResetAfterHandshake)
            && proxy.handshakes == 7
            && proxy.confidence == Confidence::Likely
            && proxy.pid == Some(std::process::id())
            && said.contains("7 of the 7 connections to port 8080")
            && said.contains("sent data before the RST in 4 of 7")
            && said.contains("closed its side first (FIN) in 1 of 7"),
        "{proxy:#?}"
    );
    // Both ends tell of the listener that was closed: the client's problem is its effect.
    let closed = of(Role::Server, synprobe_lab::PORT + 1)?;
    ensure!(
        closed.verdict == Some(VerdictKind::ListenerClosed)
            && closed.confidence == Confidence::Certain
            && closed.handshakes == 2
            && facts(closed).contains("closed with 2 connections in its accept queue"),
        "{closed:#?}"
    );
    let [effect] = &closed.effects[..] else {
        bail!("not one effect: {closed:#?}");
    };
    ensure!(
        effect.verdict == Some(VerdictKind::ResetAfterHandshake)
            && effect.role == Role::Client
            && effect.handshakes == 2,
        "{effect:#?}"
    );
    // The client that resets by itself, and neither the answered one nor the one that closed first.
    let checked = of(Role::Server, synprobe_lab::PORT + 2)?;
    ensure!(
        checked.verdict == Some(VerdictKind::ResetAfterHandshake)
            && checked.handshakes == 1
            && checked.rank == 3
            && facts(checked).contains("health checks"),
        "{checked:#?}"
    );
    ensure!(problems.len() == 3, "{problems:#?}");
    Ok(())
}

/// Both ends tell of the half-opens of a listener that was replaced.
fn replaced_listener(family: SocketFamily, detail: Detail) -> Result<()> {
    let scenario = synprobe_lab::find("listener-reload").context("the scenario")?;
    let ample = (AMPLE_RING, AMPLE_TABLE);
    let (run, json) = run_in_detail(scenario, family, ample, false, detail)?;
    schema::check(json.lines())?;
    if run.lines.iter().any(|l| matches!(l.body, Body::Lost(_))) {
        bail!(Undecided("records were lost".to_owned()));
    }
    let problems = problems(&run);
    // The close itself shows them, whether a check did or not.
    let [problem] = problems[..] else {
        bail!("not one problem: {problems:#?}");
    };
    let [effect] = &problem.effects[..] else {
        bail!("not one effect: {problem:#?}");
    };
    ensure!(
        problem.verdict == Some(VerdictKind::ListenerClosed)
            && problem.role == Role::Server
            && (1..=3).contains(&problem.handshakes)
            && effect.verdict == Some(VerdictKind::ResetAfterHandshake)
            && (effect.role, effect.handshakes) == (Role::Client.into(), 3),
        "{problem:#?}"
    );
    Ok(())
}

/// How a slow application is looked at.
#[derive(Clone, Copy)]
struct AcceptLook {
    quiet: bool,
    /// Whether another listener of the namespace is busy.
    others: bool,
}

const ACCEPT_LOOKS: [(&str, AcceptLook); 4] = [
    ("alone", AcceptLook::new(false, false)),
    ("beside-others", AcceptLook::new(false, true)),
    ("quiet", AcceptLook::new(true, false)),
    ("quiet-beside-others", AcceptLook::new(true, true)),
];

impl AcceptLook {
    const fn new(quiet: bool, others: bool) -> Self {
        Self { quiet, others }
    }
}

fn run_accept(name: &str, family: SocketFamily, look: AcceptLook) -> Result<LabRun> {
    let scenario = synprobe_lab::find(name).context("the scenario")?;
    let detail = match look.quiet {
        false => Detail::Handshakes,
        true => Detail::Quiet {
            slow: Duration::from_secs(1),
        },
    };
    let sizes = (AMPLE_RING, AMPLE_TABLE);
    let (run, json) = run_in_detail(scenario, family, sizes, look.others, detail)?;
    schema::check(json.lines())?;
    if run.lines.iter().any(|l| matches!(l.body, Body::Lost(_))) {
        bail!(Undecided("records were lost".to_owned()));
    }
    Ok(run)
}

/// Every handshake is healthy, and yet clients wait: for as long as the application itself has measured.
fn accept_slow(family: SocketFamily, look: AcceptLook) -> Result<()> {
    let run = run_accept("accept-slow", family, look)?;
    let problems = problems(&run);
    let [problem] = problems[..] else {
        bail!("not one problem: {problems:#?}");
    };
    let confidence = match look.others {
        false => Confidence::Certain,
        true => Confidence::Likely,
    };
    ensure!(
        problem.verdict == Some(VerdictKind::AcceptSlow)
            && problem.confidence == confidence
            && problem.role == Role::Server
            && problem.local_port == Some(synprobe_lab::PORT)
            && problem.pid == Some(std::process::id())
            && problem.handshakes > 0,
        "{problem:#?}"
    );
    let of_port = |l: &synprobe::model::Line| match &l.body {
        Body::Listener(l) if l.local_port == synprobe_lab::PORT => l.accept_wait.clone(),
        _ => None,
    };
    let wait = run.lines.iter().find_map(of_port);
    let wait = wait.context("the listener's line has the waits")?;
    let (mean, longest) = run.truth.accept_wait().context("the true waits")?;
    let estimate = Duration::from_micros(wait.mean_us.context("an estimate")?);
    let at_least = Duration::from_micros(wait.longest_at_least_us.context("a bound")?);
    let ratio = estimate.as_secs_f64() / mean.as_secs_f64();
    let by_fentry = harness::host()?
        .exact_by(RequestedMode::Auto, Detail::Handshakes)?
        .source
        == HalfOpenSource::Fentry;
    let (source, close) = match by_fentry {
        true => (AcceptWaitSource::Accept, 0.95..1.05),
        false => (AcceptWaitSource::Queue, 0.7..1.35),
    };
    ensure!(wait.source == source, "{wait:?}");
    if by_fentry {
        let all = run.truth.accept_waits.len() as u64;
        let by = wait.accepted_by.as_ref().map(|p| p.pid);
        ensure!(
            wait.accepted == Some(all) && by == Some(std::process::id()),
            "{all} were accepted: {wait:?}"
        );
        let p99 = Duration::from_micros(wait.p99_us.context("99 %")?);
        ensure!(
            p99 >= longest.mul_f64(0.9) && p99 <= longest.mul_f64(1.3),
            "the longest was {longest:?}: {wait:?}"
        );
    }
    ensure!(
        close.contains(&ratio),
        "estimated {estimate:?}, it was {mean:?}: {wait:?}"
    );
    ensure!(
        at_least <= longest && at_least >= longest / 3,
        "at least {at_least:?}, it was {longest:?}: {wait:?}"
    );
    harness::figure(format!(
        "accept-slow {} quiet {} others {}: mean {mean:.2?}, {source:?} {estimate:.2?}; longest {longest:.2?}, at \
         least {at_least:.2?}; {} connections of {} proven",
        harness::family_name(family),
        look.quiet,
        look.others,
        problem.handshakes,
        run.truth.accept_waits.len()
    ));
    Ok(())
}

/// Bursts and one pause of a healthy application.
fn accept_burst(family: SocketFamily, look: AcceptLook) -> Result<()> {
    let run = run_accept("accept-burst", family, look)?;
    // A busy host may stop the application for longer than was meant: then it is slow.
    let late = |least_ms| {
        let least = Duration::from_millis(least_ms);
        let waits = run.truth.accept_waits.iter();
        waits.filter(|wait| **wait >= least).count()
    };
    if late(900) > 40 || late(1800) > 0 {
        bail!(Undecided("the application was delayed".to_owned()));
    }
    let problems = problems(&run);
    ensure!(problems.is_empty(), "{problems:#?}");
    ensure!(run.end.unexplained.is_empty(), "{:?}", run.end.unexplained);
    Ok(())
}

/// Records are lost: nothing is certain any more, and the page says why.
fn too_small_a_ring() -> Result<()> {
    // Two thousand records within a tenth of a second, into room for thirty.
    let scenario = synprobe_lab::find("flash-crowd").context("the scenario")?;
    let (run, json) = run(scenario, SocketFamily::V4, 4096, AMPLE_TABLE, false)?;
    schema::check(json.lines())?;
    if lost(&run).is_empty() {
        bail!(Undecided("nothing was lost".to_owned()));
    }
    let mut judged = 0;
    for line in &run.lines {
        if let Body::Handshake(h) = &line.body {
            judged += usize::from(h.verdict.is_some());
            ensure!(h.confidence != Confidence::Certain, "{h:#?}");
            ensure!(
                h.verdict.is_none() || h.evidence.iter().any(|e| !e.supports),
                "it does not say why it is less sure: {h:#?}"
            );
        }
    }
    ensure!(judged > 0, "no handshake has a verdict");
    let sure = problems(&run)
        .iter()
        .any(|p| p.confidence == Confidence::Certain);
    ensure!(!sure, "a problem is certain");
    let mut page = Page::default();
    page.show(&run.lines, synprobe::sys::clock::wall_clock())?;
    let text = page.text(&PageCounts::from(&Counted::default()), Style::default());
    ensure!(
        text.contains("What could not be seen") && text.contains("the ring was full"),
        "{text}"
    );
    Ok(())
}

/// Eviction is no evidence, and is reported as lost.
fn issue14_1_4_evictions() -> Result<()> {
    let scenario = synprobe_lab::find("syn-flood").context("the scenario")?;
    let (run, json) = run(scenario, SocketFamily::V4, AMPLE_RING, 10, false)?;
    schema::check(json.lines())?;
    let (mut evicted, mut reported) = (0, 0);
    for line in &run.lines {
        match &line.body {
            Body::Handshake(h) => {
                evicted += u64::from(h.was_evicted());
                ensure!(h.verdict != Some(VerdictKind::SynackLost), "{h:#?}");
            }
            Body::Lost(lost) if lost.of == Missed::Evicted => reported += lost.events,
            _ => (),
        }
    }
    let end = &run.end;
    ensure!(evicted > 100, "only {evicted} evicted");
    ensure!(
        evicted == end.evicted && evicted == reported,
        "{evicted} evicted, {reported} reported, {} in the summary",
        end.evicted
    );
    ensure!(end.events + end.lost == end.produced, "{end:?}");
    Ok(())
}
