//! Syncgate: a durable gateway between applications that change data and the REST APIs that must hear of it.

pub mod config;

pub mod message;
pub mod place;
pub mod record;

pub mod log;

pub mod dispatch;
pub mod redrive;

pub mod storage;

pub mod clock;
pub mod tasks;
