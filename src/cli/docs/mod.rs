//! `syncgate docs [PAGE]`: the manual in a terminal, or its Markdown in a pipe.

#[cfg(test)]
mod reference;
mod terminal;

use clap::Args;
use serde_json::{Value, json};

use super::{
    Failure, Output,
    output::{self, Table},
};
use crate::{
    docs::{self, Page},
    json::nearest::did_you_mean,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of a page, as the list shows it, such as `settings`. Without a name the list of pages is printed.
    page: Option<String>,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    match (&arguments.page, output) {
        (None, Output::Text) => list(),
        (None, Output::Json) => {
            let pages: Vec<Value> = docs::pages().iter().map(described).collect();
            output::print_json(&json!({"pages": pages}))
        }
        (Some(name), Output::Text) => show(find(name)?),
        (Some(name), Output::Json) => {
            let page = find(name)?;
            let mut shown = described(page);
            shown["markdown"] = page.markdown.into();
            output::print_json(&shown)
        }
    }
}

fn described(page: &Page) -> Value {
    json!({"page": page.name, "title": page.title, "part": page.part})
}

fn list() -> Result<(), Failure> {
    let mut table = Table::new(&["PAGE", "TITLE", "PART"]);
    for page in docs::pages() {
        table.row([page.name, page.title, page.part].map(str::to_owned));
    }
    output::print(&table.text())?;
    output::say("syncgate docs PAGE prints a page; a running gateway serves them all at /docs");
    Ok(())
}

/// Finds a page by its name or the name of its file; case does not matter.
fn find(name: &str) -> Result<&'static Page, Failure> {
    let bare = name.strip_suffix(".md").unwrap_or(name);
    docs::page(&bare.to_ascii_lowercase()).ok_or_else(|| {
        let names = docs::pages().iter().map(|page| page.name);
        let near = did_you_mean(bare, names);
        let near = match near.is_empty() {
            true => "; `syncgate docs` lists the pages".to_owned(),
            false => near,
        };
        Failure::usage(format!("unknown page \"{name}\"{near}"))
    })
}

fn show(page: &Page) -> Result<(), Failure> {
    match output::stdout_columns() {
        Some(columns) => output::print(&terminal::text(page.blocks, columns)),
        // A pipe gets the Markdown.
        None => output::print_verbatim(page.markdown),
    }
}
