//! The manual: as it is served, as it is printed, and its examples.

mod blocks;
mod compare;
mod curl;
mod examples;
mod page;
mod printed;
mod readme;
mod served;
mod shell;

/// Returns the text of a page of the manual, for a test that reads a line of it.
pub(crate) fn page_text(name: &str) -> String {
    std::fs::read_to_string(format!("{FOLDER}/{name}.md")).unwrap()
}

/// Where the pages are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs");

/// Returns name and text of every page, the summary left out, in the order of names.
fn pages() -> Vec<(String, String)> {
    let files = std::fs::read_dir(FOLDER).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names = names.filter_map(|name| name.strip_suffix(".md").map(str::to_owned));
    let mut names: Vec<String> = names.filter(|name| name != "SUMMARY").collect();
    names.sort();
    names
        .into_iter()
        .map(|name| (name.clone(), page_text(&name)))
        .collect()
}
