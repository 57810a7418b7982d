//! WebSockets: `handshake.rs`, a session for each client (`session.rs`), and its bytes (`wire.rs`).

mod handshake;
mod session;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use handshake::{is_meant, upgrade};
