//! The members of `GET /v1/status` that the page shows.

use serde::Deserialize;

use crate::runtime::clock::Timestamp;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    verdict: String,
    pub(super) version: String,
    pub(super) at: String,
    pub(super) started_at: String,
    pub(super) shows_reasons: bool,
    pub(super) problems: Vec<Problem>,
    pub(super) more_problems: usize,
    pub(super) targets: Vec<Target>,
    pub(super) more_targets: usize,
    pub(super) open: Vec<Open>,
    pub(super) more_open: usize,
    pub(super) open_records: OpenRecords,
    pub(super) disk: Disk,
    pub(super) journal: Journal,
    pub(super) ledger: Ledger,
    pub(super) readers: Vec<Reader>,
    pub(super) more_readers: usize,
    /// An older gateway does not send it.
    #[serde(default)]
    pub(super) retries: Vec<Retry>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Retry {
    pub(super) stream: String,
    pub(super) since: String,
    pub(super) by: Option<String>,
    pub(super) done: u64,
    pub(super) total: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    pub(super) text: String,
    pub(super) reason: Option<String>,
    pub(super) since: Option<String>,
    /// `None` if it is for operators alone.
    pub(super) command: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    pub(super) target: String,
    pub(super) name: String,
    pub(super) state: String,
    pub(super) since: Option<String>,
    pub(super) pending: u64,
    pub(super) in_error_streams: u64,
    pub(super) oldest: Option<String>,
    pub(super) last_cause: Option<Cause>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Cause {
    class: String,
    status: Option<u16>,
    pub(super) at: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Open {
    pub(super) stream: String,
    pub(super) target: Option<String>,
    pub(super) cause: Option<Cause>,
    pub(super) count: u64,
    pub(super) first: String,
    pub(super) last: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpenRecords {
    pub(super) count: u64,
    pub(super) looked_at: u64,
    pub(super) complete: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disk {
    /// `None` if it is for operators alone.
    pub(super) dir: Option<String>,
    pub(super) free_bytes: Option<u64>,
    pub(super) free_bytes_min: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Journal {
    pub(super) state: String,
    pub(super) files: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) unreadable_partitions: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ledger {
    pub(super) balanced: bool,
    pub(super) difference: i64,
    pub(super) accepted_losses: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reader {
    pub(super) kind: String,
    pub(super) stream: Option<String>,
    pub(super) data_stream: Option<String>,
    pub(super) name: Option<String>,
    pub(super) clients: Option<u64>,
    pub(super) lag: Option<u64>,
}

impl Report {
    pub(super) fn is_well(&self) -> bool {
        self.verdict == "well"
    }

    /// Returns the age of a time when the report was made: `12m`.
    pub(super) fn age(&self, time: Option<&String>) -> String {
        let times = (
            Timestamp::parse(&self.at),
            time.and_then(|time| Timestamp::parse(time)),
        );
        let (Some(at), Some(time)) = times else {
            return String::new();
        };
        match at.since(time).as_secs() {
            seconds @ 0..120 => format!("{seconds}s"),
            seconds @ 120..7_200 => format!("{}m", seconds / 60),
            seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
            seconds => format!("{}d", seconds / 86_400),
        }
    }
}

impl Cause {
    /// Returns the status, else the class.
    pub(super) fn text(&self) -> String {
        self.status
            .map_or_else(|| self.class.clone(), |status| status.to_string())
    }
}
