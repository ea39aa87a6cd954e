//! The mechanism, and what every table must keep to.

use super::{
    wording::{HoleKind, Wording, WordingPiece},
    *,
};

#[test]
fn a_locale_names_its_language() {
    for zh in [
        "zh",
        "zh_CN",
        "zh_CN.UTF-8",
        "zh_SG.utf8",
        "zh-Hans-CN",
        "zh_CN@pinyin",
        "ZH_cn",
    ] {
        assert_eq!(Lang::of_locale(zh), Lang::Zh, "{zh}");
    }
    for en in [
        "",
        "C",
        "POSIX",
        "C.UTF-8",
        "en_US.UTF-8",
        "de_DE",
        "zh_TW.UTF-8",
        "zh_HK",
        "zh-Hant",
        "zhx",
    ] {
        assert_eq!(Lang::of_locale(en), Lang::En, "{en}");
    }
}

#[test]
fn the_first_variable_that_is_not_empty_decides() {
    let of = |set: &[(&str, &str)]| {
        Lang::of_environment(|name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(of(&[]), Lang::En);
    assert_eq!(of(&[("LANG", "zh_CN.UTF-8")]), Lang::Zh);
    assert_eq!(
        of(&[("LC_ALL", ""), ("LC_MESSAGES", "zh_CN"), ("LANG", "C")]),
        Lang::Zh
    );
    assert_eq!(of(&[("LC_ALL", "C"), ("LANG", "zh_CN")]), Lang::En);
    assert_eq!(of(&[("LC_MESSAGES", "zh_TW"), ("LANG", "zh_CN")]), Lang::En);
}

fn said(po: &'static str, english: &str) -> Option<String> {
    Translations::new(&[("test.po", po)]).of(english)
}

const TABLE: &str = r#"
# A comment.
msgid "{n} times"
msgstr "{n:num} 次"

msgid "once"
msgstr "1 次"

msgid "the SYN-ACK was sent {}, and {what}"
msgstr "{what:phrase}，SYN-ACK 已发送 {0:phrase}"

msgid "no ACK came"
msgstr "未收到 ACK"

msgid "{} ({at_least}{n} of them)"
msgstr "{0:whole}（其中{at_least:opt}{n:num} 个）"

msgid "at least "
msgstr "至少"

msgid "{n} {o}"
msgstr "{n:num} 个{o:phrase}"

msgid "open"
msgstr "未完成"

msgid "reset"
msgstr ""
"被"
"重置"

msgid "{n} half-opens: {}"
msgstr "{n:num} 个半连接：{0:list}"

msgid "; the longest {longest}"
msgstr "；最长 {longest}"

msgid "listener {}: {}"
msgstr "监听套接字 {0:raw}：{1:phrase}"
"#;

#[test]
fn holes_are_filled_in_another_order_and_phrases_in_them_are_translated() {
    let text = "the SYN-ACK was sent 5 times, and no ACK came (at least 3 of them)";
    let wanted = "未收到 ACK，SYN-ACK 已发送 5 次（其中至少 3 个）";
    assert_eq!(said(TABLE, text).as_deref(), Some(wanted));
    let text = "307 half-opens: 290 open, 17 reset; the longest 48.0 s";
    let wanted = "307 个半连接：290 个未完成、17 个被重置；最长 48.0 s";
    assert_eq!(said(TABLE, text).as_deref(), Some(wanted));
    let text = "listener 0.0.0.0:80 (a: b): no ACK came";
    let wanted = "监听套接字 0.0.0.0:80 (a: b)：未收到 ACK";
    assert_eq!(said(TABLE, text).as_deref(), Some(wanted));
}

#[test]
fn a_text_is_translated_whole_or_not_at_all() {
    for text in [
        "the SYN-ACK was sent 5 times, and nobody came",
        "the SYN-ACK was sent now and then, and no ACK came",
        "the SYN-ACK was sent once, and no ACK came (x of them)",
        "307 half-opens: 290 open, 17 lost; the longest 48.0 s",
        "307 half-opens: 290 open; the longest of all",
        "7 half-opens",
        "",
    ] {
        assert_eq!(said(TABLE, text), None, "{text}");
    }
    assert_eq!(Lang::En.say("once"), "once");
}

/// With something in each hole, an entry is what it was written for, and no other entry comes before it.
#[test]
fn each_entry_is_reached() {
    let all = Translations::new(&ZH);
    let entries = Lang::Zh.entries().unwrap();
    let mut wrong = Vec::new();
    for (table, entry) in entries {
        let wording = Wording::new(&entry).unwrap();
        let sample = |kind: HoleKind| match kind {
            HoleKind::Number => "7",
            HoleKind::Word => "x1",
            HoleKind::Address => "10.0.0.1:80",
            HoleKind::Name | HoleKind::Any => "java/99",
            HoleKind::Raw => "tcp dport 80 drop",
            HoleKind::Phrase | HoleKind::Term | HoleKind::List => "once",
            HoleKind::Whole => "no ICMP error",
            HoleKind::Optional | HoleKind::Dropped => "",
            HoleKind::Plain => "1.02 s",
        };
        let pieces = wording.english.iter().map(|piece| match piece {
            WordingPiece::Text(text) => text.as_str(),
            WordingPiece::Hole(hole) => sample(wording.kinds[*hole]),
        });
        let text: String = pieces.collect();
        let meant = match wording.kinds.is_empty() {
            true => Some(entry.translated.clone()),
            false => matching::Matching::new(&all).wording(&wording, &text),
        };
        let found = all.of(&text);
        if found.is_none() || found != meant || all.readings(&text).len() != 1 {
            let at = format!("{table}:{}", entry.line);
            wrong.push(format!("{at}: {text:?}: {found:?}, not {meant:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn facts_that_were_added_up_have_ranges() {
    let text = "completed after 1.02 s and 2 to 3 SYN-ACKs, each time because our timer fired (at least 4 of them)";
    let wanted =
        "在 1.02 s 后完成，共发送 2 到 3 个 SYN-ACK，每次都是因为本机定时器到期（其中至少 4 个）";
    assert_eq!(Lang::Zh.say(text), wanted);
}

/// Sentences that are put together from many parts.
#[test]
fn parts_of_parts_are_translated() {
    for (english, chinese) in [
        (
            "this host dropped the SYN that it was to forward from eth0 to eth1, from 10.0.0.1:40000 to 10.0.1.50:8080, \
             twice: the next hop does not answer ARP or neighbour discovery (NEIGH_FAILED at __neigh_event_send); in \
             namespace node; after DNAT to 10.0.1.50:8080: its sequence number is that of this handshake",
            "本机在转发（从 eth0 到 eth1）时丢弃了从 10.0.0.1:40000 到 10.0.1.50:8080 的 SYN，共 2 次：\
             下一跳不应答 ARP 或邻居发现（NEIGH_FAILED，位于 __neigh_event_send）；在命名空间 node 中；\
             DNAT 到 10.0.1.50:8080 之后：序列号与这次握手一致",
        ),
        (
            "rules that can have done it: table inet f chain in handle 7: tcp dport 80 drop (it counted 3 times); \
             table inet f chain in: policy drop (not fully understood); and 2 more; and perhaps others: not all \
             could be read (rules read 1.20 s after it)",
            "可能是以下规则：table inet f chain in handle 7: tcp dport 80 drop（计数 3 次）；\
             table inet f chain in: policy drop（未能完全解析）；另有 2 条；可能还有其他：\
             未能全部读取（规则在丢包之后 1.20 s 读取）",
        ),
        (
            "ListenOverflows of the host's namespace rose by 864: SYNs or final ACKs found a full accept queue, and \
             no check found one full; sk_drops rose at 0.0.0.0:80 (java/9) by 800, [::]:81 by 64",
            "主机命名空间的 ListenOverflows 增加了 864：SYN 或第三次握手的 ACK 遇到了已满的全连接队列，\
             而各次检查都没有发现队列已满；sk_drops 增加的有：0.0.0.0:80（java/9）增加 800、[::]:81 增加 64",
        ),
        (
            "this rule can have done it: table inet f chain in handle 7: tcp dport 80 drop (rules read 9.00 s before it) \
             (counted in 2 of the handshakes)",
            "可能是这条规则：table inet f chain in handle 7: tcp dport 80 drop（规则在丢包之前 9.00 s 读取）\
             （统计自其中 2 次握手）",
        ),
        (
            "this accounts for 3 of 5 SYNs without a useful answer",
            "没有有效应答的 5 个 SYN 中，这可以解释 3 个",
        ),
        (
            "10 half-opens of 3 connections: 7 end not seen, 3 timed out; the longest at least 5.00 s; retransmitted \
             1 to 5 times; 2 whose peer repeated its SYN",
            "10 个半连接（来自 3 条连接）：7 个结束未被看到、3 个超时；最长至少 5.00 s；重传 1 到 5 次；\
             其中 2 个的对端重发了 SYN",
        ),
        (
            "a RST without an ACK from 10.0.0.9:80 came, twice, and TCP refused it: in SYN_SENT only a RST that \
             acknowledges the SYN counts (RFC 9293) (TCP_RESET)",
            "收到来自 10.0.0.9:80 的不带 ACK 的 RST，2 次，TCP 拒绝了它：\
             在 SYN_SENT 状态，只有确认了 SYN 的 RST 才有效（RFC 9293）（TCP_RESET）",
        ),
        (
            "3 connections to port 80 completed the handshake and were reset 1.00 ms (median; 20 µs to 3.00 ms) after \
             it: a RST came, and no data before it (counted in 2 of the handshakes)",
            "3 条到端口 80 的连接完成握手后在 1.00 ms（中位数；20 µs 到 3.00 ms）后被重置：\
             收到 RST，此前没有收到数据（统计自其中 2 次握手）",
        ),
    ] {
        assert_eq!(Lang::Zh.say(english), chinese);
    }
}

/// A process has whatever name, and it is no text.
#[test]
fn names_stay_as_they_are() {
    for (english, chinese) in [
        (
            "server 0.0.0.0:80 (client/7)",
            "服务端 0.0.0.0:80（client/7）",
        ),
        ("server 0.0.0.0:80 (client)", "服务端 0.0.0.0:80（client）"),
        ("client (open) to port 80", "客户端（open），目的端口 80"),
        (
            "client (\"a b\"/7 of c.service) to port 80",
            "客户端（c.service 的 \"a b\"/7），目的端口 80",
        ),
        (
            "client (\"to port 1\"/7) to port 80",
            "客户端（\"to port 1\"/7），目的端口 80",
        ),
        (
            "server [::]:80 (checkout (web/prod) pid 7), netns blue",
            "服务端 [::]:80（checkout（web/prod）pid 7），netns blue",
        ),
        // Nothing in a name that a process chose is taken for the words around it (issue 20).
        (
            "server 127.0.0.1:80 (\"a), netns b (c\"/7), netns pid 8 (x.sh)",
            "服务端 127.0.0.1:80（\"a), netns b (c\"/7），netns pid 8（x.sh）",
        ),
        (
            "server 127.0.0.1:80 (\"\\\" (\"/7), netns blue",
            "服务端 127.0.0.1:80（\"\\\" (\"/7），netns blue",
        ),
        (
            "client (\"x) to port 1\"/7) to port 80",
            "客户端（\"x) to port 1\"/7），目的端口 80",
        ),
        (
            "reset closed it after 1.00 s, while it was open",
            "reset 在 1.00 s 后将其关闭，当时握手尚未完成",
        ),
        (
            "the application closed it after 1.00 s, while it was open",
            "应用在 1.00 s 后将其关闭，当时握手尚未完成",
        ),
        (
            "server: its main thread sleeps in futex_do_wait",
            "server：其主线程睡眠在 futex_do_wait",
        ),
        (
            "1 problem. Cause: refused, client (refused/1) to port 80.",
            "1 个问题。原因：refused，客户端（refused/1），目的端口 80。",
        ),
    ] {
        assert_eq!(Lang::Zh.say(english), chinese);
    }
}

#[test]
fn what_is_wrong_with_a_table_is_named() {
    let wrong = |po| translations::entries(&[("test.po", po)]).1;
    for (po, words) in [
        ("msgid \"a {b}\"\nmsgstr \"A\"", "hole b is missing"),
        ("msgid \"a {b}\"\nmsgstr \"A {c}\"", "no hole c"),
        (
            "msgid \"a {b}\"\nmsgstr \"A {b:what}\"",
            "no kind of hole is what",
        ),
        ("msgid \"a {b}\"\nmsgstr \"A {b:num} {b:raw}\"", "two kinds"),
        ("msgid \"a {b\"\nmsgstr \"A\"", "a brace"),
        ("msgid \"a\"\nmsgstr \"\"", "no translation"),
        (
            "msgid \"a\"\nmsgstr \"A\"\n\nmsgid \"a\"\nmsgstr \"B\"",
            "line 1 too",
        ),
        ("msgid \"a\"\nmsgstr \"A\"\nnonsense", "line 3"),
        ("msgid \"a \"b\"\"\nmsgstr \"A\"", "line 1"),
    ] {
        let wrong = wrong(po);
        assert!(
            wrong.iter().any(|line| line.contains(words)),
            "{words}: {wrong:?}"
        );
    }
}

#[test]
fn the_tables_are_sound() {
    let entries = Lang::Zh
        .entries()
        .unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    for (table, entry) in entries {
        let at = format!("{table}:{}: {:?}", entry.line, entry.translated);
        // Signs whose width depends on the terminal (UAX #11, ambiguous) have an ASCII form.
        let ambiguous = entry
            .translated
            .chars()
            .find(|c| "…·—±→←×≈“”‘’".contains(*c));
        assert_eq!(ambiguous, None, "{at}");
        // One form of each mark.
        assert!(
            !entry.translated.contains("、 ") && !entry.translated.contains(" ，"),
            "{at}"
        );
    }
}
