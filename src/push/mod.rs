//! Push: every stream, live, in the GoldenGate Data Streams protocol.
//!
//! - [`resource`]: which stream is shown, as what, and what is not sent: the configuration of a data stream.
//! - [`schema`]: what every connection begins with: schemas of the records, and metadata of stream and objects.
//! - [`document`]: the AsyncAPI document, from which clients are generated.
//! - `json`: JSON that is written, with its order and digits.

pub mod document;
mod json;
pub mod resource;
pub mod schema;
