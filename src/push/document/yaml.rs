//! JSON written as YAML, in blocks.

use crate::push::{
    json::{Json, scalar_text},
    resource::Scalar,
};

/// Longer keys, in bytes, are written in the explicit form, because YAML 1.2 §8.2.2 bounds the other one at 1024
/// characters.
const KEY_BYTES_MAX: usize = 1000;

/// Returns the text, with a line break at its end.
pub(super) fn text(json: &Json) -> String {
    let mut text = String::new();
    block(json, 0, &mut text);
    text
}

/// Writes a value on lines of its own, without the first line's indent.
fn block(json: &Json, indent: usize, to: &mut String) {
    match json {
        Json::Object(members) if !members.is_empty() => {
            for (n, (name, value)) in members.iter().enumerate() {
                start_line(n, indent, to);
                let key = quoted(name);
                match key.len() > KEY_BYTES_MAX {
                    true => {
                        to.push_str("? ");
                        to.push_str(&key);
                        to.push('\n');
                        start_line(1, indent, to);
                    }
                    false => to.push_str(&key),
                }
                to.push(':');
                behind_key(value, indent, to);
            }
        }
        Json::Array(entries) if !entries.is_empty() => {
            for (n, entry) in entries.iter().enumerate() {
                start_line(n, indent, to);
                to.push_str("- ");
                block(entry, indent + 2, to);
            }
        }
        Json::Object(_) => to.push_str("{}\n"),
        Json::Array(_) => to.push_str("[]\n"),
        Json::Scalar(Scalar::String(text)) => {
            to.push_str(&quoted(text));
            to.push('\n');
        }
        Json::Scalar(other) => {
            to.push_str(&scalar_text(other));
            to.push('\n');
        }
    }
}

fn behind_key(value: &Json, indent: usize, to: &mut String) {
    let has_lines = match value {
        Json::Object(members) => !members.is_empty(),
        Json::Array(entries) => !entries.is_empty(),
        Json::Scalar(_) => false,
    };
    match has_lines {
        true => {
            to.push('\n');
            start_line(1, indent + 2, to);
            block(value, indent + 2, to);
        }
        false => {
            to.push(' ');
            block(value, indent, to);
        }
    }
}

fn start_line(n: usize, indent: usize, to: &mut String) {
    if n > 0 {
        to.extend(std::iter::repeat_n(' ', indent));
    }
}

/// Returns a string plain if every YAML reader, old or new, reads it as that string; otherwise in quotes.
fn quoted(text: &str) -> String {
    // YAML 1.1 reads these as a truth value or as null.
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_/.-".contains(&byte);
    let first = |c: char| c.is_ascii_alphabetic() || c == '/';
    let is_word = WORDS.contains(&&*text.to_ascii_lowercase());
    if text.starts_with(first) && text.bytes().all(plain) && !is_word {
        return text.into();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Not printable in YAML, or a line break to some readers.
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
