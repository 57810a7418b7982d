//! JSON text: checked, without blanks, and safe to be run as a script.
//!
//! What a subscriber gets is never a source's bytes unread: some clients `eval` it. [`compact`] copies a value only if it is
//! JSON in full, and the walkers below it read nothing but what it wrote.

mod compact;
#[cfg(test)]
mod tests;
mod text;
mod walk;

pub(super) use self::{
    compact::{Compacted, Member, compact},
    text::{is_text, number_len, push_base64, push_escaped, push_string, unquoted},
    walk::{elements, members},
};
