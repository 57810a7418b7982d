//! `SUMMARY.md` in the form of mdBook: parts as headings, pages as items of lists.

use pulldown_cmark::{Event, Tag, TagEnd};

use crate::parser;

/// A line of the summary.
pub(crate) struct Entry {
    /// `retry` for `retry.md`.
    pub(crate) name: String,
    pub(crate) title: String,
    /// The heading above it; empty before the first.
    pub(crate) part: String,
}

/// Returns the pages in their order. The heading of the first level is the title of the manual and no part.
pub(crate) fn parse(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let (mut part, mut words, mut level) = (String::new(), String::new(), 0);
    let mut link = None;
    for event in parser(text) {
        match event {
            Event::Start(Tag::Heading { level: at, .. }) => {
                words.clear();
                level = at as usize;
            }
            Event::End(TagEnd::Heading(_)) if level > 1 => part.clone_from(&words),
            Event::Start(Tag::Link { dest_url, .. }) => {
                words.clear();
                link = Some(dest_url);
            }
            Event::End(TagEnd::Link) => {
                let name = link
                    .take()
                    .and_then(|link| link.strip_suffix(".md").map(str::to_owned));
                entries.extend(name.map(|name| Entry {
                    name,
                    title: words.clone(),
                    part: part.clone(),
                }));
            }
            Event::Text(text) | Event::Code(text) => words += &text,
            _ => {}
        }
    }
    entries
}
