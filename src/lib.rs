//! Syncgate: a durable gateway between applications that change data and the REST APIs that must hear of it.
//!
//! ```text
//! source app ──POST /stream/sync──► api ──► ingest ──► log: source stream ──► dispatch ──► target REST API
//!                                             │         (partitioned,          │  ▲
//!                                          secrets       durable)              │  └── retry ◄── POST /stream/retry
//!                                                           ▲                  ▼
//!                                                           └──────────── error streams, by cause
//! ```
//!
//! # Map, in the direction of the flow
//! - [`cli`]: one file per command. [`gateway`]: the composition root; it alone sees every part. [`config`]: settings,
//!   read and checked at the start and at each reload.
//! - [`api`]: the HTTP edge; nothing below it knows HTTP as a server.
//! - [`ingest`]: from a submission to durable records. [`log`]: streams of records, the only door to the engine.
//! - [`dispatch`]: calls targets, in order per key. `scan` reads a partition, `queue` holds what waits for a target,
//!   `call` makes a call, `outcome` says what came of it and settles the record. [`retry`]: a pass over a stream, on
//!   request.
//! - [`push`]: every stream, live, to its subscribers. [`retention`]: removes what is too old. [`status`]: how the
//!   gateway is, in one look.
//! - [`secrets`]: tokens, sealed. [`users`]: who may call, by digests of passwords.
//! - [`storage`]: the seam (`Log`, `State`, `Leases`). `storage::embedded` is the engine; it stands on `storage::local`,
//!   one directory with a journal.
//! - [`model`]: the values that all parts speak of. [`json`]: reading JSON. [`runtime`]: tasks, clock, settings that are
//!   replaced, files. [`telemetry`]: log lines and metrics.
//!
//! # What always holds
//! - A success told to a source means that its record is on disk. No reader sees a record before that.
//! - A record is settled once, for good. Its failure and its settlement are one commit.
//! - Calls of one target and key are one after the other, in log order.
//! - Every queue, body, wait and buffer has a bound of the configuration; what is beyond is refused, or waits.
//! - A secret's value is in no log line, error, metric, record or answer; nor is a password.
//! - A panic in the work of one client ends that work. One in the log's or a partition's state stops the gateway.
//! - Only `api::problem` chooses HTTP statuses; only `runtime::tasks` starts tasks; only `runtime::clock` reads the time
//!   of day.

pub mod cli;
pub mod gateway;

pub mod config;

pub mod docs;

pub(crate) mod authorities;

pub mod api;

pub mod ingest;

pub mod log;

pub mod dispatch;
pub mod retry;

pub mod push;

pub mod retention;

pub mod status;

pub mod secrets;
pub mod users;

pub mod storage;

pub mod json;
pub mod model;
pub mod runtime;
pub mod telemetry;

#[cfg(test)]
mod simulation;
