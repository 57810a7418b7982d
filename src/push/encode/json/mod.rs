//! JSON text: checked, without blanks, and safe to be run as a script.
//!
//! What a subscriber gets is never a source's bytes unread: some clients `eval` it. [`compact`] copies a value only if it is
//! JSON in full, and the walkers below it read nothing but what it wrote. JSON in full is what RFC 8259 allows: half of a
//! surrogate pair as an escape, and numbers of any size, though some readers refuse both.

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
