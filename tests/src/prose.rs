//! English that is left in a Chinese text.

/// Words beside each other that are a command.
const NAMES: [&str; 2] = ["synprobe top", "synprobe lab"];
/// Programs that remedies call: what follows their sentence and a colon is a command.
const PROGRAMS: [&str; 6] = ["cat", "ip", "nft", "ss", "sysctl", "tcpdump"];

/// The text without the rules of packet filters that it quotes: they are as nft lists them.
fn without_rules(text: &str) -> &str {
    let tables = ["table ip ", "table ip6 ", "table inet "];
    let begin = tables.iter().filter_map(|table| text.find(table)).min();
    begin.map_or(text, |at| &text[..at])
}

/// Two English words beside each other; `None`: there are none. Commands, names of the kernel and verdicts are no
/// prose: they have other characters than small letters, or stand alone.
pub fn english_in(text: &str) -> Option<String> {
    let is_command = |text: &str| PROGRAMS.contains(&text.split(' ').next().unwrap_or_default());
    let text = match text.split_once('：') {
        _ if is_command(text.trim_start()) => return None,
        Some((sentence, command)) if is_command(command) => sentence,
        _ => text,
    };
    let words: Vec<&str> = without_rules(text)
        .split(|c: char| c.is_whitespace() || (!c.is_ascii() && c.is_alphanumeric()))
        .map(|word| word.trim_matches(|c: char| ".,:;()".contains(c)))
        .collect();
    let is_word = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase());
    let pairs = words
        .windows(2)
        .filter(|pair| pair.iter().all(|word| is_word(word)));
    let mut pairs = pairs.map(|pair| pair.join(" "));
    pairs.find(|pair| !NAMES.contains(&&**pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_found_and_names_are_not() {
        for (text, english) in [
            ("半连接 the peer 没有应答", Some("the peer")),
            ("no route back", Some("no route")),
            (
                "synack-lost ×4，net.core.somaxconn、listen() 的 backlog",
                None,
            ),
            ("本机 SYN-ACK lab/14977 netns blue", Some("netns blue")),
            ("synprobe top  主机", None),
            ("在 netns:[7] 中：tcpdump -ni any 'tcp and host x'", None),
            ("因为：no route back", Some("route back")),
            ("", None),
        ] {
            assert_eq!(english_in(text).as_deref(), english, "{text}");
        }
    }
}
