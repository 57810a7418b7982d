//! Reading JSON. This folder imports no other module.
//!
//! `faults` names what is wrong in a body; `object` reads a body member by member; `scan` measures and splits text without
//! a tree; `loose` reads text that `serde_json::Value` refuses; `nearest` proposes the name that was meant.

pub mod faults;
pub(crate) mod loose;
pub(crate) mod nearest;
pub(crate) mod object;
pub(crate) mod scan;
