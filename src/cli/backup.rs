//! `syncgate backup`: a copy of a data directory while its gateway runs, and back.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Failure, Output,
    doctor::{off_this_thread, renewed},
    output::{self, counted},
};
use crate::storage::embedded::backup::{self, Copied};

/// Name of the key that is made in the data directory if no other is configured.
const MASTER_KEY: &str = "master.key";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copies what is durable in a data directory, whether its gateway runs or not.
    Create(Create),
    /// Puts a copy into an empty data directory, and gives each stream a new incarnation.
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Directory for the copy; empty, or absent.
    to: PathBuf,
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Copies the master key that lies in the data directory, too: who has the copy can then open all tokens in it.
    #[arg(long)]
    with_master_key: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Directory with the copy.
    from: PathBuf,
    /// The data directory; empty, or absent.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
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
        data,
        with_master_key,
    } = arguments;
    let (copy_from, copy_to) = (data.clone(), to.clone());
    let copied = off_this_thread(move || backup::create(&copy_from, &copy_to)).await?;
    let copied = copied.map_err(|error| Failure::failed_by(&error))?;
    let has_key = data.join(MASTER_KEY).exists();
    if with_master_key {
        copy_key(&data, &to)?;
    }
    tell(&to, copied, output)?;
    if has_key && !with_master_key {
        output::say(&format!(
            "note: the master key is not in the copy, and without it no token in it can be opened; keep {} elsewhere",
            data.join(MASTER_KEY).display()
        ));
    }
    Ok(())
}

async fn restore(arguments: Restore, output: Output) -> Result<(), Failure> {
    let Restore { from, data } = arguments;
    let (copy_from, copy_to) = (from.clone(), data.clone());
    let copied = off_this_thread(move || backup::restore(&copy_from, &copy_to)).await?;
    let copied = copied.map_err(|error| Failure::failed_by(&error))?;
    if from.join(MASTER_KEY).exists() {
        copy_key(&from, &data)?;
    }
    renewed(&data).await?;
    tell(&data, copied, output)
}

/// Copies the key; nobody but its owner can read it at any moment.
fn copy_key(from: &Path, to: &Path) -> Result<(), Failure> {
    use std::{fs, io::Write, os::unix::fs::OpenOptionsExt};

    use crate::files::{self, VALUE_BYTES_MAX};
    let (from, to) = (from.join(MASTER_KEY), to.join(MASTER_KEY));
    let copied = files::read_unlinked(&from, VALUE_BYTES_MAX).and_then(|key| {
        let mut options = fs::File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&to)?;
        file.write_all(&key)?;
        file.sync_all()
    });
    copied.map_err(|error| {
        Failure::failed(format!(
            "cannot copy {} to {}: {error}",
            from.display(),
            to.display()
        ))
    })
}

fn tell(to: &Path, copied: Copied, output: Output) -> Result<(), Failure> {
    let (files, bytes) = (copied.files_len, copied.bytes);
    match output {
        Output::Json => {
            output::print_json(&json!({"directory": to, "files": files, "bytes": bytes}))
        }
        Output::Text => {
            let files = counted(files as u64, "file");
            output::print(&format!("{files}, {bytes} bytes, in {}\n", to.display()))
        }
    }
}
