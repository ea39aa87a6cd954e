//! Each text of the report has a translation: what is between the tags of its literals.

use super::{
    source,
    translations::{TranslatedTexts, has_words},
};

/// The report's source.
const REPORT: &str = "synprobe/src/report/";
/// Texts that are the same in every language.
const NOT_SAID: [&str; 12] = [
    "synprobe diagnose --format json",
    "synprobe explain {verdict}",
    "netns {name}",
    "netns {inode}",
    "{} ms",
    "1 ms",
    "10 ms",
    "100 ms",
    "{}:{:02} min",
    "end ok",
    "end open",
    "c2 dash",
];

/// What stands between two tags of a literal, or in a label for readers who do not see a picture.
fn between_tags(literal: &str) -> Vec<&str> {
    const LABEL: &str = "aria-label=\"";
    let labels = literal.match_indices(LABEL).filter_map(|(at, label)| {
        let rest = &literal[at + label.len()..];
        rest.split_once('"').map(|(label, _)| label)
    });
    let mut texts: Vec<&str> = labels.collect();
    let mut rest = literal;
    while let Some((text, tagged)) = rest.split_once('<') {
        texts.push(text);
        rest = tagged.split_once('>').map_or("", |(_, after)| after);
    }
    texts.push(rest);
    texts
        .into_iter()
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect()
}

/// A text with and without the mark at its end, and its sentences: the forms in which it may be in a table.
fn forms(text: &str) -> Vec<&str> {
    let bare = text.trim_end_matches(['.', ':']);
    let sentences = bare.split(". ");
    [text, bare].into_iter().chain(sentences).collect()
}

/// Every text of a literal of the report in the forms in which it may be in a table.
pub fn of_literal(literal: &str) -> Vec<String> {
    let texts = between_tags(literal);
    let forms = texts.into_iter().flat_map(forms);
    forms.map(str::to_owned).collect()
}

/// What of a literal has no translation.
fn missing<'l>(literal: &'l str, texts: &TranslatedTexts) -> Vec<&'l str> {
    let is_known = |text: &&str| texts.known.contains(*text) || NOT_SAID.contains(text);
    let needs_none = |text: &&str| !has_words(text) || !text.trim().contains(' ');
    let is_said = |text: &&str| {
        let forms = forms(text);
        let (whole, sentences) = forms.split_at(2);
        needs_none(text)
            || whole.iter().any(is_known)
            || sentences.iter().all(|one| is_known(one) || needs_none(one))
    };
    let said = |literal: &&str| is_known(literal);
    if said(&literal) {
        return Vec::new();
    }
    let all = between_tags(literal).into_iter();
    all.filter(|text| !is_said(text)).collect()
}

#[test]
fn each_text_of_the_report_has_a_translation() {
    let texts = TranslatedTexts::read();
    let files = source::all();
    let report: Vec<_> = files
        .iter()
        .filter(|file| file.path.starts_with(REPORT))
        .collect();
    assert!(report.len() > 10, "this is not the report");
    let mut without = Vec::new();
    for file in report {
        for (line, literal) in file.literals() {
            let missing = missing(&literal, &texts).into_iter();
            without.extend(missing.map(|text| format!("{}:{line}: {text:?}", file.path)));
        }
    }
    assert!(
        without.is_empty(),
        "{} texts without an entry in synprobe/src/lang/zh/:\n{}",
        without.len(),
        without.join("\n")
    );
}

#[test]
fn a_text_between_tags_is_found() {
    let texts = TranslatedTexts::read();
    let literal =
        "<p class=\"a b\" aria-label=\"Nobody has heard of it\">{} cats. {} were seen</p>\n";
    assert_eq!(
        missing(literal, &texts),
        ["Nobody has heard of it", "{} cats. {} were seen"]
    );
    assert_eq!(missing("<p>None was seen.</p>\n", &texts), [""; 0]);
    assert_eq!(
        missing("<circle class=\"f c1\" cx=\"0\"/>", &texts),
        [""; 0]
    );
}
