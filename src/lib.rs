//! Syncgate: a durable gateway between applications that change data and the REST APIs that must hear of it.
//!
//! ```text
//! source app ──POST /stream/sync──► api ──► ingest ──► log: source stream ──► dispatch ──► target REST API
//!                                             │         (partitioned,          │  ▲
//!                                          secrets       durable)              │  └── redrive ◄── POST /stream/retry
//!                                                           ▲                  ▼
//!                                                           └──────────── error streams, by cause
//! ```
//!
//! # Map, in the direction of the flow
//! - [`cli`]: one file per command. [`gateway`]: the composition root; it alone sees every part. [`config`]: settings,
//!   read and checked at the start and at each reload.
//! - [`api`]: the HTTP edge; nothing below it knows HTTP as a server.
//! - [`ingest`]: from a submission to durable records. [`log`]: streams of records, the only door to the engine.
//!   [`dispatch`]: calls targets, in order per key. [`redrive`]: the same for error streams, when asked.
//! - [`message`], [`target`], [`record`], [`place`]: the values that all of them speak of.
//! - [`push`]: every stream, live, to whoever subscribes.
//! - [`retention`]: removes what is too old. [`status`]: how the gateway is, in one look.
//! - [`storage`]: the seam (`Log`, `State`, `Leases`) and the embedded engine. [`secrets`]: tokens, sealed.
//!   [`users`]: who may call, by digests of passwords.
//! - [`tasks`], [`clock`], [`live`], [`telemetry`], `descriptors`, `files`, `authorities`: the ground.
//!
//! # What always holds
//! - A success told to a source means that its record is on disk. No reader sees a record before that.
//! - A record has one end, once. Its failure and its end are one commit.
//! - Calls of one target and key are one after the other, in log order.
//! - Every queue, body, wait and buffer has a bound of the configuration; what is beyond is refused, or waits.
//! - A secret's value is in no log line, error, metric, record or answer; nor is a password.
//! - A panic in the work of one client ends that work. One in the log's or a partition's state stops the gateway.
//! - Only `api::problem` chooses HTTP statuses; only `tasks` starts tasks; only `clock` reads the time of day.

pub mod cli;
pub mod gateway;

pub mod config;

pub mod api;

pub mod ingest;

mod layout;
mod ledger;
mod loose;
mod mask;
pub mod message;
mod nearest;
mod object;
pub mod place;
mod random;
pub mod record;
pub mod slip;
pub mod target;

pub mod log;

pub mod dispatch;
pub mod redrive;

pub mod retention;

pub mod push;

pub mod status;

pub mod secrets;
pub mod storage;
pub mod users;

mod authorities;
mod cache;
pub mod clock;
mod descriptors;
mod files;
pub mod live;
pub mod tasks;
pub mod telemetry;

#[cfg(test)]
mod simulation;
