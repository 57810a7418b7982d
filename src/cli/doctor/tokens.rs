//! The sealed target tokens of a data directory: whether the master key opens them, and which records wait for them.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::off_this_thread;
use crate::{
    cli::{
        Failure, Output,
        output::{self, Table, counted},
        with_causes,
    },
    config::Config,
    model::{
        ids::StreamName,
        record::{Record, header},
    },
    runtime::clock::Clock,
    secrets::{Commands, Kept, KeySource, MasterKeyError, Trial, is_derived},
    storage::{
        Log,
        embedded::Embedded,
        local::{Options, RealDisk, open::at_rest::AtRest},
        shares::TOKENS_PREFIX,
    },
};

/// Rows of the table; the records of further rows are only counted.
const ROWS_LEN_MAX: usize = 100;
/// Shown in place of the name of a token that came without one.
const NO_NAME: &str = "(no name)";

/// The sealed tokens of a directory, and the key that they need.
pub(super) struct Tokens {
    source: KeySource,
    kept: Kept,
    key: Trial,
    /// The records that need a token; counted only if the key does not open the tokens.
    waiting: Option<Waiting>,
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
        let is_lost = tokens.kept.tokens_len() > 0 && tokens.key.opens() == Some(false);
        match is_lost {
            true => Ok(tokens.with_waiting(&at_rest).await),
            false => Ok(tokens),
        }
    }

    async fn open(settings: &Config) -> Result<(Self, AtRest), Failure> {
        let dir = settings.data.dir.clone();
        let at_rest = off_this_thread(move || AtRest::open(&dir)).await?;
        let at_rest = at_rest.map_err(|error| Failure::failed_by(&error))?;
        let kept = Kept::of(at_rest.state(TOKENS_PREFIX));
        let source = KeySource::of(&settings.secrets, &settings.data.dir);
        // Don't run a key command only to report, because it may ask for a password or write an audit log.
        let key = source.try_on(&kept, &settings.data.dir, Commands::Skipped);
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

    /// Returns why a gateway does not start, in the words of the start.
    pub(super) fn refusal(&self) -> Option<String> {
        let error = match &self.key {
            // The operator's shell may lack the variable that the gateway has.
            Trial::Opens
            | Trial::NotNeeded
            | Trial::Skipped
            | Trial::Refused(MasterKeyError::EnvMissing(_)) => return None,
            Trial::Refused(error) => error,
        };
        let is_malformed = matches!(error, MasterKeyError::Malformed { .. });
        let or = match is_malformed && self.kept.tokens_len() > 0 {
            true => {
                "\nif that key is lost for good, --forget-secrets discards the tokens, and records that need them fail"
            }
            false => "",
        };
        let why = with_causes(error);
        Some(format!(
            "a gateway does not start with this directory: {why}{or}"
        ))
    }

    /// Returns why the tokens are not given up; `None` if nothing opens them any more.
    fn why_kept(&self) -> Option<String> {
        let source = &self.source;
        match &self.key {
            Trial::Opens | Trial::NotNeeded => Some(format!(
                "the master key from {source} opens the tokens, so there is nothing to give up; move it away first if that \
                 is meant"
            )),
            Trial::Skipped | Trial::Refused(MasterKeyError::EnvMissing(_)) => Some(format!(
                "the master key from {source} was not found here, so it may well open the tokens; make it available to this \
                 command, or take that setting away if the key is lost"
            )),
            // The gateway's environment may have the right value.
            Trial::Refused(error @ MasterKeyError::Malformed { .. })
                if matches!(self.source, KeySource::Variable(_)) =>
            {
                Some(with_causes(error))
            }
            Trial::Refused(_) if self.key.opens() == Some(false) => None,
            Trial::Refused(error) => Some(with_causes(error)),
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut report = json!({
            "count": self.kept.tokens_len(),
            "masterKey": self.source.to_string(),
            "masterKeyFits": self.key.opens(),
        });
        if let Some(waiting) = &self.waiting {
            report["waiting"] = waiting.json();
        }
        report
    }

    pub(super) fn text(&self) -> String {
        let key = match &self.key {
            Trial::Opens => "which opens them",
            Trial::NotNeeded => "which is not there yet",
            Trial::Skipped => "which was not run here",
            Trial::Refused(error) => match error {
                MasterKeyError::Wrong { .. } => "which does not open them",
                MasterKeyError::Missing { .. } => "which is missing",
                MasterKeyError::Malformed { .. } => "which holds no key",
                MasterKeyError::EnvMissing(_) => "which is not set here",
                MasterKeyError::Exposed { .. } => "which is open to others",
                MasterKeyError::Command { .. }
                | MasterKeyError::File { .. }
                | MasterKeyError::NoRandom => "which cannot be read",
            },
        };
        let tokens = match self.kept.tokens_len() {
            0 if self.refusal().is_none() => {
                return "no token is sealed in it, so it needs no master key\n".into();
            }
            0 => {
                let source = &self.source;
                return format!(
                    "no token is sealed in it; a start takes the master key from {source}, {key}\n"
                );
            }
            1 => "1 token is".into(),
            len => format!("{} are", counted(len as u64, "token")),
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

/// Gives the tokens up, unless the master key opens them.
pub(super) async fn forget(settings: &Config, output: Output) -> Result<(), Failure> {
    let (mut tokens, at_rest) = Tokens::open(settings).await?;
    if tokens.kept.tokens_len() == 0 {
        return Err(Failure::failed(
            "no token is sealed in the directory; nothing was changed",
        ));
    }
    // Run the key command here, because the loss is final.
    if matches!(tokens.key, Trial::Skipped) {
        let tried = tokens
            .source
            .try_on(&tokens.kept, &settings.data.dir, Commands::Run);
        tokens.key = tried;
    }
    if let Some(why) = tokens.why_kept() {
        return Err(Failure::failed(format!("{why}; nothing was changed")));
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
