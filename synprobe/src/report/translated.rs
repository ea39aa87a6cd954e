//! The report in another language: the finished file, text by text. What is between tags, and what a reader hears of a
//! picture, is translated; commands and names stay.

use std::collections::HashMap;

use super::html::Esc;
use crate::{lang::Lang, model::VerdictKind, view::explanation};

/// Elements whose content stays as it is.
const KEPT: [&str; 3] = ["style", "pre", "code"];
/// The attribute that has a text for readers.
const LABEL: &str = " aria-label=\"";
/// What separates sentences in one text, and what does so in Chinese.
const SEPARATORS: [(&str, &str); 2] = [(". ", "。"), ("; ", "；")];
/// What a sentence may end with, and its form in Chinese.
const ENDS: [(char, &str); 2] = [('.', "。"), (':', "：")];
/// Marks that have their space within.
const WIDE_MARKS: [char; 6] = ['，', '。', '、', '：', '；', '）'];

/// The file in that language. `html` is in English, and its attributes are quoted. `conclusion`: its first sentences.
pub(super) fn translated(html: &str, lang: Lang, conclusion: &str) -> String {
    let mut texts = ReportTexts::new(lang, conclusion);
    let mut out = String::with_capacity(html.len() + html.len() / 4);
    let mut rest = html;
    let mut kept: Option<&str> = None;
    while let Some(begin) = rest.find('<') {
        let (text, tagged) = rest.split_at(begin);
        match kept {
            Some(_) => out.push_str(text),
            None => texts.push(&mut out, text),
        }
        let end = tagged.find('>').map_or(tagged.len(), |end| end + 1);
        let (tag, after) = tagged.split_at(end);
        rest = after;
        let name = tag.trim_matches(['<', '>', '/']).split(' ').next();
        let name = name.unwrap_or_default();
        let closes = tag.starts_with("</");
        match kept {
            Some(of) if closes && of == name => kept = None,
            None if !closes && KEPT.contains(&name) => kept = Some(name),
            _ => (),
        }
        match tag.split_once(LABEL) {
            Some((before, label)) => {
                let (label, after) = label.split_once('"').unwrap_or((label, ""));
                out.push_str(before);
                out.push_str(LABEL);
                texts.push(&mut out, label);
                out.push('"');
                out.push_str(after);
            }
            None => out.push_str(tag),
        }
    }
    out.push_str(rest);
    out
}

/// The texts that were translated so far: most come more than once.
struct ReportTexts<'c> {
    lang: Lang,
    conclusion: &'c str,
    /// By the English text; `None`: there is no translation, or none is needed.
    known: HashMap<String, Option<String>>,
}

impl<'c> ReportTexts<'c> {
    fn new(lang: Lang, conclusion: &'c str) -> Self {
        let summaries = VerdictKind::ALL.iter().map(|kind| {
            let [english, said] = [Lang::En, lang].map(|lang| explanation::summary(*kind, lang));
            (english.to_owned(), Some(said.to_owned()))
        });
        let concluded = (conclusion.to_owned(), lang.translated(conclusion));
        Self {
            lang,
            conclusion,
            known: summaries.chain([concluded]).collect(),
        }
    }

    /// Writes the text between two tags, or of an attribute.
    fn push(&mut self, out: &mut String, markup: &str) {
        let trimmed = markup.trim();
        let said = match has_prose(trimmed) {
            true => self.said(&plain(trimmed)),
            false => None,
        };
        let Some(said) = said else {
            out.push_str(markup);
            return;
        };
        let (before, after) = markup.split_once(trimmed).unwrap_or_default();
        if !said.starts_with(WIDE_MARKS) || before.contains('\n') {
            out.push_str(before);
        }
        out.push_str(&Esc(&said).to_string());
        if !said.ends_with(WIDE_MARKS) || after.contains('\n') {
            out.push_str(after);
        }
    }

    fn said(&mut self, text: &str) -> Option<String> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let said = self.titled(text).or_else(|| {
            // Facts have no point at their end, where they do not stand in a row.
            let in_a_row = text.ends_with('.').then(|| self.several(text, &SEPARATORS));
            in_a_row
                .flatten()
                .or_else(|| self.sentence(text))
                .or_else(|| self.followed(text))
                .or_else(|| self.several(text, &SEPARATORS))
        });
        self.known.insert(text.to_owned(), said.clone());
        said
    }

    /// The conclusion, and what it is of.
    fn titled(&mut self, text: &str) -> Option<String> {
        let title = text.strip_suffix(self.conclusion)?.strip_suffix(": ")?;
        let said = [self.said(title)?, self.said(self.conclusion)?];
        Some(said.join("："))
    }

    /// A text of the tables; its first letter may be a capital, and a point or a colon may stand at its end.
    fn sentence(&mut self, text: &str) -> Option<String> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let ended = ENDS
            .into_iter()
            .find_map(|(end, mark)| Some((text.strip_suffix(end)?, mark)));
        let of_ended = ended.and_then(|(body, mark)| {
            let said = self.phrase(body)?;
            Some(format!("{said}{mark}"))
        });
        let said = of_ended.or_else(|| self.phrase(text));
        if said.is_some() {
            self.known.insert(text.to_owned(), said.clone());
        }
        said
    }

    fn phrase(&self, text: &str) -> Option<String> {
        let mut chars = text.chars();
        let first = chars.next()?;
        // Names of the kernel have more than one capital.
        let mut word = chars.as_str().chars().take_while(|c| !" ,:".contains(*c));
        if !first.is_ascii_uppercase() || !word.all(|c| c.is_ascii_lowercase() || "'-".contains(c))
        {
            return self.table(text);
        }
        let small = format!("{}{}", first.to_ascii_lowercase(), chars.as_str());
        self.lang
            .exactly(text)
            .map(str::to_owned)
            .or_else(|| self.table(&small))
            .or_else(|| self.table(text))
    }

    fn table(&self, text: &str) -> Option<String> {
        let known = self.known.get(text).cloned().flatten();
        known.or_else(|| self.lang.translated(text))
    }

    /// A text with a number or the name of an error behind it.
    fn followed(&mut self, text: &str) -> Option<String> {
        let (before, last) = text.rsplit_once(' ')?;
        let is_number = last.chars().all(|c| c.is_ascii_digit() || c == ',');
        let is_error = last.chars().all(|c| c.is_ascii_uppercase());
        if !is_number && !is_error {
            return None;
        }
        let said = self.sentence(before)?;
        let space = if said.ends_with(WIDE_MARKS) { "" } else { " " };
        Some(format!("{said}{space}{last}"))
    }

    /// Several sentences, each with a translation. A sentence of the tables may contain what separates others.
    fn several(&mut self, text: &str, separators: &[(&str, &str)]) -> Option<String> {
        let ((separator, mark), others) = separators.split_first()?;
        let parts: Vec<&str> = text.split(separator).collect();
        if parts.len() == 1 {
            return self.several(text, others);
        }
        let mut said = Vec::new();
        let mut begin = 0;
        while begin < parts.len() {
            let (end, one) = (begin + 1..=parts.len()).find_map(|end| {
                let joined = parts[begin..end].join(separator);
                let one = self.sentence(&joined);
                let one = one.or_else(|| self.several(&joined, others))?;
                Some((end, one))
            })?;
            said.push(one);
            begin = end;
        }
        Some(said.join(mark))
    }
}

/// Whether a text has an English word. Names, numbers and units have none.
fn has_prose(text: &str) -> bool {
    text.split(|c: char| c.is_whitespace() || "(),.:;".contains(c))
        .any(|word| {
            let mut chars = word.chars();
            let is_begun = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
            let rest = chars.as_str();
            is_begun && !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase())
        })
}

/// Text without its escapes: [`Esc`] makes these five.
fn plain(markup: &str) -> String {
    markup
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONCLUSION: &str = "Nothing wrong was found.";

    fn said(html: &str) -> String {
        translated(html, Lang::Zh, CONCLUSION)
    }

    #[test]
    fn texts_and_labels_are_translated_and_commands_are_not() {
        assert_eq!(
            said(
                "<h4>What to do</h4>\n<pre><code>peers</code>Peers</pre><p aria-label=\"Contents\">Peers</p>"
            ),
            "<h4>处置</h4>\n<pre><code>peers</code>Peers</pre><p aria-label=\"目录\">对端</p>"
        );
        assert_eq!(
            said("<p>More: <code>synprobe explain x</code></p>"),
            "<p>详见：<code>synprobe explain x</code></p>"
        );
    }

    #[test]
    fn sentences_in_a_row_are_translated_one_by_one() {
        let text = "Four bars to each doubling. The colour is the cause.";
        assert_eq!(
            said(&format!("<p>{text}</p>")),
            "<p>每翻一倍画四根柱。颜色表示原因。</p>"
        );
        // All or nothing.
        let half = "<p>Four bars to each doubling. A sentence that nobody knows.</p>";
        assert_eq!(said(half), half);
    }

    #[test]
    fn the_title_has_the_host_and_the_conclusion() {
        assert_eq!(
            said("<title>synprobe report of web-1: Nothing wrong was found.</title>"),
            "<title>web-1 的 synprobe 报告：未发现异常。</title>"
        );
        assert_eq!(
            said("<p>synprobe report of a host whose name is not known</p>"),
            "<p>名称未知的主机的 synprobe 报告</p>"
        );
    }

    #[test]
    fn a_number_or_an_error_may_follow() {
        assert_eq!(
            said("<td>timed out ETIMEDOUT</td>"),
            "<td>超时 ETIMEDOUT</td>"
        );
        assert_eq!(
            said("<text>server: begun 1,234</text>"),
            "<text>服务端：1,234</text>"
        );
        assert_eq!(said("<td>timed out again</td>"), "<td>timed out again</td>");
    }

    #[test]
    fn what_a_verdict_means_is_translated_with_a_capital_too() {
        for kind in VerdictKind::ALL {
            let [english, chinese] = [Lang::En, Lang::Zh].map(|l| explanation::summary(*kind, l));
            let english = super::super::cards::sentence(english);
            let shown = said(&format!("<p class=\"why\">{}</p>", Esc(&english)));
            assert_eq!(
                shown,
                format!("<p class=\"why\">{}</p>", Esc(chinese)),
                "{kind}"
            );
        }
    }

    #[test]
    fn names_stay_and_stay_escaped() {
        for name in [
            "a &lt;b&gt; &amp;lt; c",
            "nginx/812",
            "198.18.0.2 ×4",
            "synack-lost",
        ] {
            let html = format!("<td>{name}</td>");
            assert_eq!(said(&html), html);
        }
        let html = "<title>a &lt;script&gt; &amp;lt; 7 at most, 0 at the end</title>";
        assert_eq!(said(html), html);
    }
}
