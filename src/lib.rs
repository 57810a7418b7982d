//! Syncgate: a durable gateway between applications that change data and the REST APIs that need those changes.
//!
//! ```text
//! source app ──POST /stream/sync──► api ──► ingest ──► log: source stream ──► dispatch ──► target REST API
//!                                             │         (partitioned,          │  ▲
//!                                          secrets       durable)              │  └── retry ◄── POST /stream/retry
//!                                                           │  ▲               ▼
//!                                          push ◄───────────┘  └───────── error streams, by cause
//!                                            └──► subscribers (WebSocket, Server-Sent Events)
//! ```
//!
//! # Map, in the direction of the flow
//! - [`cli`]: one file per command. [`gateway`]: the composition root, which builds and connects all parts. [`config`]:
//!   settings, read and checked at the start and at each reload. [`docs`]: the manual.
//! - [`api`]: the HTTP server; no other part knows a request or an answer of it.
//! - [`ingest`]: turns a submission into durable records. [`log`]: streams of records, the only door to the engine.
//! - [`dispatch`]: calls targets, in order per key. `scan` reads a partition, `queue` holds the records that wait for a
//!   target, `call` makes a call, `outcome` classifies its result and settles the record. [`retry`]: a pass over a
//!   stream, on request.
//! - [`push`]: shows every stream, live, to subscribers. [`retention`]: trims streams by age and size. [`status`]: the
//!   overview of the gateway for operators.
//! - [`secrets`]: tokens for targets, sealed. [`users`]: the callers of the API, with digests of their passwords.
//! - [`storage`]: the seam (`Log`, `State`, `Leases`). `storage::embedded` is the engine, made of the parts in
//!   `storage::local`: one directory with a journal.
//! - [`model`]: ids, records, targets and other values that all parts use. `json`: members, faults, scanning, masks.
//!   [`runtime`]: tasks, clock, live settings, files, certificates. [`telemetry`]: log lines and metrics.
//!
//! # What always holds
//! - A source gets a success only after its record is on disk. No reader sees a record before that.
//! - A record is settled once, for good. A failed record enters its error stream in the commit that settles it.
//! - Records of one target and key are called one after the other, in log order.
//! - Every queue, body, wait and buffer has a bound. Work beyond it is refused, or waits.
//! - No log line, error, metric, record or answer holds a secret's value or a password.
//! - A panic in work for one client ends that work only. A panic in a task that owns the state of the log or of a
//!   partition stops the gateway.
//! - Only `api::problem` chooses HTTP statuses of errors; only `runtime::tasks` starts tasks; only `runtime::clock` reads
//!   the time of day.

pub mod cli;
pub mod gateway;

pub mod config;

pub mod docs;

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
