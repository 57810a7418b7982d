//! Push: every stream, live, in the GoldenGate Data Streams protocol.
//!
//! ```text
//! log ──► feed: partitions merged in commit order ──► hub: frames, made once ──► subscription, one per client
//!                                                     frames: those that are needed
//! ```
//!
//! - [`resource`]: which stream is shown, as what, and what is not sent: the configuration of a data stream.
//! - [`schema`]: what every connection begins with: schemas of the records, and metadata of stream and objects.
//! - [`document`]: the AsyncAPI document, from which clients are generated.
//! - `registry`: the data streams that there are. `served`: their documents. `subscribe`: letting a client in, with
//!   `begin`, `start` and `position`: where it starts.
//! - `cursors`: how far clients have come, kept for them. `tended`: reading, moving and removing them.
//! - `gaps`: what clients never had is told of. `misfits`: records that are not what a configuration declares. `encode`: records as JSON. `json`: JSON that is written, with its order and digits.

mod begin;
mod cursors;
mod data_stream;
pub mod document;
mod encode;
mod feed;
mod frame;
mod frames;
mod gaps;
mod hub;
mod json;
mod misfits;
mod position;
mod reader;
mod registry;
pub mod resource;
pub mod schema;
mod served;
mod settings;
mod start;
mod subscribe;
mod subscription;
mod tended;
#[cfg(test)]
mod tests;

pub use cursors::{CursorError, CursorInUse, CursorName, CursorNameInvalid};
pub use data_stream::DataStream;
pub use frame::Frame;
pub use registry::{ChangeError, OpenError, Push};
pub use served::Reached;
pub use settings::Settings;
pub use start::StartRefused;
pub use subscribe::{Asked, SubscribeError};
pub use subscription::{AckInvalid, End, Subscription};
pub use tended::{AckError, CursorLag, CursorStatus, DataStreamReaders, MoveError};
