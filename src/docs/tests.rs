//! Pages and summary name each other, and every link leads somewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn html(page: &Page) -> String {
    String::from_utf8(page.file.plain().unwrap()).unwrap()
}

/// Returns the values of an attribute.
fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    let start = format!(" {attribute}=\"");
    let parts = html.split(&*start).skip(1);
    parts.filter_map(|part| part.split('"').next()).collect()
}

#[test]
fn the_summary_names_every_page_once_and_every_page_is_there() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs");
    let files = std::fs::read_dir(folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| name != "SUMMARY")
        .collect();
    let summary = std::fs::read_to_string(format!("{folder}/SUMMARY.md")).unwrap();
    let mut named: Vec<&str> = summary
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next()?.strip_suffix(".md"))
        .collect();
    files.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, files, "SUMMARY.md and the files of src/docs");
    assert_eq!(pages().len(), files.len());
    for page in pages() {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(page.name.chars().all(is_plain), "{}", page.name);
        assert!(
            page.markdown.starts_with("# "),
            "{} has no title",
            page.name
        );
        let titles = page.markdown.lines().filter(|line| line.starts_with("# "));
        assert!(
            titles.count() >= 1 && !page.title.is_empty(),
            "{}",
            page.name
        );
    }
}

#[test]
fn links_lead_to_pages_and_headings_that_are_there() {
    let mut anchors: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for page in pages() {
        let ids = values(&html(page), "id")
            .into_iter()
            .map(str::to_owned)
            .collect();
        anchors.insert(page.name, ids);
    }
    for page in pages() {
        let html = html(page);
        let (_, main) = html.split_once("<main>").unwrap();
        let (main, _) = main.split_once("</main>").unwrap();
        for link in values(main, "href") {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (to, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if to.is_empty() { page.name } else { to };
            let there = anchors.get(to);
            let there =
                there.unwrap_or_else(|| panic!("{}.md: no page for the link {link}", page.name));
            assert!(
                anchor.is_empty() || there.contains(anchor),
                "{}.md: no heading for the link {link}; there are {there:?}",
                page.name
            );
        }
    }
}

#[test]
fn pages_have_no_script_no_image_and_no_html_of_their_own() {
    for page in pages() {
        let html = html(page);
        for tag in [
            "<script",
            "<img",
            "<iframe",
            "<form",
            "<style",
            " style=",
            "javascript:",
        ] {
            assert!(!html.contains(tag), "{}.md: {tag}", page.name);
        }
        assert!(html.contains("<meta name=\"viewport\""), "{}", page.name);
        assert!(html.contains("href=\"style.css\""), "{}", page.name);
        assert_eq!(
            html.matches("<h1").count(),
            1,
            "{}.md has one title",
            page.name
        );
        // What looks like a tag is shown as text, and a comment not at all.
        assert!(!html.contains("<!-- "), "{}", page.name);
    }
}

#[test]
fn blocks_for_a_terminal_begin_with_the_title() {
    for page in pages() {
        assert!(
            matches!(page.blocks.first(), Some(Block::Heading { level: 1, .. })),
            "{}: {:?}",
            page.name,
            page.blocks.first()
        );
    }
}

#[test]
fn index_and_unknown_page_list_every_page() {
    for (file, below) in [(index(), "docs/"), (not_found(), "")] {
        let html = String::from_utf8(file.plain().unwrap()).unwrap();
        for page in pages() {
            let link = format!("<a href=\"{below}{}\">", page.name);
            assert!(html.contains(&link), "{link} is not in {html}");
        }
    }
}
