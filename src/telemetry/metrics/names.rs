//! The list of all metrics: name, kind, labels and help.

use prometheus_client::metrics::MetricType;

/// A metric of the list.
pub(super) struct Listed {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    /// Names of its labels, for the manual.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "only the page of the manual is written from it")
    )]
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

const fn listed(
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
) -> Listed {
    Listed {
        name,
        kind,
        labels,
        help,
    }
}

/// All metrics. The text adds `_total` to the names of counters.
pub(super) const LIST: &[Listed] = &[
    listed(
        ACCEPTED,
        MetricType::Counter,
        &[],
        "Messages stored by POST /stream/sync",
    ),
    listed(
        REPEATED,
        MetricType::Counter,
        &[],
        "Requests of POST /stream/sync that were answered as before, by their idempotency key",
    ),
    listed(
        REFUSED,
        MetricType::Counter,
        &["code"],
        "Requests of POST /stream/sync that were refused, by problem code",
    ),
    listed(
        PUSH_CLOSES,
        MetricType::Counter,
        &["code"],
        "Clients of data streams that were closed from here, on WebSockets and Server-Sent Events, by close code",
    ),
    listed(
        SUBSCRIBERS,
        MetricType::Gauge,
        &["data_stream"],
        "Clients that read a data stream now, on WebSockets and Server-Sent Events, by data stream",
    ),
    listed(
        CURSOR_LAG_RECORDS,
        MetricType::Gauge,
        &["data_stream", "cursor"],
        "Records behind the last acknowledged one, by data stream and cursor; beyond 200 cursors the largest lag under `other`",
    ),
    listed(
        PUSH_GAPS,
        MetricType::Counter,
        &[],
        "Gaps behind which clients of data streams went on, as qualityOfService atMostOnce says",
    ),
    listed(
        PANICS,
        MetricType::Counter,
        &["part"],
        "Panics that ended the work of one client or target and nothing else, by part; each is a mistake of ours",
    ),
    listed(
        FAILED_LOGINS,
        MetricType::Counter,
        &[],
        "Requests refused as their name or password was wrong",
    ),
    listed(
        REQUEST_SECONDS,
        MetricType::Histogram,
        &["route"],
        "Time from a request's head to its answer, by route",
    ),
    listed(
        APPEND_SECONDS,
        MetricType::Histogram,
        &[],
        "Time from a commit's queuing to its durability",
    ),
    listed(
        FSYNC_SECONDS,
        MetricType::Histogram,
        &[],
        "Time of one fdatasync of a journal file",
    ),
    listed(
        JOURNAL_BYTES,
        MetricType::Counter,
        &[],
        "Bytes written to journal files, those that are prepared ahead included",
    ),
    listed(
        BACKLOG_RECORDS,
        MetricType::Gauge,
        &["stream"],
        "Records that wait for their end, by stream that is dispatched",
    ),
    listed(
        BACKLOG_SECONDS,
        MetricType::Gauge,
        &["stream"],
        "Age of the oldest record that waits for its end, by stream that is dispatched",
    ),
    listed(
        OPEN_RECORDS,
        MetricType::Gauge,
        &["stream"],
        "Records that no retry has delivered or moved, by error stream",
    ),
    listed(
        SETTLED_RECORDS,
        MetricType::Counter,
        &["stream", "end"],
        "Records that were settled since the stream was made, by stream and end; the end `expired` is a loss",
    ),
    listed(
        OLDEST_PENDING_SECONDS,
        MetricType::Gauge,
        &["target"],
        "Age of the oldest record in a target's queue, by target",
    ),
    listed(
        ATTEMPTS,
        MetricType::Counter,
        &["outcome"],
        "Calls of targets, by outcome",
    ),
    listed(
        ATTEMPT_SECONDS,
        MetricType::Histogram,
        &[],
        "Time of one call of a target",
    ),
    listed(
        TARGET_ATTEMPTS,
        MetricType::Counter,
        &["target"],
        "Calls of a target, by target; those of the targets beyond the first 200 under `other`",
    ),
    listed(
        TARGET_FAILURES,
        MetricType::Counter,
        &["target", "outcome"],
        "Calls of a target that did not deliver, by target and outcome; bounded in the same way",
    ),
    listed(
        DISPATCH_READ_RECORDS,
        MetricType::Counter,
        &[],
        "Records read from the log to be dispatched; those of targets and keys that are lagging are read again",
    ),
    listed(
        LOOKUPS,
        MetricType::Counter,
        &[],
        "Look-ups of targets' hosts that were made",
    ),
    listed(
        LOOKUPS_WAITING,
        MetricType::Gauge,
        &[],
        "Hosts that wait for a look-up, because other look-ups of their zone or source have not ended",
    ),
    listed(
        TARGET_CLOSED,
        MetricType::Gauge,
        &["target"],
        "1 while a target is not called because its breaker is open, by target",
    ),
    listed(
        IN_FLIGHT,
        MetricType::Gauge,
        &["target"],
        "Calls of targets under way, by target",
    ),
    listed(
        QUEUED,
        MetricType::Gauge,
        &["target"],
        "Records in memory that wait for their call, by target",
    ),
    listed(
        UNREADABLE_PARTITIONS,
        MetricType::Gauge,
        &[],
        "Partitions whose dispatch waits at a place that cannot be read; the log says where, syncgate doctor why",
    ),
    listed(
        DISK_FREE_BYTES,
        MetricType::Gauge,
        &[],
        "Free space of the file system that holds the data directory",
    ),
    listed(
        LOG_RUNNING,
        MetricType::Gauge,
        &[],
        "1 while the log takes appends",
    ),
    listed(
        STATE_BYTES,
        MetricType::Gauge,
        &["kind"],
        "Bytes of state that the values of a kind take, by kind",
    ),
    listed(
        STATE_SHARE_BYTES,
        MetricType::Gauge,
        &["kind"],
        "Bytes of state that the values of a kind may take, by kind; beyond it they are refused as state_full or secrets_full",
    ),
    listed(
        SECRETS_KEPT,
        MetricType::Gauge,
        &[],
        "Tokens of targets that are kept, each version of a secret counted",
    ),
    listed(
        SECRETS_GONE,
        MetricType::Counter,
        &[],
        "Tokens that no open record needed and that gave way to new ones, as tokens had taken their whole share",
    ),
    listed(
        LOST_ENDS,
        MetricType::Counter,
        &[],
        "Ends of records that the log did not take; each such record waits again, or is dispatched again",
    ),
    listed(
        LOG_LINES_DROPPED,
        MetricType::Counter,
        &[],
        "Log lines that were dropped because standard error was not read fast enough",
    ),
    listed(
        CPU_SECONDS,
        MetricType::Counter,
        &[],
        "CPU time of the process, in user mode and in the kernel",
    ),
    listed(
        RESIDENT_BYTES,
        MetricType::Gauge,
        &[],
        "Resident memory of the process",
    ),
    listed(
        VIRTUAL_BYTES,
        MetricType::Gauge,
        &[],
        "Virtual memory of the process",
    ),
    listed(
        OPEN_FILES,
        MetricType::Gauge,
        &[],
        "Open file descriptors of the process",
    ),
    listed(
        FILES_MAX,
        MetricType::Gauge,
        &[],
        "File descriptors that the process may open",
    ),
    listed(THREADS, MetricType::Gauge, &[], "Threads of the process"),
    listed(
        START_TIME_SECONDS,
        MetricType::Gauge,
        &[],
        "Start of the process, seconds since 1970",
    ),
    listed(
        RELOAD_SUCCESSFUL,
        MetricType::Gauge,
        &[],
        "1 if the last reload was applied, or there was none since the start",
    ),
    listed(
        RELOAD_TIME_SECONDS,
        MetricType::Gauge,
        &[],
        "When settings were last read and applied, at the start or by a reload, seconds since 1970",
    ),
    listed(
        BUILD,
        MetricType::Info,
        &["version"],
        "Version of the gateway",
    ),
];

pub(super) const ACCEPTED: &str = "syncgate_accepted_messages";
pub(super) const REPEATED: &str = "syncgate_repeated_requests";
pub(super) const REFUSED: &str = "syncgate_refused_requests";
/// Gaps that clients of data streams continued after.
pub const PUSH_GAPS: &str = "syncgate_push_gaps";
pub(super) const PUSH_CLOSES: &str = "syncgate_push_closes";
/// Panics in the work of one client, by `part`.
pub const PANICS: &str = "syncgate_panics";
pub(super) const FAILED_LOGINS: &str = "syncgate_failed_logins";
pub(super) const REQUEST_SECONDS: &str = "syncgate_http_request_seconds";
/// Time from a commit's queuing to its durability.
pub const APPEND_SECONDS: &str = "syncgate_append_seconds";
/// Time of one `fdatasync` of the journal.
pub const FSYNC_SECONDS: &str = "syncgate_fsync_seconds";
/// Records read from the log to be dispatched.
pub const DISPATCH_READ_RECORDS: &str = "syncgate_dispatch_read_records";
/// Look-ups of hosts.
pub const LOOKUPS: &str = "syncgate_lookups";
/// Hosts whose look-up waits.
pub const LOOKUPS_WAITING: &str = "syncgate_lookups_waiting";
/// Calls of targets, by `outcome`.
pub const ATTEMPTS: &str = "syncgate_attempts";
/// Time of one call of a target.
pub const ATTEMPT_SECONDS: &str = "syncgate_attempt_seconds";
pub(super) const BUILD: &str = "syncgate_build";

/// Bytes written to the journal.
pub const JOURNAL_BYTES: &str = "syncgate_journal_bytes";
/// Open records of a dispatched stream, by `stream`.
pub const BACKLOG_RECORDS: &str = "syncgate_backlog_records";
/// Age of the oldest open record, by `stream`.
pub const BACKLOG_SECONDS: &str = "syncgate_backlog_seconds";
/// Open records of an error stream, by `stream`.
pub const OPEN_RECORDS: &str = "syncgate_open_records";
/// Age of the oldest queued record, by `target`.
pub const OLDEST_PENDING_SECONDS: &str = "syncgate_target_oldest_pending_seconds";
/// Calls in flight, by `target`.
pub const IN_FLIGHT: &str = "syncgate_in_flight";
/// 1 while the breaker is open, by `target`.
pub const TARGET_CLOSED: &str = "syncgate_target_closed";
/// Records queued in memory, by `target`.
pub const QUEUED: &str = "syncgate_queued";
/// Partitions whose dispatch waits at damage.
pub const UNREADABLE_PARTITIONS: &str = "syncgate_unreadable_partitions";
/// 1 while the log takes appends.
pub const LOG_RUNNING: &str = "syncgate_log_running";
/// Bytes of stored state, by `kind`.
pub const STATE_BYTES: &str = "syncgate_state_bytes";
/// Greatest bytes of stored state, by `kind`.
pub const STATE_SHARE_BYTES: &str = "syncgate_state_share_bytes";
/// Tokens that were removed for new ones.
pub const SECRETS_GONE: &str = "syncgate_secrets_gone";
/// Settlements that the log refused.
pub const LOST_ENDS: &str = "syncgate_lost_ends";
/// Log lines that were dropped.
pub const LOG_LINES_DROPPED: &str = "syncgate_log_lines_dropped";
/// Calls of a target, by `target`.
pub const TARGET_ATTEMPTS: &str = "syncgate_target_attempts";
/// Calls that did not deliver, by `target` and `outcome`.
pub const TARGET_FAILURES: &str = "syncgate_target_failures";
/// Settled records, by `stream` and `end`.
pub const SETTLED_RECORDS: &str = "syncgate_settled_records";
/// Free space of the data directory's file system.
pub const DISK_FREE_BYTES: &str = "syncgate_disk_free_bytes";
/// Clients of data streams, by `data_stream`.
pub const SUBSCRIBERS: &str = "syncgate_push_subscribers";
/// Records that a cursor lags, by `data_stream` and `cursor`.
pub const CURSOR_LAG_RECORDS: &str = "syncgate_cursor_lag_records";
/// Tokens that are kept.
pub const SECRETS_KEPT: &str = "syncgate_secrets";
/// 1 if the last reload was applied.
pub const RELOAD_SUCCESSFUL: &str = "syncgate_reload_successful";
/// When settings were last applied.
pub const RELOAD_TIME_SECONDS: &str = "syncgate_reload_time_seconds";

// Prometheus client libraries use these names for figures of a process, so common dashboards show them.
pub(super) const CPU_SECONDS: &str = "process_cpu_seconds";
pub(super) const RESIDENT_BYTES: &str = "process_resident_memory_bytes";
pub(super) const VIRTUAL_BYTES: &str = "process_virtual_memory_bytes";
pub(super) const OPEN_FILES: &str = "process_open_fds";
pub(super) const FILES_MAX: &str = "process_max_fds";
pub(super) const THREADS: &str = "process_threads";
pub(super) const START_TIME_SECONDS: &str = "process_start_time_seconds";
