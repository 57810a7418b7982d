//! The manual: Markdown pages in this folder, rendered and compressed at compile time by `build.rs`.
//!
//! `SUMMARY.md` names the pages in their order, in the form of mdBook. `api/docs` serves them at `/docs`, `syncgate docs`
//! prints them. Five pages are written from the code: `SYNCGATE_WRITE_DOCS=1 cargo test --lib docs` writes them anew, and
//! without that variable the same tests hold the files equal to the code.

use std::io::{self, Read as _};

use flate2::read::GzDecoder;

include!(concat!(env!("OUT_DIR"), "/docs.rs"));

/// A page of the manual.
#[derive(Debug)]
pub struct Page {
    /// `retry` for `retry.md`.
    pub name: &'static str,
    /// Its title in `SUMMARY.md`.
    pub title: &'static str,
    /// The part of the manual that it belongs to; empty if it stands before the first part.
    pub part: &'static str,
    /// The page as it was written.
    pub markdown: &'static str,
    /// The same for a terminal.
    pub blocks: &'static [Block],
    /// The same as HTML.
    pub file: File,
}

/// Something that a browser gets.
#[derive(Debug)]
pub struct File {
    /// Its bytes, compressed.
    pub gzip: &'static [u8],
    /// Differs if the bytes differ; hexadecimal digits.
    pub tag: &'static str,
}

/// A part of a page on a terminal. In a paragraph U+0001 begins bold text and U+0002 ends it.
#[derive(Clone, Copy, Debug)]
pub enum Block {
    /// A heading, of level 1 to 6.
    Heading {
        /// 1 for the title of the page.
        level: usize,
        /// Its words.
        text: &'static str,
    },
    /// A paragraph or an item of a list.
    Paragraph {
        /// Columns before each line.
        indent: usize,
        /// Stands at the end of the first line's indent: `- `, `2. `, or nothing.
        marker: &'static str,
        /// Its words; a line's end is one that the page asks for.
        text: &'static str,
    },
    /// Lines that stay as they are.
    Code {
        /// Columns before each line, beside those that all code has.
        indent: usize,
        /// The lines.
        text: &'static str,
    },
    /// A table; its first row holds the headings.
    Table {
        /// Rows of cells.
        rows: &'static [&'static [&'static str]],
    },
    /// A line across.
    Rule,
}

/// Returns all pages, in the order of `SUMMARY.md`.
#[must_use]
pub fn pages() -> &'static [Page] {
    PAGES
}

/// Returns the page with this name.
#[must_use]
pub fn page(name: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.name == name)
}

/// Returns the list of pages as HTML, for `/docs`.
#[must_use]
pub fn index() -> &'static File {
    &INDEX
}

/// Returns the answer to an unknown page as HTML: the list of pages.
#[must_use]
pub fn not_found() -> &'static File {
    &NOT_FOUND
}

/// Returns the style sheet of all pages.
#[must_use]
pub fn style() -> &'static File {
    &STYLE
}

impl File {
    /// Returns its bytes as they were before they were compressed.
    ///
    /// # Errors
    /// None in practice: the bytes were compressed by our own build.
    pub fn plain(&self) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        GzDecoder::new(self.gzip).read_to_end(&mut plain)?;
        Ok(plain)
    }
}

/// Fails unless a page of the manual is equal to what the code says; with `SYNCGATE_WRITE_DOCS=1` writes the page instead.
#[cfg(test)]
#[track_caller]
pub(crate) fn held_equal(page: &str, rendered: &str) {
    let path = format!("{}/src/docs/{page}.md", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("SYNCGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, rendered).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines = written.lines().zip(rendered.lines()).enumerate();
    let differs = lines.find(|(_, (written, rendered))| written != rendered);
    assert!(
        written == rendered,
        "src/docs/{page}.md is not what the code says, first at {differs:?}; \
         SYNCGATE_WRITE_DOCS=1 cargo test --lib docs writes it"
    );
}

/// Returns a text as a cell of a table.
#[cfg(test)]
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('\n', " ")
}

/// Returns the names of an enum's variants without fields, as its source has them: a list of them can be held complete.
#[cfg(test)]
pub(crate) fn variants(source: &str, head: &str) -> Vec<String> {
    let (_, body) = source.split_once(head).expect("the enum is in its file");
    let lines = body.lines().take_while(|line| *line != "}");
    let names = lines.filter_map(|line| line.trim().strip_suffix(','));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
