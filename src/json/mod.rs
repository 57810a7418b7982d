//! Reading JSON: members and faults of an object, scanning without understanding, and near misses of names.

pub(crate) mod loose;
pub(crate) mod nearest;
pub(crate) mod object;
pub(crate) mod scan;
