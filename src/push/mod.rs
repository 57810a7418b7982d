//! Push: every stream, live, to subscribers, in the GoldenGate Data Streams protocol.
//!
//! ```text
//! log ──► feed: partitions merged in commit order ──► feed/hub: frames, made once ──► subscribe: one subscription
//!                                                     feed/frames: those still needed     per client
//! ```
//!
//! - [`resource`]: the configuration of a data stream: its log stream, its rows, its encoding, and its rules.
//! - [`schema`]: the first records of each connection: schemas, and metadata of stream and objects.
//! - [`document`]: the AsyncAPI document, from which clients are generated; `document/served` makes it for a request.
//! - `registry`: all data streams; each is a `data_stream`. `settings`: the part of the configuration that push uses.
//! - `subscribe`: lets a client in. Its `begin` reads where the client wants to start, its `start` finds the place.
//! - `position`: a place in a stream, and `pos`, its text. `feed/gaps`: logs and counts records that clients missed.
//! - `cursors`: how far clients have come, kept for them. `readers`: lists, moves and removes cursors on request.
//! - `encode`: records as JSON. `json`: JSON values to write, with their order and digits.
//! - `misfits`: records that break the columns that a configuration declares.

mod cursors;
mod data_stream;
pub mod document;
mod encode;
mod feed;
mod json;
mod misfits;
mod position;
mod readers;
mod registry;
pub mod resource;
pub mod schema;
mod settings;
mod subscribe;
#[cfg(test)]
mod tests;

pub use cursors::{CursorError, CursorInUse, CursorName, CursorNameInvalid};
pub use data_stream::DataStream;
pub use document::served::Reached;
pub use feed::frame::Frame;
pub use readers::{AckError, CursorLag, CursorStatus, DataStreamReaders, MoveError};
pub use registry::{ChangeError, OpenError, Push};
pub use settings::Settings;
pub use subscribe::start::StartRefused;
pub use subscribe::subscription::{AckInvalid, End, Subscription};
pub use subscribe::{Asked, SubscribeError};
