//! Rules of nf_tables whose keys are concatenations: the one that drops is named, and none beside it.

use anyhow::{Context, Result, bail, ensure};
use synprobe_lab::SocketFamily;
use synprobe_tests::{
    agent::until,
    harness::{Undecided, figure},
};

use super::{
    stage::{Stage, tool},
    steps,
};

/// One form of the rule that drops, and what its text has.
struct Form {
    rule: String,
    text: String,
}

/// The chain that every test fills anew.
const CHAIN: &str = "inet lab input";

/// Each form of a key of several parts: a named set, an anonymous one, intervals, a single value, a verdict map.
/// Beside it are rules of the same forms that fit another address or another port.
pub fn concatenated(family: SocketFamily) -> Result<()> {
    let stage = Stage::new("dropped-here, concatenated keys", family)?;
    let server = &stage.lab.server;
    let (ip, kind) = match family.wire_is_v6() {
        true => ("ip6", "ipv6_addr"),
        false => ("ip", "ipv4_addr"),
    };
    let (from, to, port) = (stage.lab.client_ip(), stage.lab.server_ip(), stage.port);
    let key = format!("{ip} saddr . tcp dport");
    let misses = [
        // The pairs are of the packet, crosswise.
        format!("{key} {{ {from} . {}, {to} . {port} }} drop", port + 1),
        format!(
            "{key} {{ {to} . 1-65535, {from} . {}-{} }} drop",
            port + 1,
            port + 3
        ),
        format!("{key} {{ {from} . {} }} drop", port + 1),
        format!("{key} @others drop"),
        format!(
            "{ip} daddr . tcp dport vmap {{ {to} . {} : drop, {from} . {port} : drop }}",
            port + 1
        ),
        format!("tcp dport . {ip} saddr {{ {} . {from} }} drop", port + 1),
        format!("{ip} saddr . {ip} daddr {{ {to} . {from} }} drop"),
        format!("{key} != {{ {from} . {port}, {to} . {port} }} drop"),
    ];
    let forms = [
        Form {
            rule: format!("{key} @bad drop"),
            text: format!("{key} @bad drop"),
        },
        Form {
            rule: format!("{key} {{ {from} . {port}, {to} . 9 }} drop"),
            text: format!("{key} {{ "),
        },
        Form {
            rule: format!("{key} {{ {from} . {}-{port} }} drop", port - 3),
            text: format!("{key} {{ {from} . {}-{port} }} drop", port - 3),
        },
        Form {
            rule: format!("{key} {{ {from} . {port} }} drop"),
            // nft may make a comparison of it.
            text: format!("{from} . {port}"),
        },
        Form {
            rule: format!("{key} vmap {{ {from} . {port} : drop }}"),
            text: format!("{key} vmap {{ {from} . {port} : drop, … }}"),
        },
    ];
    let run = |command: &str| tool(&stage.name, &(stage.enter(server) + command));
    let set = |name: &str, elements: &str| {
        format!(
            "nft 'add set inet lab {name} {{ type {kind} . inet_service; }}; add element inet lab {name} {{ \
             {elements} }}'"
        )
    };
    for command in [
        "nft add table inet lab".to_owned(),
        format!("nft 'add chain {CHAIN} {{ type filter hook input priority 0; }}'"),
        set("bad", &format!("{to} . 7, {from} . {port}")),
        set("others", &format!("{to} . {port}, {from} . 7")),
    ] {
        if !run(&command)? {
            return Ok(());
        }
    }
    let _listener = stage.lab.listen(port, 128)?;
    for form in &forms {
        run(&format!("nft flush chain {CHAIN}"))?;
        for rule in misses.iter().chain([&form.rule]) {
            run(&format!("nft 'add rule {CHAIN} {rule}'"))?;
        }
        named(&stage, form).with_context(|| form.rule.clone())?;
    }
    figure(format!("{}: {} forms, each named", stage.name, forms.len()));
    Ok(())
}

/// The last rule of the chain drops the SYNs of a connect(): it is named, and no other is.
fn named(stage: &Stage, form: &Form) -> Result<()> {
    let server = &stage.lab.server;
    let listed = steps::run(&format!("{}nft -a list chain {CHAIN}", stage.enter(server)))?;
    let handles = listed
        .lines()
        .filter_map(|line| line.split_once("# handle "));
    let handles: Vec<&str> = handles.map(|(_, handle)| handle.trim()).collect();
    let last = handles.last().context("no rule")?;
    let port = stage.port.to_string();
    let (lines, lost) = stage.lines(&["--port", &port], || {
        let client = stage.fails()?;
        until("a SYN is sent again", || Ok(client.retransmits()? > 0))
    })?;
    let dropped = lines
        .iter()
        .filter(|line| line["verdict"] == "dropped-here");
    let facts: Vec<&str> = dropped
        .filter_map(|line| line["evidence"].as_array())
        .flatten()
        .filter_map(|evidence| evidence["fact"].as_str())
        .filter(|fact| fact.contains(" chain input handle ") || fact.contains("no rule of "))
        .collect();
    if facts.is_empty() && lost > 0 {
        bail!(Undecided(format!("{lost} records were lost")));
    }
    let right = format!("the rule: table {CHAIN} handle {last}: ").replacen(
        "lab input",
        "lab chain input",
        1,
    );
    ensure!(
        !facts.is_empty()
            && facts
                .iter()
                .all(|fact| fact.starts_with(&right) && fact.contains(&form.text)),
        "not {right}… {}, but {facts:#?}\n{listed}",
        form.text
    );
    Ok(())
}
