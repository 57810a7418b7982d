//! Values that every part speaks of: ids, messages, records, targets, and the grammar of names.
//! Pure, and below all other parts but `json` and `runtime`.

pub mod ids;
pub(crate) mod layout;
pub(crate) mod mask;
pub mod message;
pub mod record;
pub mod slip;
pub mod target;
pub(crate) mod when;
