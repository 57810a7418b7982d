//! `syncgate man`: manual pages of all commands, from their help.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::Man;
use serde_json::{Value, json};

use super::{Cli, Failure, Output, output};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Writes the page of each command into this directory, such as /usr/share/man/man1. Without it all pages go to standard
    /// output, one after the other, for `man -l -`.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A manual page.
struct Page {
    /// `syncgate-streams-ls.1`
    file: String,
    roff: Vec<u8>,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages)?;
    if let Some(dir) = &arguments.dir {
        fs::create_dir_all(dir).map_err(|error| cannot_write(dir, &error))?;
        for page in &pages {
            let path = dir.join(&page.file);
            fs::write(&path, &page.roff).map_err(|error| cannot_write(&path, &error))?;
        }
    }
    let text = |page: &Page| String::from_utf8_lossy(&page.roff).into_owned();
    match (output, &arguments.dir) {
        (Output::Json, dir) => {
            let page = |page: &Page| match dir {
                Some(dir) => json!({"file": dir.join(&page.file).display().to_string()}),
                None => json!({"file": page.file, "roff": text(page)}),
            };
            let pages: Vec<Value> = pages.iter().map(page).collect();
            output::print_json(&json!({"pages": pages}))
        }
        (Output::Text, Some(dir)) => {
            let pages = output::counted(pages.len() as u64, "page");
            output::print(&format!("{pages} written to {}\n", dir.display()))
        }
        (Output::Text, None) => output::print_verbatim(&pages.iter().map(text).collect::<String>()),
    }
}

/// A command's page, and then those of its subcommands.
fn add_pages(command: &clap::Command, pages: &mut Vec<Page>) -> Result<(), Failure> {
    let page = Man::new(command.clone());
    let mut roff = Vec::new();
    let rendered = page.render(&mut roff);
    rendered.map_err(|error| Failure::failed(format!("no manual page: {error}")))?;
    pages.push(Page {
        file: page.get_filename(),
        roff,
    });
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
    shown.into_iter().try_for_each(|c| add_pages(c, pages))
}

fn cannot_write(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}
