//! JSON text: checked, compact, and safe for clients that run it as a script.
//!
//! Some clients `eval` a frame, so no byte of a source reaches a subscriber unread. [`compact`] accepts a value only
//! if all of it is JSON (RFC 8259), and the other functions read only compact text. RFC 8259 allows half of a
//! surrogate pair as an escape, and numbers of any size, although some readers refuse both.

mod compact;
#[cfg(test)]
mod tests;
mod text;
mod walk;

pub(super) use self::{
    compact::{Compacted, Member, compact},
    text::{
        decoded, is_text, number_len, push_base64, push_escaped, push_string, unquoted,
        unquoted_lossy,
    },
    walk::{depth, members, strings, value_end},
};
