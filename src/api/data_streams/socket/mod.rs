//! WebSockets: the handshake, and a session for each client.

mod handshake;
mod session;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use handshake::{is_meant, upgrade};
