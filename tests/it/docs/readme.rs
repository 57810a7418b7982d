//! The README: short, true, and a way to every page.

use std::path::Path;

use super::{blocks, page, page_text, pages};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BYTES_MAX: usize = 8 * 1024;

fn readme() -> String {
    std::fs::read_to_string(format!("{ROOT}/README.md")).unwrap()
}

/// Returns what links of a Markdown text lead to.
fn links(text: &str) -> Vec<&str> {
    let parts = text.split("](").skip(1);
    parts.filter_map(|part| part.split(')').next()).collect()
}

#[tokio::test]
async fn every_example_of_the_readme_does_what_it_says() {
    let ran = page::run(&readme(), None).await;
    let count = ran.unwrap_or_else(|wrong| panic!("README.md, {wrong}"));
    assert!(count >= 1, "{count} examples");
}

#[test]
fn the_readme_fits_eight_kib_and_its_links_lead_somewhere() {
    let text = readme();
    assert!(text.len() <= BYTES_MAX, "{} bytes", text.len());
    for link in links(&text) {
        let is_there = link.starts_with("https://") || Path::new(ROOT).join(link).exists();
        assert!(is_there, "README.md: nothing is at {link}");
    }
}

#[test]
fn the_readme_has_a_link_to_every_page() {
    let text = readme();
    let links = links(&text);
    for (name, _) in pages() {
        let page = format!("src/docs/{name}.md");
        assert!(links.contains(&&*page), "README.md has no link to {page}");
    }
}

#[test]
fn the_readme_and_the_page_have_the_same_number_of_guarantees() {
    let is_item = |line: &&str| {
        let (number, rest) = line.split_once(". ").unwrap_or_default();
        !rest.is_empty() && number.parse::<u32>().is_ok()
    };
    let text = readme();
    let (_, list) = text.split_once("## Guarantees").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    let promised = list.lines().filter(is_item).count();
    let page = page_text("guarantees");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let numbers = rows.filter_map(|row| row.split(' ').next()?.parse::<usize>().ok());
    assert_eq!(promised, numbers.count());
}

#[test]
fn blocks_of_the_figures_are_whole() {
    let text = std::fs::read_to_string(format!("{ROOT}/benches/README.md")).unwrap();
    assert!(blocks::of_page(&text).is_ok_and(|blocks| !blocks.is_empty()));
}
