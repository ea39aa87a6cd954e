//! A remedy's steps (docs/events.md, "Remedies"): each command stands alone, ready to be copied.

/// Programs that remedies call. A step whose first word is none of them is a sentence.
const PROGRAMS: [&str; 30] = [
    "ausearch",
    "bpftool",
    "bridge",
    "cat",
    "conntrack",
    "dmesg",
    "ethtool",
    "free",
    "grep",
    "ip",
    "ip6tables-save",
    "iptables-save",
    "kill",
    "ls",
    "mpstat",
    "mtr",
    "nft",
    "nsenter",
    "nstat",
    "ping",
    "prlimit",
    "ss",
    "synprobe",
    "sysctl",
    "systemctl",
    "tc",
    "tcpdump",
    "tr",
    "traceroute",
    "tracepath",
];

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemedyStep<'r> {
    /// What it is for; empty: the command says it.
    pub sentence: &'r str,
    /// As a shell runs it; empty: there is none.
    pub command: &'r str,
}

fn is_command(text: &str) -> bool {
    let first = text.split(' ').next().unwrap_or_default();
    PROGRAMS.contains(&first)
}

fn step(text: &str) -> RemedyStep<'_> {
    if is_command(text) {
        return RemedyStep {
            sentence: "",
            command: text,
        };
    }
    let mut colons = text.match_indices(": ");
    match colons.find(|(at, _)| is_command(&text[at + 2..])) {
        Some((at, _)) => RemedyStep {
            sentence: &text[..at],
            command: &text[at + 2..],
        },
        None => RemedyStep {
            sentence: text,
            command: "",
        },
    }
}

/// The steps, and the comment at the end; empty: there is none.
pub fn steps(remedy: &str) -> (Vec<RemedyStep<'_>>, &str) {
    let (text, comment) = remedy.split_once(" # ").unwrap_or((remedy, ""));
    (text.split("; ").map(step).collect(), comment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_sentence_a_command_or_both() {
        let remedy = "ip rule; look at the firewall; end it now: ss -K -t dst 10.0.0.2:40001; \
                      in netns:[7]: sysctl -w net.core.somaxconn=1024 # until the next boot";
        let (steps, comment) = steps(remedy);
        let of: Vec<_> = steps.iter().map(|s| (s.sentence, s.command)).collect();
        assert_eq!(
            of,
            [
                ("", "ip rule"),
                ("look at the firewall", ""),
                ("end it now", "ss -K -t dst 10.0.0.2:40001"),
                ("in netns:[7]", "sysctl -w net.core.somaxconn=1024"),
            ]
        );
        assert_eq!(comment, "until the next boot");
    }
}
