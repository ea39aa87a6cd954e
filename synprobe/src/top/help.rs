//! The page of the key `?`.

use super::{
    Observed,
    not_seen::not_seen,
    page_text::PageText,
    style::{StyledLine, Tone},
};
use crate::lang::Lang;

const KEYS: [(&str, &str); 19] = [
    (
        "1 2 3 4 5, Tab",
        "problems, listeners, handshakes in progress, peers, events; Shift-Tab goes back",
    ),
    ("arrows, j k", "select a row; PgUp, PgDn, Home, End too"),
    (
        "Enter, right",
        "the page of the row; there, Enter lists the handshakes of a problem",
    ),
    ("Esc, left", "back; then without the filter"),
    ("e", "explain the verdict of the selected problem"),
    (
        "c",
        "copy the commands of its remedy, through the terminal (OSC 52)",
    ),
    (
        "R",
        "record from here into a file (--record-dir); again: the recording ends",
    ),
    ("n", "what cannot be seen"),
    (
        "/",
        "filter, see below; Enter applies it, Esc keeps the old one",
    ),
    ("s", "next order of the rows"),
    ("r", "both roles, server only, client only"),
    (
        "w",
        "peers one by one, or by network (/24, /64); Enter lists those of a network",
    ),
    ("z", "the pane alone, and back"),
    ("Space", "pause: collection goes on, a replay stops"),
    ("[ ]", "in a replay: 10 s back, 10 s on"),
    ("{ }", "in a replay: to its beginning, to its end"),
    ("? h", "this page"),
    ("Ctrl-L", "draw the screen again"),
    ("q, Ctrl-C", "quit"),
];

const TERMS: [(&str, &str); 6] = [
    ("port:8080", "of either end; also 80,443 and 8000-8100"),
    ("netns:web", "a part of the namespace's name, or its inode"),
    (
        "verdict:synack",
        "a part of a verdict; of problems and peers",
    ),
    (
        "comm:nginx",
        "a part of the process, unit, container or pod",
    ),
    (
        "peer:10.0.0.0/8",
        "an address or a network; not of listeners",
    ),
    ("role:client", "client or server"),
];

/// The keys, the terms of a filter, the words of the panes.
pub(super) fn keys(columns: usize, lang: Lang) -> Vec<StyledLine> {
    let mut page = PageText::new(columns, lang);
    page.heading("Keys");
    for (keys, what) in KEYS {
        page.within(15, keys, what, Tone::Plain);
    }
    page.heading("Filter: every term must match; a row without such a property matches");
    for (term, what) in TERMS {
        page.within(15, term, what, Tone::Plain);
    }
    page.heading("Columns");
    for (word, what) in [
        (
            "NOW, ALL",
            "handshakes of a problem: in progress, and all of the window (--window)",
        ),
        (
            "SYN-Q, ACCEPT-Q",
            "half-opens, and connections that wait for accept()",
        ),
        ("AGAIN", "SYNs or SYN-ACKs that this host retransmitted"),
        (
            "BY PEER",
            "those of them that the peer's repeated SYN caused",
        ),
        (
            "NEXT",
            "time until the next one; -: none follows, or not known",
        ),
        ("ENDS IN", "time until the kernel gives up, by its schedule"),
        ("~ ?", "an estimate; not known"),
    ] {
        page.within(15, word, what, Tone::Plain);
    }
    page.lines()
}

/// Everything that cannot be seen.
pub(super) fn blind_spots(observed: &Observed, columns: usize, lang: Lang) -> Vec<StyledLine> {
    let mut page = PageText::new(columns, lang);
    page.heading("Not seen");
    for spot in not_seen(observed) {
        page.within(1, "-", &spot, Tone::Plain);
    }
    page.lines()
}
