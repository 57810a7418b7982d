//! Renders the manual at compile time: each page of `src/docs` as compressed HTML, and as blocks for a terminal.
//!
//! Markdown is parsed here and nowhere else, so the program needs no parser. `docs/mod.rs` includes the Rust text that this
//! writes. A page that `SUMMARY.md` does not name is left out, and a name without a page is skipped: tests report both.

#[path = "build/html.rs"]
mod html;
#[path = "build/summary.rs"]
mod summary;
#[path = "build/terminal.rs"]
mod terminal;

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hasher},
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use pulldown_cmark::{Options, Parser};

use self::summary::Entry;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/docs");
    let docs = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("src/docs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut entries = summary::parse(&fs::read_to_string(docs.join("SUMMARY.md"))?);
    entries.retain(|entry| docs.join(format!("{}.md", entry.name)).is_file());
    let style = fs::read_to_string(docs.join("look/style.css"))?;
    let mut code = String::new();
    writeln!(code, "static PAGES: &[Page] = &[")?;
    for (at, entry) in entries.iter().enumerate() {
        let markdown = fs::read_to_string(docs.join(format!("{}.md", entry.name)))?;
        let before = at.checked_sub(1).map(|at| &entries[at]);
        let page = html::page(&markdown, &entries, before, entries.get(at + 1));
        let blocks = terminal::blocks(&markdown);
        write_page(&mut code, entry, &blocks)?;
        writeln!(code, "file: {} }},", file(&out, &entry.name, &page)?)?;
    }
    writeln!(code, "];")?;
    for (name, file_name, text) in [
        ("INDEX", "index", html::index(&entries)),
        ("NOT_FOUND", "not-found", html::not_found(&entries)),
        ("STYLE", "style", style),
    ] {
        writeln!(
            code,
            "static {name}: File = {};",
            file(&out, file_name, &text)?
        )?;
    }
    fs::write(out.join("docs.rs"), code)?;
    Ok(())
}

fn write_page(code: &mut String, entry: &Entry, blocks: &[String]) -> Result<(), Box<dyn Error>> {
    let Entry { name, title, part } = entry;
    writeln!(
        code,
        "Page {{ name: {name:?}, title: {title:?}, part: {part:?}, \
         markdown: include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/src/docs/{name}.md\")), blocks: &["
    )?;
    for block in blocks {
        writeln!(code, "{block},")?;
    }
    writeln!(code, "],")?;
    Ok(())
}

/// Compresses a text into a file of the build, and returns the Rust expression that includes it.
fn file(out: &Path, name: &str, text: &str) -> Result<String, Box<dyn Error>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes())?;
    fs::write(out.join(format!("{name}.gz")), encoder.finish()?)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    let tag = hasher.finish();
    Ok(format!(
        "File {{ gzip: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.gz\")), tag: \"{tag:016x}\" }}"
    ))
}

/// Returns a parser that knows what pages may have: tables beside the common Markdown.
fn parser(markdown: &str) -> Parser<'_> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES)
}

/// Returns the page and the anchor that a link leads to; `None` for a link out of the manual.
fn internal(link: &str) -> Option<(&str, &str)> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    match path.strip_suffix(".md") {
        Some(page) if !page.contains('/') => Some((page, anchor)),
        None if path.is_empty() => Some(("", anchor)),
        _ => None,
    }
}
