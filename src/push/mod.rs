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

mod cursors;
mod data_stream;
pub mod document;
mod encode;
mod feed;
mod json;
mod misfits;
mod position;
mod registry;
pub mod resource;
pub mod schema;
mod settings;
mod subscribe;
#[cfg(test)]
mod tests;

pub use cursors::tended::{AckError, CursorLag, CursorStatus, DataStreamReaders, MoveError};
pub use cursors::{CursorError, CursorInUse, CursorName, CursorNameInvalid};
pub use data_stream::DataStream;
pub use document::served::Reached;
pub use feed::frame::Frame;
pub use registry::{ChangeError, OpenError, Push};
pub use settings::Settings;
pub use subscribe::start::StartRefused;
pub use subscribe::subscription::{AckInvalid, End, Subscription};
pub use subscribe::{Asked, SubscribeError};
