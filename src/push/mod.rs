//! Push: every stream, live, in the GoldenGate Data Streams protocol.
//!
//! A resource ([`resource`]) says which stream is shown, as what, and to whom what is not sent.

mod json;
pub mod resource;
pub mod schema;
