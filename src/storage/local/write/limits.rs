//! Checks of sizes that need no stored data.

use std::collections::HashSet;

use crate::storage::{
    Commit, CommitError, NewSettlement, PurgeNote, REPLY_BYTES_MAX, STATE_BYTES_MAX, StreamConfig,
};

use crate::storage::local::{COMMIT_BYTES_MAX, PARTITIONS_MAX, format::block};

const STATE_KEY_BYTES_MAX: usize = 512;
const RECORD_KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Small, because every change of a stream writes the config again.
const STREAM_CONFIG_BYTES_MAX: usize = 64 << 10;
/// Small, because every change of a stream writes the note again.
const PURGE_NOTE_BYTES_MAX: usize = 8 << 10;

/// Checks the sizes of a commit. Returns its size for the bound of the queue.
pub(in crate::storage) fn check(commit: &Commit) -> Result<usize, CommitError> {
    let too_large = |what, bytes, bytes_max| CommitError::TooLarge {
        what,
        bytes,
        bytes_max,
    };
    let mut all = 80 * commit.settles.len();
    for settle in &commit.settles {
        if let NewSettlement::Routed { append } | NewSettlement::Moved { append } = settle.end
            && append >= commit.appends.len()
        {
            let most = commit.appends.len().saturating_sub(1);
            return Err(too_large(
                "the index of a settlement's append",
                append,
                most,
            ));
        }
    }
    if let Some(dedup) = &commit.dedup {
        let streams: HashSet<_> = commit.appends.iter().map(|a| a.of.stream).collect();
        if streams.len() != 1 {
            let what = "the number of streams of a commit with an id";
            return Err(too_large(what, streams.len(), 1));
        }
        if dedup.reply.len() > REPLY_BYTES_MAX {
            return Err(too_large("a reply", dedup.reply.len(), REPLY_BYTES_MAX));
        }
        all += 64 + 32 * commit.appends.len() + dedup.reply.len();
    }
    for append in &commit.appends {
        all += 128;
        for record in &append.records {
            if record.key.len() > RECORD_KEY_BYTES_MAX {
                let bytes = record.key.len();
                return Err(too_large("a record's key", bytes, RECORD_KEY_BYTES_MAX));
            }
            all += block::HEADER_LEN + block::stored_len(record);
        }
        all += append
            .refers
            .iter()
            .map(|key| key.len() + 16)
            .sum::<usize>();
    }
    for change in &commit.state {
        let value_len = change.value.as_ref().map_or(0, bytes::Bytes::len);
        if value_len > STATE_BYTES_MAX {
            return Err(too_large("a state value", value_len, STATE_BYTES_MAX));
        }
        if change.key.len() > STATE_KEY_BYTES_MAX {
            let bytes = change.key.len();
            return Err(too_large(
                "the name of a state value",
                bytes,
                STATE_KEY_BYTES_MAX,
            ));
        }
        all += 32 + change.key.len() + value_len;
    }
    if all > COMMIT_BYTES_MAX {
        return Err(too_large("a commit", all, COMMIT_BYTES_MAX));
    }
    Ok(all)
}

pub(in crate::storage) fn check_note(note: &PurgeNote) -> Result<(), CommitError> {
    let bytes = note.reason.len() + note.by.as_ref().map_or(0, String::len);
    match bytes > PURGE_NOTE_BYTES_MAX {
        true => Err(CommitError::TooLarge {
            what: "the reason of a purge",
            bytes,
            bytes_max: PURGE_NOTE_BYTES_MAX,
        }),
        false => Ok(()),
    }
}

pub(in crate::storage) fn check_stream(
    partitions: u16,
    config: &StreamConfig,
) -> Result<(), CommitError> {
    let ocid_len = config.ocid.as_ref().map_or(0, String::len);
    if partitions > PARTITIONS_MAX {
        return Err(CommitError::TooLarge {
            what: "the number of partitions",
            bytes: partitions.into(),
            bytes_max: PARTITIONS_MAX.into(),
        });
    }
    if ocid_len > STREAM_CONFIG_BYTES_MAX {
        return Err(CommitError::TooLarge {
            what: "the config of a stream",
            bytes: ocid_len,
            bytes_max: STREAM_CONFIG_BYTES_MAX,
        });
    }
    Ok(())
}
