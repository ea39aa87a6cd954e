//! The page of one row: everything that is known of it.

use super::{
    Observed,
    handshake_page::handshake,
    item::{PaneItem, is_of},
    page_text::PageText,
    pane::Pane,
    rows::{self, RowContext},
    style::{StyledLine, Tone},
    table::{self, TableRow},
    wording::{local, netns, number, place, steps, sure, time_of_day},
};
use crate::{
    lang::Lang,
    model::{Listener, Peer, Problem, ProblemRole, Role, UnderWay, who},
    util::format,
    verdict,
    view::{explanation::ExplanationText, tie},
};

/// Handshakes of a problem, a listener or a peer that its page lists.
const LISTED: usize = 200;

/// The page of a row.
pub(super) fn page(
    item: &PaneItem<'_>,
    observed: &Observed,
    context: &RowContext<'_>,
    columns: usize,
) -> Vec<StyledLine> {
    let mut page = PageText::new(columns, context.lang);
    match item {
        PaneItem::Problem(p) => problem(&mut page, p, observed, context),
        PaneItem::Listener(l) => listener(&mut page, l, observed, context),
        PaneItem::Handshake(h) => handshake(&mut page, h, observed),
        PaneItem::Peer(p) => peer(&mut page, p, observed, context),
        PaneItem::Event(e) => e.page(&mut page),
        // Enter lists its peers.
        PaneItem::Network(_) => (),
    }
    page.lines()
}

/// The text of `synprobe explain`.
pub(super) fn explanation(p: &Problem, columns: usize, lang: Lang) -> Option<Vec<StyledLine>> {
    let verdict = p.verdict.and_then(verdict::find)?;
    let text = ExplanationText::of(verdict, lang);
    // It is in the language already.
    let mut page = PageText::new(columns, Lang::En);
    page.within(0, "", &text.headline(verdict, lang), Tone::Strong);
    for (heading, lines) in text.parts {
        page.heading(heading);
        for line in lines {
            match line.starts_with("    ") {
                // A command.
                true => page.line(line, Tone::Plain),
                false => page.within(0, "", line, Tone::Plain),
            }
        }
    }
    Some(page.lines())
}

/// `, netns blue`; empty for the host's own.
fn of_netns(name: Option<&str>, inode: u32) -> String {
    match netns(name, inode) {
        name if name.is_empty() => String::new(),
        name => format!(", netns {name}"),
    }
}

fn problem(page: &mut PageText, p: &Problem, observed: &Observed, context: &RowContext<'_>) {
    page.heading(&format!(
        "{}, {}: {}{}",
        p.verdict_name(),
        sure(p.confidence),
        place(p),
        of_netns(p.netns_name.as_deref(), p.netns)
    ));
    let what = match p.role {
        ProblemRole::Server => "handshakes that this host accepts",
        ProblemRole::Client => "handshakes that this host opens",
        ProblemRole::Router => "handshakes that this host forwards",
    };
    let since = p.life.since_clock.unwrap_or(observed.status.clock);
    let counts = format!(
        "{} {what} in the window; found first at {} UTC",
        p.handshakes,
        time_of_day(since, p.life.since_ns)
    );
    page.entry("counts", &counts, Tone::Plain);
    for fact in &p.evidence {
        let label = if fact.supports { "for" } else { "against" };
        page.entry(label, &fact.fact, Tone::Plain);
    }
    for effect in &p.effects {
        let name = effect.verdict.map_or("no verdict", |kind| kind.name());
        let who = who(effect.comm.as_deref(), effect.pid, &effect.workload);
        let text = format!(
            "{name}, {}: {} handshakes {who}, {}",
            sure(effect.confidence),
            effect.handshakes,
            tie(effect.tie)
        );
        page.entry("effect", &text, Tone::Plain);
    }
    let steps = steps(p.remedy.as_deref().unwrap_or_default(), page.lang);
    for (n, step) in steps.iter().enumerate() {
        page.entry(if n == 0 { "do" } else { "" }, step, Tone::Plain);
    }
    if !p.peers.is_empty() {
        let named: Vec<String> = p
            .peers
            .iter()
            .map(|peer| format!("{} ×{}", peer.peer_addr, peer.handshakes))
            .collect();
        let more = match p.peers_more {
            0 => String::new(),
            n => format!(", and {n} more"),
        };
        page.entry("peers", &format!("{}{more}", named.join(", ")), Tone::Plain);
    }
    let open = &observed.status.snapshot.open;
    in_progress(page, open.iter().filter(|h| is_of(h, p)), context);
}

fn listener(page: &mut PageText, l: &Listener, observed: &Observed, context: &RowContext<'_>) {
    page.heading(&format!(
        "listener {}{}",
        local(Some(l.local_addr), l.local_port),
        of_netns(l.netns_name.as_deref(), l.netns)
    ));
    let who = who(l.comm.as_deref(), l.pid, &l.workload);
    page.within(
        12,
        "process",
        if who.is_empty() { "?" } else { &who },
        Tone::Plain,
    );
    let queue = |now, max| format!("{} of {}", number::<u32>(now), number::<u32>(max));
    page.within(
        12,
        "SYN queue",
        &queue(l.syn_queue, l.syn_queue_max),
        Tone::Plain,
    );
    let full = match l.accept_queue > l.accept_queue_max {
        true => ", FULL",
        false => "; one more than the limit fits",
    };
    let accept = format!("{}{full}", queue(l.accept_queue, l.accept_queue_max));
    page.within(12, "accept queue", &accept, Tone::Plain);
    page.within(12, "drops", &number(l.drops), Tone::Plain);
    let counters = format!(
        "ListenOverflows {}, SyncookiesSent {} (all listeners of its namespace)",
        number(l.overflows),
        number(l.syn_cookies)
    );
    page.within(12, "counters", &counters, Tone::Plain);
    if let Some(state) = &l.owner_state {
        let waits = state.waits_in.as_deref().unwrap_or("?");
        let text = format!(
            "state {}, CPU time {} ms, {} of {} descriptors, waits in {waits}",
            state.state,
            state.cpu_ms,
            number(state.open_fds),
            number(state.max_fds)
        );
        page.within(12, "owner", &text, Tone::Plain);
    }
    let snapshot = &observed.status.snapshot;
    let here = snapshot.problems.iter().filter(|p| {
        p.role == Role::Server && (p.netns, p.local_port) == (l.netns, Some(l.local_port))
    });
    for p in here {
        let text = format!("{}, {}", p.verdict_name(), sure(p.confidence));
        page.within(12, "problem", &text, Tone::Plain);
    }
    let own = snapshot.open.iter().filter(|h| {
        let c = &h.connection;
        c.role == Role::Server && (c.netns, c.local_port) == (l.netns, Some(l.local_port))
    });
    in_progress(page, own, context);
}

fn peer(page: &mut PageText, p: &Peer, observed: &Observed, context: &RowContext<'_>) {
    let role = match p.role {
        Role::Server => "connects to this host",
        Role::Client => "is called by this host",
    };
    page.heading(&format!("peer {}: {role}", p.peer_addr));
    let counts = format!(
        "{} begun, {} completed, {} failed",
        p.attempts, p.established, p.failed
    );
    page.entry("counts", &counts, Tone::Plain);
    let times = format!(
        "median {}, 99 % {}, longest {}",
        format::maybe(p.dwell_p50_us),
        format::maybe(p.dwell_p99_us),
        format::maybe(p.dwell_max_us)
    );
    page.entry("times", &times, Tone::Plain);
    let again = format!(
        "{} SYNs and {} SYN-ACKs; data: {} RTO, {} TLP, {} fast, {} recovery",
        p.syn_retransmits,
        p.synack_retransmits,
        p.rto_retransmits,
        p.tlp_retransmits,
        p.fast_retransmits,
        p.recovery_retransmits
    );
    page.entry("again", &again, Tone::Plain);
    for (kind, count) in &p.verdicts {
        page.entry("verdict", &format!("{kind} ×{count}"), Tone::Plain);
    }
    let own = observed.status.snapshot.open.iter();
    let own = own.filter(|h| (h.connection.peer_addr, h.connection.role) == (p.peer_addr, p.role));
    in_progress(page, own, context);
}

/// Handshakes in progress, oldest first.
fn in_progress<'h>(
    page: &mut PageText,
    own: impl Iterator<Item = &'h UnderWay>,
    context: &RowContext<'_>,
) {
    let mut own: Vec<&UnderWay> = own.collect();
    if own.is_empty() {
        return;
    }
    own.sort_by_key(|h| h.began_ns.unwrap_or(0));
    let listed = own.iter().take(LISTED);
    let listed: Vec<TableRow> = listed
        .map(|h| rows::row(&PaneItem::Handshake(h), context))
        .collect();
    let lang = page.lang;
    // For a moment the list has the oldest alone.
    let number = match context.snapshot.open_is_part {
        true => "…".to_owned(),
        false => own.len().to_string(),
    };
    let title = format!("{} {number}", lang.say("IN PROGRESS"));
    let columns = rows::columns(Pane::Handshakes, context);
    let lines = table::lines(&title, &columns, &listed, page.columns, lang);
    page.block(lines);
    if own.len() > LISTED {
        let more = own.len() - LISTED;
        page.line(&lang.say(&format!(" … {more} more")), Tone::Weak);
    }
}
