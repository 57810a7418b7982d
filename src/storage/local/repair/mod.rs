//! Damage and copies: checking a journal (`verify`, `doctor`), accepting a loss (`loss`, `fold`, `salvage`, `mend`,
//! `mended`), and backups (`backup`).

pub mod backup;
pub mod doctor;
pub(in crate::storage) mod fold;
pub(in crate::storage) mod loss;
pub(in crate::storage) mod mend;
pub(in crate::storage) mod mended;
pub(in crate::storage) mod salvage;
pub(in crate::storage) mod verify;
