//! What clap does not know: exit codes, files, variables, examples. By command; `None` is the page of the program.

/// A term and its meaning.
pub type Entry = (String, String);

/// Where the documents are.
pub const DOCUMENTS: &str = "The packages install the documents in /usr/share/doc/synprobe: events.md has the JSON \
     output and the exit codes, verdicts.md the causes, serve.md the metrics, privileges.md the capabilities, \
     installing.md the service.";

/// Loads programs into the kernel, so it needs privileges.
const LOADS: [&str; 8] = [
    "watch", "diagnose", "record", "report", "top", "serve", "connect", "lab",
];
/// Replays a recording in place of a run.
const REPLAYS: [&str; 4] = ["watch", "diagnose", "report", "top"];
/// Has colour on a terminal.
const COLOURED: [&str; 5] = ["watch", "diagnose", "top", "listeners", "lab"];
/// Tells the service manager when it is attached.
const NOTIFIES: [&str; 3] = ["watch", "record", "serve"];

fn is(verb: Option<&str>, list: &[&str]) -> bool {
    verb.is_none_or(|verb| list.contains(&verb))
}

fn entry(term: &str, meaning: &str) -> Entry {
    (term.to_owned(), meaning.to_owned())
}

/// The paragraphs of DESCRIPTION.
pub fn description(verb: Option<&str>) -> Vec<&'static str> {
    let Some(verb) = verb else {
        return vec![
            "synprobe watches every TCP handshake on a Linux host from inside the kernel, by eBPF, and times it as \
             the kernel does. Where a handshake is stuck, it names the cause, with the evidence for and against it.",
            "It needs Linux 5.8 or later with BTF, and root or the capabilities that synprobe-preflight(1) lists. \
             explain, join, replays of recordings and preflight need no privileges.",
        ];
    };
    let mut texts = match verb {
        "watch" => vec![
            "Prints every TCP handshake as it happens, then a table of the peers. It ends on Ctrl-C, SIGTERM, \
             --duration or --count, always with the summary.",
        ],
        "diagnose" => vec![
            "Watches for a while, then prints what is wrong, worst first: a page for a ticket. Each problem has its \
             verdict, the confidence, the facts for it and against it, the peers concerned, and what to do. Ctrl-C \
             ends it early, with the page.",
        ],
        "record" => vec![
            "Records a run to a file. The recording holds everything that the run learned from the host: addresses, \
             ports and process names too. Files have mode 0600. With --rolling it keeps the last minutes in a \
             folder; SIGUSR1 closes the current segment.",
        ],
        "report" => vec![
            "Writes one HTML file, of a recording or of a run: what is wrong, with evidence, remedies and pictures. \
             The file loads nothing from elsewhere and needs no JavaScript. It has mode 0600, because it names peers \
             and processes.",
        ],
        "top" => vec![
            "Shows what is wrong on a screen, live or from a recording: problems, listeners with both queues, \
             handshakes in progress and peers. The key ? lists the keys, q quits. With --batch it prints plain text \
             and needs no terminal.",
        ],
        "serve" => vec![
            "Watches all the time: metrics for Prometheus, the problems that are open, health and a page, over HTTP. \
             Events go to standard output, one JSON object a line. It ends on SIGINT and SIGTERM, with a summary. \
             There is no authentication: keep the address on the loopback device, or use a socket.",
        ],
        "join" => vec![
            "Joins two files of two hosts, connect by connect, and says which way lost SYNs, SYN-ACKs or ACKs. The \
             clocks of the hosts may differ.",
        ],
        "explain" => vec![
            "Prints what a verdict means, how it is recognised, what it can be confused with, what to try, and which \
             lab scenario shows it.",
        ],
        "connect" => vec![
            "Connects once, watched from inside the kernel. Each address of the name gets an attempt, as an \
             application would make it (RFC 8305). An established connection is closed at once; nothing is sent on it.",
        ],
        "states" => vec![
            "Counts the sockets in each TCP state, from sock_diag(7). Half-opens are counted as SYN_RECV.",
        ],
        "listeners" => vec![
            "Lists the listening sockets with their SYN queue and accept queue, the fullest first, with the limit \
             that applies.",
        ],
        "preflight" => vec![
            "Reports what this host allows, what is missing, and the remedy. Without privileges it lists what it \
             could not test.",
        ],
        "lab" => vec![
            "Makes a handshake fail on purpose, in two network namespaces joined by a veth pair, and watches it. The \
             last lines compare what was made with what was seen, and with the kernel's own counters. Everything \
             vanishes with the process.",
        ],
        _ => vec![],
    };
    if is(Some(verb), &REPLAYS) {
        texts.push("It needs privileges, but not with --replay.");
    } else if verb == "record" {
        texts.push("It needs privileges, but not with --cut.");
    } else if is(Some(verb), &LOADS) {
        texts.push("It needs privileges: synprobe-preflight(1) lists them.");
    } else if matches!(verb, "states" | "listeners") {
        texts.push("With few privileges it shows what it may enter, and lists what it may not.");
    } else {
        texts.push("It needs no privileges.");
    }
    texts
}

/// docs/events.md, by command.
pub fn exit_status(verb: Option<&str>) -> Vec<Entry> {
    let mut codes = vec![
        entry("0", "Done; also when the reader closed the pipe."),
        match verb {
            Some("lab") => entry(
                "1",
                "What was seen differs from what was made, or the run failed.",
            ),
            Some("connect") => entry("1", "The name does not resolve, or the run failed."),
            _ => entry("1", "A failure at run time."),
        },
        match verb {
            None | Some("watch" | "diagnose" | "join" | "record" | "report" | "top") => entry(
                "2",
                "Bad usage; also a file that is no recording, or one of a newer major version.",
            ),
            _ => entry("2", "Bad usage."),
        },
    ];
    if is(verb, &LOADS) || verb == Some("preflight") {
        let meaning = "This host cannot run it (privileges, kernel, BTF). Standard error says which, with the remedy.";
        codes.push(entry("3", meaning));
    }
    if is(verb, &["connect"]) {
        let meaning = "No address could be connected (connect).";
        codes.push(entry("4", meaning));
    }
    if is(verb, &["diagnose"]) {
        let meaning = "diagnose --exit-code: something is wrong.";
        codes.push(entry("10", meaning));
    }
    codes
}

/// Variables that are no options.
pub fn environment(verb: Option<&str>) -> Vec<Entry> {
    let mut variables = Vec::new();
    if verb.is_none() {
        let meaning = "SYNPROBE_ and the name of an option, as in SYNPROBE_LISTEN: synprobe-serve(1) takes it as that \
                       option. The command line comes first.";
        variables.push(entry("SYNPROBE_*", meaning));
    }
    if is(verb, &COLOURED) {
        variables.push(entry(
            "NO_COLOR",
            "If set and not empty: no colour on a terminal.",
        ));
    }
    if is(verb, &NOTIFIES) {
        let meaning = "The socket of the service manager, which is notified once everything is attached \
                       (sd_notify(3)).";
        variables.push(entry("NOTIFY_SOCKET", meaning));
    }
    let meaning = "Set by systemd. Where standard error is that stream, each message begins with its priority, such \
                   as <4> (sd-daemon(3)).";
    variables.push(entry("JOURNAL_STREAM", meaning));
    variables
}

/// Files that it reads or writes by a fixed name.
pub fn files(verb: Option<&str>) -> Vec<Entry> {
    let mut files = Vec::new();
    if is(verb, &["serve"]) {
        files.extend([
            entry(
                "/etc/default/synprobe",
                "Options of the service, one SYNPROBE_ variable a line.",
            ),
            entry(
                "/usr/lib/systemd/system/synprobe.service",
                "The service. Packages do not enable it.",
            ),
            entry(
                "/var/lib/synprobe",
                "The folder of the service, for SYNPROBE_ROLLING.",
            ),
            entry(
                "/run/synprobe",
                "The folder of the service for a socket, for SYNPROBE_LISTEN.",
            ),
        ]);
    }
    if is(verb, &LOADS) || verb == Some("preflight") {
        let meaning = "The kernel's types. Without it synprobe cannot run.";
        files.push(entry("/sys/kernel/btf/vmlinux", meaning));
    }
    files
}

/// Commands that run as printed.
pub fn examples(verb: Option<&str>) -> &'static [&'static str] {
    match verb {
        None => &[
            "sudo synprobe preflight",
            "sudo synprobe diagnose",
            "sudo synprobe watch --port 8080",
        ],
        Some("watch") => &[
            "sudo synprobe watch --port 8080",
            "sudo synprobe watch --role client --peer 10.0.0.0/8 --format json --duration 30s",
            "synprobe watch --replay incident.synrec --role client --format json",
        ],
        Some("diagnose") => &[
            "sudo synprobe diagnose",
            "sudo synprobe diagnose --port 8080 --duration 60s --format json",
            "synprobe diagnose --replay incident.synrec",
        ],
        Some("record") => &[
            "sudo synprobe record --output incident.synrec --duration 60s",
            "sudo synprobe record --rolling /var/lib/synprobe --keep 15m --max-size 256M",
            "sudo synprobe record --cut incident.synrec --from /var/lib/synprobe --last 10m",
        ],
        Some("report") => &[
            "synprobe report --output incident.html --replay incident.synrec",
            "sudo synprobe report --output now.html --duration 30s --port 8080",
        ],
        Some("top") => &[
            "sudo synprobe top",
            "synprobe top --replay incident.synrec",
            "sudo synprobe top -b -n 3",
        ],
        Some("serve") => &[
            "sudo synprobe serve",
            "sudo synprobe serve --otlp http://collector:4318",
            "sudo synprobe serve --listen unix:/run/synprobe/http",
            "sudo synprobe serve --rolling /var/lib/synprobe --keep 30m",
        ],
        Some("join") => &[
            "synprobe join client.synrec server.synrec",
            "synprobe join client.ndjson server.ndjson --format json",
        ],
        Some("explain") => &["synprobe explain", "synprobe explain synack-lost"],
        Some("connect") => &[
            "sudo synprobe connect db.internal:5432",
            "sudo synprobe connect '[fe80::1%eth0]:22' --timeout 3s",
        ],
        Some("states") => &["sudo synprobe states"],
        Some("listeners") => &[
            "sudo synprobe listeners",
            "sudo synprobe listeners --port 443,8000-8100",
        ],
        Some("preflight") => &["sudo synprobe preflight"],
        Some("lab") => &["sudo synprobe lab --list", "sudo synprobe lab synack-lost"],
        Some(_) => &[],
    }
}
