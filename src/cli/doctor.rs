//! `syncgate doctor`: what is damaged in a data directory, what that means, and what can be done.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Failure, Output,
    output::{self, Table, counted},
};
use crate::{
    config::LogSettings,
    storage::embedded::{
        Options,
        doctor::{Examined, FileState, examine, rebuild_index, renew},
    },
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The data directory; no gateway may work with it meanwhile.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Makes the index anew from the journal; the old one is moved to damaged/index.
    #[arg(long)]
    rebuild_index: bool,
    /// The directory was restored from a copy: gives each stream a new incarnation, so that nobody takes its records for
    /// those that had the same offsets after the copy was made.
    #[arg(long, conflicts_with = "rebuild_index")]
    restored: bool,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let dir = arguments.data;
    if arguments.restored {
        let streams_len = renewed(&dir).await?;
        return match output {
            Output::Json => output::print_json(&json!({"renewedStreams": streams_len})),
            Output::Text => {
                let streams = counted(streams_len as u64, "stream");
                output::print(&format!("{streams} with a new incarnation\n"))
            }
        };
    }
    if arguments.rebuild_index {
        let rebuild = off_this_thread(move || rebuild_index(&dir)).await?;
        let files_len = rebuild.map_err(|error| Failure::failed_by(&error))?;
        return match output {
            Output::Json => output::print_json(&json!({"indexedFiles": files_len})),
            Output::Text => {
                let files = counted(files_len as u64, "file");
                output::print(&format!("{files} in the new index\n"))
            }
        };
    }
    let examined = off_this_thread(move || examine(&dir)).await?;
    let examined = examined.map_err(|error| Failure::failed_by(&error))?;
    match output {
        Output::Json => output::print_json(&report(&examined))?,
        Output::Text => output::print(&text(&examined))?,
    }
    let damaged = examined.files.iter().any(|file| !file.damages.is_empty());
    match (&examined.refusal, damaged) {
        (Some(refusal), _) => Err(Failure::failed_by(refusal)),
        (None, true) => Err(Failure::failed(
            "a gateway starts with this directory, but what is damaged in it cannot be read; restore a backup if it is \
             needed",
        )),
        (None, false) => Ok(()),
    }
}

/// Gives every stream of a directory a new incarnation.
pub(super) async fn renewed(dir: &Path) -> Result<usize, Failure> {
    let options = Options {
        dir: dir.into(),
        log: LogSettings::default(),
    };
    // Whoever mistypes the name of the directory must not get a new one.
    if !dir.join("journal").is_dir() {
        let what = format!("{} holds no journal", dir.display());
        return Err(Failure::failed(what));
    }
    let renewed = renew(options).await;
    renewed.map_err(|error| Failure::failed_by(&error))
}

pub(super) async fn off_this_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::failed_by(&error))
}

fn report(examined: &Examined) -> Value {
    let file = |file: &FileState| {
        let damage = |damage: &crate::storage::embedded::doctor::Damage| json!({"at": damage.at, "what": damage.what, "goodAt": damage.good_at});
        json!({
            "file": file.path,
            "bytes": file.bytes,
            "frames": file.frames_len,
            "shortened": file.shortened,
            "torn": file.torn,
            "damages": file.damages.iter().map(damage).collect::<Vec<_>>(),
        })
    };
    json!({
        "files": examined.files.iter().map(file).collect::<Vec<_>>(),
        "hasIndex": examined.has_index,
        "starts": examined.refusal.is_none(),
        "refusal": examined.refusal.as_ref().map(ToString::to_string),
    })
}

fn text(examined: &Examined) -> String {
    let mut table = Table::new(&["FILE", ">BYTES", ">FRAMES", "STATE"]);
    for file in &examined.files {
        let name = file.path.file_name().unwrap_or_default();
        let mut states: Vec<_> = file.damages.iter().map(damage_text).collect();
        states
            .extend(file.torn.map(|at| {
                format!("the last write was cut at byte {at}; it had not been answered")
            }));
        if states.is_empty() {
            states.push("good".into());
        }
        if file.shortened {
            states.push("holds what was left of it".into());
        }
        let frames = file.frames_len.to_string();
        table.row([
            name.to_string_lossy().into_owned(),
            file.bytes.to_string(),
            frames,
            states.join("; "),
        ]);
    }
    let mut text = table.text();
    text += match examined.has_index {
        true => "there is an index; if it is not good, a start makes it anew\n",
        false => "there is no index; a start makes it\n",
    };
    if examined.refusal.is_none() {
        text += "a gateway starts with this directory\n";
    }
    text
}

fn damage_text(damage: &crate::storage::embedded::doctor::Damage) -> String {
    let behind = match damage.good_at {
        Some(good_at) => format!(", good again from byte {good_at} on"),
        None => String::new(),
    };
    format!("damaged at byte {}: {}{behind}", damage.at, damage.what)
}
