//! Pages as blocks for a terminal: Rust expressions of the type `Block` of `docs/mod.rs`.

use pulldown_cmark::{CowStr, Event, Tag, TagEnd};

use crate::{internal, parser};

/// Returns the blocks of a page.
pub(crate) fn blocks(markdown: &str) -> Vec<String> {
    let mut writer = Writer::default();
    for event in parser(markdown) {
        writer.take(event);
    }
    writer.blocks
}

#[derive(Default)]
struct Writer {
    blocks: Vec<String>,
    /// What the block under way holds so far.
    text: String,
    /// The number of the next item of each list that is open; `None` for a list without numbers.
    lists: Vec<Option<u64>>,
    /// What stands before the next paragraph: `- `, or `2. `.
    marker: String,
    quotes: usize,
    rows: Vec<Vec<String>>,
    links: Vec<String>,
}

impl Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text += &text,
            Event::Code(text) => {
                self.text.push('`');
                self.text += &text;
                self.text.push('`');
            }
            Event::SoftBreak => self.text.push(' '),
            Event::HardBreak => self.text.push('\n'),
            Event::Rule => self.blocks.push("Block::Rule".into()),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { .. } | Tag::Paragraph | Tag::TableCell => self.text.clear(),
            Tag::CodeBlock(_) => self.paragraph(),
            Tag::List(first) => {
                self.paragraph();
                self.lists.push(first);
            }
            Tag::Item => {
                self.text.clear();
                self.marker = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "- ".into(),
                };
            }
            Tag::BlockQuote(_) => self.quotes += 1,
            Tag::TableHead | Tag::TableRow => self.rows.push(Vec::new()),
            Tag::Strong => self.text.push('\u{1}'),
            Tag::Link { dest_url, .. } => self.links.push(shown(&dest_url)),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let text = std::mem::take(&mut self.text);
                let text = text.replace(['\u{1}', '\u{2}'], "");
                let level = level as usize;
                self.blocks.push(format!(
                    "Block::Heading {{ level: {level}, text: {text:?} }}"
                ));
            }
            TagEnd::Paragraph | TagEnd::Item => self.paragraph(),
            TagEnd::CodeBlock => {
                let text = std::mem::take(&mut self.text);
                let (indent, text) = (self.indent(), text.trim_end_matches('\n'));
                self.blocks.push(format!(
                    "Block::Code {{ indent: {indent}, text: {text:?} }}"
                ));
            }
            TagEnd::List(_) => drop(self.lists.pop()),
            TagEnd::BlockQuote(_) => self.quotes -= 1,
            TagEnd::TableCell => {
                let text = std::mem::take(&mut self.text);
                let text = text.replace(['\u{1}', '\u{2}'], "");
                if let Some(row) = self.rows.last_mut() {
                    row.push(text);
                }
            }
            TagEnd::Table => {
                let rows = std::mem::take(&mut self.rows);
                let rows: Vec<String> = rows.iter().map(|row| format!("&{row:?}")).collect();
                self.blocks
                    .push(format!("Block::Table {{ rows: &[{}] }}", rows.join(", ")));
            }
            TagEnd::Strong => self.text.push('\u{2}'),
            TagEnd::Link => {
                let link = self.links.pop().unwrap_or_default();
                self.text += &link;
            }
            _ => {}
        }
    }

    /// Ends the paragraph under way, if there is one. Items of a tight list have no paragraph of their own.
    fn paragraph(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.trim().is_empty() {
            return;
        }
        let marker = std::mem::take(&mut self.marker);
        // The marker stands in the indent of the text.
        let indent = self.indent().max(marker.len());
        self.blocks.push(format!(
            "Block::Paragraph {{ indent: {indent}, marker: {marker:?}, text: {text:?} }}"
        ));
    }

    fn indent(&self) -> usize {
        let of_lists = self
            .lists
            .iter()
            .map(|list| if list.is_some() { 3 } else { 2 });
        of_lists.sum::<usize>() + 2 * self.quotes
    }
}

/// Returns what is shown behind the text of a link.
fn shown(link: &CowStr<'_>) -> String {
    match internal(link) {
        Some(("", _)) => String::new(),
        Some((page, _)) => format!(" (syncgate docs {page})"),
        None => format!(" ({link})"),
    }
}
