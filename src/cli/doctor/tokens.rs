//! The tokens of targets that are sealed in a data directory: does the master key open them, and what waits for them?

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::off_this_thread;
use crate::{
    cli::{
        Failure, Output,
        output::{self, Table, counted},
        with_causes,
    },
    clock::Clock,
    config::Config,
    place::StreamName,
    record::{Record, header},
    secrets::{Found, Kept, KeySource, MasterKeyError, is_derived},
    storage::{
        Log,
        embedded::{Embedded, Options, RealDisk, at_rest::AtRest},
        shares::TOKENS_PREFIX,
    },
};

/// Rows of what waits; the records of further ones are only counted.
const ROWS_LEN_MAX: usize = 100;
/// Shown in place of the name of a token that came without one.
const NO_NAME: &str = "(no name)";

/// The sealed tokens of a directory, and the key that they need.
pub(super) struct Tokens {
    source: KeySource,
    kept: Kept,
    key: Key,
    /// The records that need a token; counted only where the key does not open the tokens.
    waiting: Option<Waiting>,
}

/// Whether the configured key opens the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Fits,
    Wrong,
    Missing,
    /// Why the key cannot be read. It may be the right one.
    Unreadable(String),
    /// A command prints the key, or the variable is not set here.
    NotTried,
}

/// Records without an end that need a sealed token.
#[derive(Debug, Default)]
struct Waiting {
    /// By stream and name of the secret.
    rows: BTreeMap<(String, String), u64>,
    /// Records that no row counts.
    others: u64,
    /// Partitions that could not be read to their ends.
    unreadable_len: usize,
}

impl Tokens {
    pub(super) async fn look(settings: &Config) -> Result<Self, Failure> {
        let (tokens, at_rest) = Self::open(settings).await?;
        match tokens.key {
            Key::Wrong | Key::Missing => Ok(tokens.with_waiting(&at_rest).await),
            Key::Fits | Key::Unreadable(_) | Key::NotTried => Ok(tokens),
        }
    }

    async fn open(settings: &Config) -> Result<(Self, AtRest), Failure> {
        let dir = settings.data.dir.clone();
        let at_rest = off_this_thread(move || AtRest::open(&dir)).await?;
        let at_rest = at_rest.map_err(|error| Failure::failed_by(&error))?;
        let kept = Kept::of(at_rest.state(TOKENS_PREFIX));
        let source = KeySource::of(&settings.secrets, &settings.data.dir);
        let key = key(&source, &kept);
        let tokens = Self {
            source,
            kept,
            key,
            waiting: None,
        };
        Ok((tokens, at_rest))
    }

    async fn with_waiting(mut self, at_rest: &AtRest) -> Self {
        let mut waiting = Waiting::default();
        let show = |stream: &StreamName, record: &Record| waiting.add(&self.kept, stream, record);
        let unreadable_len = at_rest.open_records(show).await;
        waiting.unreadable_len = unreadable_len;
        self.waiting = Some(waiting);
        self
    }

    /// Returns why a gateway does not start.
    pub(super) fn refusal(&self) -> Option<String> {
        let what = match &self.key {
            Key::Fits | Key::NotTried => return None,
            Key::Unreadable(why) => {
                return Some(format!(
                    "a gateway does not start with this directory: {why}"
                ));
            }
            Key::Wrong => "is not the one that the tokens were sealed with",
            Key::Missing => "is missing",
        };
        Some(format!(
            "a gateway does not start with this directory: the master key from {} {what}; put the right one there, or give \
             the tokens up: --forget-secrets",
            self.source
        ))
    }

    pub(super) fn json(&self) -> Value {
        let mut report = json!({
            "count": self.kept.tokens_len(),
            "masterKey": self.source.to_string(),
            "masterKeyFits": match self.key {
                Key::Fits => Some(true),
                Key::Wrong | Key::Missing => Some(false),
                Key::Unreadable(_) | Key::NotTried => None,
            },
        });
        if let Some(waiting) = &self.waiting {
            report["waiting"] = waiting.json();
        }
        report
    }

    pub(super) fn text(&self) -> String {
        let tokens = match self.kept.tokens_len() {
            0 => return "no token is sealed in it, so it needs no master key\n".into(),
            1 => "1 token is".into(),
            len => format!("{} are", counted(len as u64, "token")),
        };
        let key = match &self.key {
            Key::Fits => "which opens them",
            Key::Wrong => "which does not open them",
            Key::Missing => "which is missing",
            Key::Unreadable(_) => "which cannot be read",
            Key::NotTried => "which was not tried here",
        };
        let mut text = format!(
            "{tokens} sealed with the master key; a start takes it from {}, {key}\n",
            self.source
        );
        if let Some(waiting) = &self.waiting {
            text += "what --forget-secrets would give up:\n";
            text += &waiting.text(self.kept.tokens_len());
        }
        text
    }
}

/// Gives the tokens up, unless the key is there that opens them.
pub(super) async fn forget(settings: &Config, output: Output) -> Result<(), Failure> {
    let (mut tokens, at_rest) = Tokens::open(settings).await?;
    if tokens.kept.tokens_len() == 0 {
        return Err(Failure::failed(
            "no token is sealed in the directory; nothing was changed",
        ));
    }
    // What cannot be undone is worth a run of the command.
    if tokens.key == Key::NotTried {
        tokens.key = try_key(&tokens.source, &tokens.kept);
    }
    if tokens.key == Key::NotTried {
        return Err(Failure::failed(format!(
            "the master key from {} was not found here, so it may well open the tokens; make it available to this command, \
             or take that setting away if the key is lost; nothing was changed",
            tokens.source
        )));
    }
    if let Key::Unreadable(why) = &tokens.key {
        return Err(Failure::failed(format!("{why}; nothing was changed")));
    }
    if tokens.key == Key::Fits {
        return Err(Failure::failed(format!(
            "the master key from {} opens the tokens, so there is nothing to give up; move it away first if that is meant; \
             nothing was changed",
            tokens.source
        )));
    }
    let tokens = tokens.with_waiting(&at_rest).await;
    // The engine takes the lock again.
    drop(at_rest);
    let options = Options {
        dir: settings.data.dir.clone(),
        log: settings.log.clone(),
    };
    let open = || Embedded::open(options, Arc::new(RealDisk), Clock::system());
    let engine = off_this_thread(open).await?;
    let engine = engine.map_err(|error| Failure::failed_by(&error))?;
    let forgotten = Kept::forget(&*engine).await;
    engine.close().await;
    let tokens_len = forgotten.map_err(|error| Failure::failed_by(&error))?;
    let waiting = tokens.waiting.unwrap_or_default();
    match output {
        Output::Json => output::print_json(&json!({
            "forgotten": {"tokens": tokens_len, "waiting": waiting.json()},
        })),
        Output::Text => {
            let waiting = waiting.text(tokens_len);
            output::print(&format!("given up:\n{waiting}"))
        }
    }
}

/// A command may ask for a password or write to a log elsewhere, so none is run for a look.
fn key(source: &KeySource, kept: &Kept) -> Key {
    if kept.tokens_len() == 0 {
        return Key::Fits;
    }
    if matches!(source, KeySource::Command { .. }) {
        return Key::NotTried;
    }
    try_key(source, kept)
}

fn try_key(source: &KeySource, kept: &Kept) -> Key {
    match source.find(&CancellationToken::new()) {
        Ok(Found::Key(master)) if kept.is_opened_by(&master) => Key::Fits,
        Ok(Found::Missing(_)) => Key::Missing,
        // The operator's shell may lack the variable that the gateway has.
        Err(_) if matches!(source, KeySource::Variable(_)) => Key::NotTried,
        Ok(Found::Key(_)) | Err(MasterKeyError::Malformed { .. }) => Key::Wrong,
        Err(error) => Key::Unreadable(with_causes(&error)),
    }
}

impl Waiting {
    fn add(&mut self, kept: &Kept, stream: &StreamName, record: &Record) {
        let source = record.headers.get(header::SOURCE).unwrap_or_default();
        let name = record.headers.get(header::SECRET_NAME);
        let Some(name) = name.filter(|name| kept.has(source, name)) else {
            return;
        };
        let name = if is_derived(name) { NO_NAME } else { name };
        let row = (stream.to_string(), name.to_owned());
        if let Some(records) = self.rows.get_mut(&row) {
            *records += 1;
        } else if self.rows.len() < ROWS_LEN_MAX {
            self.rows.insert(row, 1);
        } else {
            self.others += 1;
        }
    }

    fn records_len(&self) -> u64 {
        self.rows.values().sum::<u64>() + self.others
    }

    fn json(&self) -> Value {
        let row = |((stream, secret), records): (&(String, String), &u64)| {
            let secret = Some(secret).filter(|secret| *secret != NO_NAME);
            json!({"stream": stream, "secret": secret, "records": records})
        };
        json!({
            "records": self.records_len(),
            "by": self.rows.iter().map(row).collect::<Vec<_>>(),
            "otherRecords": self.others,
            "unreadablePartitions": self.unreadable_len,
        })
    }

    fn text(&self, tokens_len: usize) -> String {
        let tokens = counted(tokens_len as u64, "token");
        let records_len = self.records_len();
        let mut text = format!("  {tokens}; open records that need one: {records_len}\n");
        if records_len > 0 {
            let mut table = Table::new(&["  STREAM", "SECRET", ">RECORDS"]);
            for ((stream, secret), records) in &self.rows {
                table.row([format!("  {stream}"), secret.clone(), records.to_string()]);
            }
            text += &table.text();
            if self.others > 0 {
                let others = counted(self.others, "record");
                text += &format!("  and {others} with other secrets\n");
            }
            text += "  They fail with the cause `secret`. Post a message with a new token under the same name, then retry \
                     them. Those without a name cannot get another token.\n";
        }
        if self.unreadable_len > 0 {
            let partitions = counted(self.unreadable_len as u64, "partition");
            text += &format!("  and what cannot be read of {partitions}, which is damaged\n");
        }
        text
    }
}
