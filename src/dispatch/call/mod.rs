//! One call of a target: look-up, address check, connection, request, and redaction of the answer.

pub(super) mod case;
pub(crate) mod connect;
pub(super) mod connection;
pub(super) mod credentials;
pub(super) mod lookup;
pub(super) mod redact;
pub(super) mod renew;
pub(crate) mod request;
pub(crate) mod sockets;
pub(super) mod unanswered;
pub(super) mod wire;
