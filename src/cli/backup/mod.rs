//! `syncgate backup`: copies a data directory while its gateway runs, and restores a copy.

mod needs;

use std::path::{Path, PathBuf, absolute};

use clap::{Args, Subcommand};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::needs::{KeyPlace, Needs};
use super::{
    DataDir, Failure, Output,
    doctor::{off_this_thread, renewed},
    next,
    output::{self, counted},
    serve::Stops,
    with_causes,
};
use crate::{
    secrets::{Commands, Found, Kept, KeyFile, KeySource, MasterKey, MasterKeyError, Trial},
    storage::{
        local::repair::backup::{self, BackupError, Copied, Copy},
        shares::TOKENS_PREFIX,
    },
};

/// Exit code of a command that Ctrl-C has ended: 128 and the number of the signal, as shells have it.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copies a data directory, whether its gateway runs or not, and lists what a restore needs beside the copy.
    Create(Create),
    /// Restores a copy to a data directory that is empty or absent, and gives each stream a new incarnation.
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Directory for the copy; empty or absent. Until the copy is complete it is named DIR.incomplete.
    to: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
    /// Copies the file with the master key, too: anyone who has the copy can then open all tokens in it.
    #[arg(long)]
    with_master_key: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Directory with the copy.
    from: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
}

pub(super) async fn run(command: Command, output: Output) -> Result<(), Failure> {
    super::make_private_files();
    match command {
        Command::Create(arguments) => create(arguments, output).await,
        Command::Restore(arguments) => restore(arguments, output).await,
    }
}

async fn create(arguments: Create, output: Output) -> Result<(), Failure> {
    let Create {
        to,
        data_dir,
        with_master_key,
    } = arguments;
    let settings = data_dir.settings()?;
    let data = settings.config.data.dir.clone();
    let source = KeySource::of(&settings.config.secrets, &data);
    // The key is read before the copy is made, because a missing or malformed key fails without a copy too.
    let master = match with_master_key {
        true => Some(key_of_file(&source)?),
        false => None,
    };
    let (needs, copied) = until_a_signal(async |stop| {
        let (told, copy_from, copy_to) = (stop.clone(), data.clone(), to.clone());
        let copy = off_this_thread(move || backup::create(&copy_from, &copy_to, &told)).await?;
        let copy = copy.map_err(|error| Failure::failed_by(&error))?;
        say_replaced(&copy);
        for left in backup::leftovers(&to) {
            output::say(&format!(
                "note: {} is what a backup has left that was cut off; remove it",
                left.display()
            ));
        }
        let kept = Kept::of(copy.state(TOKENS_PREFIX));
        if let Some(master) = &master {
            put_key(master, &source, &kept, copy.dir())?;
        }
        let key_place = KeyPlace::of(&source, &kept, with_master_key);
        // A wrong key is only a warning, because the copy is useful without it.
        let trial = source.try_on(&kept, &data, Commands::Skipped);
        let needs = Needs::of(&settings, &to, key_place, kept.tokens_len(), &trial)?;
        if kept.tokens_len() > 0
            && let Some(warning) = key_warning(&trial, &source)
        {
            output::say(&format!("warning: {warning}"));
        }
        let copied = complete(copy, &stop)?;
        Ok((needs, copied))
    })
    .await?;
    match output {
        Output::Json => {
            let mut report = needs.json();
            report["directory"] = json!(to);
            report["files"] = copied.files_len.into();
            report["bytes"] = copied.bytes.into();
            output::print_json(&report)
        }
        Output::Text => output::print(&format!("{}\n{}", line(copied, &to), needs.text())),
    }
}

async fn restore(arguments: Restore, output: Output) -> Result<(), Failure> {
    let Restore { from, data_dir } = arguments;
    let settings = data_dir.settings()?;
    let data = settings.config.data.dir.clone();
    let source = KeySource::of(&settings.config.secrets, &data);
    let (kept, copied) = until_a_signal(async |stop| {
        let (told, copy_from, copy_to) = (stop.clone(), from.clone(), data.clone());
        let copy = off_this_thread(move || backup::restore(&copy_from, &copy_to, &told)).await?;
        let copy = copy.map_err(|error| Failure::failed_by(&error))?;
        say_replaced(&copy);
        let kept = Kept::of(copy.state(TOKENS_PREFIX));
        // The copy's key is restored only if the start looks for it in the data directory.
        let in_copy = KeySource::File(KeyFile::in_dir(&from));
        if is_in(&source, &data)
            && let Found::Key(master) = found(&in_copy)?
        {
            put_key(&master, &in_copy, &kept, copy.dir())?;
        }
        renewed(copy.dir(), &settings.config.log).await?;
        let copied = complete(copy, &stop)?;
        Ok((kept, copied))
    })
    .await?;
    let trial = source.try_on(&kept, &data, Commands::Skipped);
    match output {
        Output::Json => {
            let (files, bytes) = (copied.files_len, copied.bytes);
            let missing = match &trial {
                Trial::Refused(MasterKeyError::Missing { path, .. }) => Some(path),
                _ => None,
            };
            output::print_json(&json!({
                "directory": data, "files": files, "bytes": bytes, "missingMasterKey": missing,
                "masterKeyFits": trial.opens(),
            }))?;
        }
        Output::Text => output::print(&line(copied, &data))?,
    }
    if kept.tokens_len() > 0
        && let Some(note) = key_note(&trial, &kept, &data)
    {
        output::say(&format!("note: {note}"));
    }
    Ok(())
}

/// Returns a warning if the present master key does not open the tokens of the copy, or was not tried.
fn key_warning(trial: &Trial, source: &KeySource) -> Option<String> {
    let unknown = "so it is not known whether it opens the tokens in the copy";
    match trial {
        Trial::Opens | Trial::NotNeeded => None,
        Trial::Skipped => Some(format!(
            "the master key from {source} was not tried, because a backup runs no command, {unknown}"
        )),
        Trial::Refused(MasterKeyError::Missing { path, .. }) => Some(format!(
            "the master key file {} is missing here; without it the copy does not start",
            path.display()
        )),
        Trial::Refused(MasterKeyError::Wrong { .. }) => Some(format!(
            "the master key from {source} does not open the tokens in the copy; find the one that they were sealed with, \
             because the copy does not start with this one"
        )),
        Trial::Refused(error) if trial.opens() == Some(false) => Some(format!(
            "{}; the copy does not start with this one",
            with_causes(error)
        )),
        Trial::Refused(error) => Some(format!(
            "the master key could not be tried ({}), {unknown}",
            with_causes(error)
        )),
    }
}

/// Returns what to do about the master key before the start.
fn key_note(trial: &Trial, kept: &Kept, data: &Path) -> Option<String> {
    let tokens = counted(kept.tokens_len() as u64, "token");
    match trial {
        Trial::Opens | Trial::NotNeeded | Trial::Skipped => None,
        Trial::Refused(MasterKeyError::Missing { path, .. }) => {
            let options = next::Options::given([("--data", data.display().to_string())]);
            Some(format!(
                "the master key of {tokens} is not there yet: put it at {} before the start. If that key is lost for good, \
                 {} discards the tokens, and records that need them fail",
                path.display(),
                options.command(["doctor", "--forget-secrets"])
            ))
        }
        Trial::Refused(error) => Some(format!("a start would refuse: {}", with_causes(error))),
    }
}

/// Makes a copy. A signal stops it and removes the copy; a second signal does not wait for the removal.
async fn until_a_signal<T>(
    make: impl AsyncFnOnce(CancellationToken) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut stops = Stops::new()?;
    let stop = CancellationToken::new();
    let mut made = std::pin::pin!(make(stop.clone()));
    let mut is_interrupted = false;
    let made = loop {
        tokio::select! {
            made = &mut made => break made,
            is_interrupt = stops.next_is_interrupt() => {
                is_interrupted |= is_interrupt;
                if stop.is_cancelled() {
                    break Err(Failure::failed(
                        "ended by a second signal; the next run tells what is left, and removes it",
                    ));
                }
                stop.cancel();
            }
        }
    };
    made.map_err(|failure| match is_interrupted {
        true => Failure {
            code: INTERRUPTED,
            ..failure
        },
        false => failure,
    })
}

/// Renames a copy to its final name, unless a signal came.
fn complete(copy: Copy, stop: &CancellationToken) -> Result<Copied, Failure> {
    let copied = copy.copied();
    let finished = match stop.is_cancelled() {
        true => Err(BackupError::Stopped),
        false => copy.complete(),
    };
    finished.map_err(|error| Failure::failed_by(&error))?;
    Ok(copied)
}

fn say_replaced(copy: &Copy) {
    if copy.replaced_leftover() {
        output::say("note: an earlier run was cut off here; what it had left is removed");
    }
}

fn found(source: &KeySource) -> Result<Found, Failure> {
    let found = source.find(&CancellationToken::new());
    found.map_err(|error| Failure::failed_by(&error))
}

fn key_of_file(source: &KeySource) -> Result<MasterKey, Failure> {
    if !matches!(source, KeySource::File(_)) {
        return Err(Failure::usage(format!(
            "the master key comes from {source}, so there is no file to copy; leave --with-master-key out"
        )));
    }
    match found(source)? {
        Found::Key(master) => Ok(master),
        Found::Missing(file) => Err(Failure::failed(format!(
            "the master key file {} is missing; leave --with-master-key out, or put it back",
            file.path().display()
        ))),
    }
}

/// Puts a key into the directory of a copy. A key that does not open the tokens is refused, because it would mislead.
fn put_key(master: &MasterKey, from: &KeySource, kept: &Kept, dir: &Path) -> Result<(), Failure> {
    if !kept.is_opened_by(master) {
        return Err(Failure::failed(format!(
            "the master key from {from} is not the one that the tokens in the copy were sealed with"
        )));
    }
    let put = master.keep(&KeyFile::in_dir(dir));
    put.map_err(|error| Failure::failed_by(&error))
}

/// Returns whether a start looks for the key in the data directory, under its default name.
fn is_in(source: &KeySource, data: &Path) -> bool {
    match source {
        KeySource::File(file) => {
            absolute(file.path()).ok() == absolute(data.join(KeyFile::NAME)).ok()
        }
        KeySource::Command { .. } | KeySource::Variable(_) => false,
    }
}

fn line(copied: Copied, to: &Path) -> String {
    let files = counted(copied.files_len as u64, "file");
    format!("{files}, {} bytes, in {}\n", copied.bytes, to.display())
}
