//! Values that all parts use: addresses, ids, messages, records, targets, and the grammar of names.
//!
//! Pure. This folder imports only `json` and `runtime`.

pub mod address;
pub mod ids;
pub(crate) mod layout;
pub(crate) mod mask;
pub mod message;
pub mod record;
pub mod slip;
pub mod target;
pub(crate) mod when;
