//! `syncgate doctor`: what is damaged in a data directory, what that means, and what can be done.

mod tokens;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use self::tokens::Tokens;
use super::{
    DataDir, Failure, Output,
    output::{self, Table, counted},
};
use crate::{
    runtime::clock::Clock,
    storage::local::LogSettings,
    storage::local::{
        Options,
        repair::doctor::{
            Accepted, Examined, FileState, LossReport, LostFile, LostRecords, accept_loss, examine,
            rebuild_index, renew,
        },
    },
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data_dir: DataDir,
    /// Makes the index anew from the journal; the old one is moved to damaged/index.
    #[arg(long)]
    rebuild_index: bool,
    /// The directory was restored from a copy: gives each stream a new incarnation, so that nobody takes its records for
    /// those that had the same offsets after the copy was made.
    #[arg(long, conflicts_with = "rebuild_index")]
    restored: bool,
    /// Gives up what cannot be read of a damaged file of the journal, so that a gateway starts and passes it over; says
    /// exactly what is lost. The file is kept in damaged/. Once for each file that is damaged.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rebuild_index", "restored"])]
    accept_loss: Vec<PathBuf>,
    /// Gives up all tokens of targets that are sealed in the directory, as nobody can open them without their master key;
    /// says which records wait for them. A gateway starts then, and makes a new key where none is.
    #[arg(long, conflicts_with_all = ["rebuild_index", "restored", "accept_loss"])]
    forget_secrets: bool,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let settings = arguments.data_dir.settings()?.config;
    let dir = settings.data.dir.clone();
    super::make_private_files();
    if arguments.forget_secrets {
        return tokens::forget(&settings, output).await;
    }
    if arguments.restored {
        let streams_len = renewed(&dir, &settings.log).await?;
        return match output {
            Output::Json => output::print_json(&json!({"renewedStreams": streams_len})),
            Output::Text => {
                let streams = counted(streams_len as u64, "stream");
                output::print(&format!("{streams} with a new incarnation\n"))
            }
        };
    }
    if !arguments.accept_loss.is_empty() {
        let files = arguments.accept_loss;
        let accept = move || accept_loss(&dir, &files, &Clock::system());
        let accepted = off_this_thread(accept).await?;
        let report = accepted.map_err(|error| Failure::failed_by(&error))?;
        return match output {
            Output::Json => output::print_json(&json!({"accepted": loss_report(&report)})),
            Output::Text => output::print(&loss_text(&report, Tense::Past)),
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
    let shown_dir = dir.clone();
    let examined = off_this_thread(move || examine(&dir)).await?;
    let examined = examined.map_err(|error| Failure::failed_by(&error))?;
    let tokens = match &examined.refusal {
        None => Some(Tokens::look(&settings).await?),
        // Without the journal nobody knows which tokens are sealed.
        Some(_) => None,
    };
    match output {
        Output::Json => {
            let mut report = report(&examined);
            if let Some(tokens) = &tokens {
                report["tokens"] = tokens.json();
                report["starts"] = tokens.refusal().is_none().into();
                report["refusal"] = tokens.refusal().into();
            }
            output::print_json(&report)?;
        }
        Output::Text => output::print(&text(&examined, tokens.as_ref(), &shown_dir))?,
    }
    if let Some(refusal) = tokens.as_ref().and_then(Tokens::refusal) {
        return Err(Failure::failed(refusal));
    }
    let damaged = examined.files.iter().any(|file| !file.damages.is_empty());
    match (&examined.refusal, damaged) {
        (Some(refusal), _) => Err(Failure::failed_by(refusal)),
        (None, true) => Err(Failure::failed(
            "a gateway starts with this directory, but what is damaged in it cannot be read, and dispatch waits there; \
             restore a backup, or go on without it: --accept-loss FILE",
        )),
        (None, false) => Ok(()),
    }
}

/// Gives every stream of a directory a new incarnation.
pub(super) async fn renewed(dir: &Path, log: &LogSettings) -> Result<usize, Failure> {
    let options = Options {
        dir: dir.into(),
        log: log.clone(),
    };
    // Whoever mistypes the name of the directory must not get a new one.
    if !dir.join("journal").is_dir() {
        let what = format!("{} holds no journal", dir.display());
        return Err(Failure::failed(what));
    }
    let renewed = renew(options, Clock::system()).await;
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
        let damage = |damage: &crate::storage::local::repair::doctor::Damage| json!({"at": damage.at, "what": damage.what, "goodAt": damage.good_at});
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
        "wouldLose": examined.loss.as_ref().map(loss_report),
        "openToOthers": {"count": examined.exposed.len, "paths": examined.exposed.paths},
        "acceptedLosses": examined.accepted.iter().map(accepted).collect::<Vec<_>>(),
    })
}

fn accepted(accepted: &Accepted) -> Value {
    json!({
        "time": accepted.time.to_string(),
        "files": accepted.files,
        "bytes": accepted.bytes,
        "frames": accepted.frames,
        "recordsEnded": accepted.ended,
        "recordsOpen": accepted.open,
    })
}

fn loss_report(report: &LossReport) -> Value {
    let file = |file: &LostFile| {
        json!({
            "file": file.path,
            "missing": file.missing,
            "bytes": file.bytes,
            "frames": file.frames,
            "keptAs": file.kept_as,
        })
    };
    let records = |lost: &LostRecords| {
        let range = |(first, last): &(crate::model::ids::Offset, crate::model::ids::Offset)| json!({"first": first.0, "last": last.0});
        json!({
            "stream": lost.stream.to_string(),
            "partition": lost.partition,
            "offsets": lost.ranges.iter().map(range).collect::<Vec<_>>(),
            "ended": lost.ended,
            "open": lost.open,
        })
    };
    let stranger = |(number, len): &(u32, u64)| json!({"number": number, "records": len});
    json!({
        "files": report.files.iter().map(file).collect::<Vec<_>>(),
        "records": report.partitions.iter().map(records).collect::<Vec<_>>(),
        "moreMayBeLost": report.unknown,
        "renewedStreams": report.renewed,
        "trimmedSince": report.trimmed,
        "unknownStreams": report.strangers.iter().map(stranger).collect::<Vec<_>>(),
        "grownStreams": report.grown,
        "deletedStreams": report.deleted,
        "missingState": report.missing_state,
    })
}

/// Whether it is done, or would be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tense {
    Past,
    Future,
}

fn loss_text(report: &LossReport, tense: Tense) -> String {
    let mut text = String::new();
    let mut line = |what: String| {
        text += &what;
        text.push('\n');
    };
    line(match tense {
        Tense::Past => "given up:".into(),
        Tense::Future => "what --accept-loss would give up:".into(),
    });
    for file in &report.files {
        let name = file.path.display();
        let kept = match &file.kept_as {
            Some(kept) => format!("; the file as it was is {}", kept.display()),
            None => String::new(),
        };
        let bytes = counted(file.bytes, "byte");
        let frames = counted(file.frames, "whole frame");
        line(match file.missing {
            true => format!("  {name}: it is missing, with {frames}"),
            false => format!("  {name}: {bytes}, {frames}{kept}"),
        });
    }
    if report.partitions.is_empty() {
        line("  no record that is known".into());
    }
    for lost in &report.partitions {
        let range =
            |(first, last): &(crate::model::ids::Offset, crate::model::ids::Offset)| match first
                == last
            {
                true => first.to_string(),
                false => format!("{first} to {last}"),
            };
        let ranges: Vec<_> = lost.ranges.iter().map(range).collect();
        line(format!(
            "  {}/{}: offsets {}; {} had ended, {} had not",
            lost.stream,
            lost.partition,
            ranges.join(", "),
            lost.ended,
            lost.open
        ));
    }
    if report.trimmed > 0 {
        let trimmed = counted(report.trimmed, "lost record");
        line(format!(
            "  {trimmed} without an end that retention removed later"
        ));
    }
    for (number, len) in &report.strangers {
        let records = counted(*len, "record");
        line(format!(
            "  a stream that was made in what is lost, the journal's number {number}, with {records} behind it"
        ));
    }
    for name in &report.grown {
        line(format!(
            "  how {name} grew: it may have more partitions than it has now"
        ));
    }
    for name in &report.deleted {
        line(format!(
            "  how the {name} of before was deleted; another one has its name"
        ));
    }
    for key in &report.missing_state {
        line(format!("  state that records need: {key}"));
    }
    if report.unknown {
        line(
            "perhaps more, which nobody can know: changes of streams, settings and secrets; ends, so that records are \
             delivered again; ids of requests; the newest records of a partition"
                .into(),
        );
        line(match tense {
            Tense::Past => format!(
                "{} with a new incarnation, so that no message id is used twice",
                counted(report.renewed as u64, "stream")
            ),
            Tense::Future => "so each stream would get a new incarnation".into(),
        });
    }
    text
}

fn text(examined: &Examined, tokens: Option<&Tokens>, dir: &Path) -> String {
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
    for accepted in &examined.accepted {
        let files: Vec<_> = accepted.files.iter().map(u64::to_string).collect();
        let records = counted(accepted.open + accepted.ended, "record");
        text += &format!(
            "a loss was accepted at {}: files {}, {} and {}, {records} of which {} had not ended\n",
            accepted.time,
            files.join(", "),
            counted(accepted.bytes, "byte"),
            counted(accepted.frames, "whole frame"),
            accepted.open
        );
    }
    if let Some(path) = examined.exposed.paths.first() {
        text += &format!(
            "others than the owner have rights to {}, such as {}; take them away: chmod -R go= {}\n",
            entries(examined.exposed.len),
            path.display(),
            dir.display()
        );
    }
    if let Some(loss) = &examined.loss {
        text += &loss_text(loss, Tense::Future);
    }
    if let Some(tokens) = tokens {
        text += &tokens.text();
    }
    if examined.refusal.is_none() && tokens.is_none_or(|tokens| tokens.refusal().is_none()) {
        text += "a gateway starts with this directory\n";
    }
    text
}

fn entries(len: usize) -> String {
    match len {
        1 => "one file or directory".into(),
        len => format!("{len} files and directories"),
    }
}

fn damage_text(damage: &crate::storage::local::repair::doctor::Damage) -> String {
    let behind = match damage.good_at {
        Some(good_at) => format!(", good again from byte {good_at} on"),
        None => String::new(),
    };
    format!("damaged at byte {}: {}{behind}", damage.at, damage.what)
}
