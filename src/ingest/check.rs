//! The slow way through a submission: every fault at once, and what lenient mode takes in spite of them.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{message::Message, target::Origin};

use super::{
    FieldCode, FieldError, Limits,
    envelope::Checked,
    field::{self, Wrong},
    json::{self, Members},
};

/// Faults named for one submission, at most.
pub(super) const ERRORS_LEN_MAX: usize = 100;

/// Collects faults under a JSON pointer.
#[derive(Debug, Default)]
pub(super) struct Faults {
    errors: Vec<FieldError>,
}

impl Faults {
    pub(super) fn add(&mut self, pointer: String, (code, detail): Wrong) {
        if self.errors.len() < ERRORS_LEN_MAX {
            self.errors.push(FieldError {
                pointer,
                code,
                detail,
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= ERRORS_LEN_MAX
    }

    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    fn check(&mut self, pointer: &str, checked: Result<(), Wrong>) {
        if let Err(wrong) = checked {
            self.add(pointer.to_owned(), wrong);
        }
    }
}

/// Adds every fault of one message; `at` is its place, empty for a message that is alone.
pub(super) fn explain(text: &str, at: &str, limits: &Limits, faults: &mut Faults) {
    let Some(members) = members(text, at, faults) else {
        return;
    };
    for (name, _) in &members.0 {
        // A body may have a million of them.
        if faults.is_full() {
            break;
        }
        if !matches!(&**name, "streamKey" | "streamMessage") {
            let what = "a message has streamKey and streamMessage, nothing else";
            faults.add(
                format!("{at}/{}", escaped(name)),
                (FieldCode::UnknownMember, what.into()),
            );
        }
    }
    repeated(&members, &["streamKey", "streamMessage"], at, faults);
    if let Some(key) = members.last("streamKey").filter(|key| !json::is_null(key)) {
        let at = format!("{at}/streamKey");
        match json::string(key) {
            Some(key) => faults.check(&at, field::key(&key, limits.key_bytes_max)),
            None => faults.add(at, wrong_type("a string or null")),
        }
    }
    let at = format!("{at}/streamMessage");
    match members.last("streamMessage") {
        None => faults.add(at, required()),
        Some(message) => explain_message(message, &at, limits, faults),
    }
}

fn explain_message(message: &RawValue, at: &str, limits: &Limits, faults: &mut Faults) {
    let Some(members) = members(message.get(), at, faults) else {
        return;
    };
    let known = [
        "vaultSecretName",
        "targetRestApi",
        "targetRestApiOperation",
        "targetRestApiPayload",
        "targetRestApiHeaders",
    ];
    repeated(&members, &known, at, faults);
    for (name, rule) in [
        (
            "targetRestApi",
            &(|text: &str| field::url(text).map(drop)) as &Rule<'_>,
        ),
        ("targetRestApiOperation", &|text| {
            field::operation(text, &limits.operations)
        }),
    ] {
        let at = format!("{at}/{name}");
        match members.last(name) {
            None => faults.add(at, required()),
            Some(value) => match json::string(value) {
                Some(text) => faults.check(&at, rule(&text)),
                None => faults.add(at, wrong_type("a string")),
            },
        }
    }
    let present = |name| members.last(name).filter(|value| !json::is_null(value));
    if let Some(name) = present("vaultSecretName") {
        let at = format!("{at}/vaultSecretName");
        match json::string(name) {
            Some(name) => faults.check(&at, field::secret_name(&name)),
            None => faults.add(at, wrong_type("a string or null")),
        }
    }
    if let Some(headers) = present("targetRestApiHeaders") {
        explain_headers(
            headers,
            &format!("{at}/targetRestApiHeaders"),
            limits,
            faults,
        );
    }
}

type Rule<'a> = dyn Fn(&str) -> Result<(), Wrong> + 'a;

fn explain_headers(headers: &RawValue, at: &str, limits: &Limits, faults: &mut Faults) {
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(headers.get()) else {
        faults.add(at.into(), wrong_type("an array of {\"key\", \"value\"}"));
        return;
    };
    let mut pairs = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        if faults.is_full() {
            return;
        }
        let at = format!("{at}/{index}");
        let Some(members) = members(entry.get(), &at, faults) else {
            continue;
        };
        repeated(&members, &["key", "value"], &at, faults);
        let mut text = |name: &str, rule: &Rule<'_>| {
            let at = format!("{at}/{name}");
            let Some(value) = members.last(name) else {
                faults.add(at, required());
                return Cow::Borrowed("");
            };
            match json::string(value) {
                Some(text) => {
                    faults.check(&at, rule(&text));
                    text
                }
                None => {
                    faults.add(at, wrong_type("a string"));
                    Cow::Borrowed("")
                }
            }
        };
        let name = text("key", &field::header_name);
        pairs.push((name, text("value", &field::header_value)));
    }
    let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
    faults.check(at, field::headers_len(pairs, limits.headers_bytes_max));
}

/// Reads what the sample would store: any JSON as `streamMessage`, any scalar as key, other members dropped.
///
/// What cannot be called has no target, and fails at dispatch as `invalid`.
pub(super) fn read_leniently<'a>(
    text: &'a str,
    at: &str,
    limits: &Limits,
    faults: &mut Faults,
) -> Option<Checked<'a>> {
    let members = members(text, at, faults)?;
    let Some(message) = members.last("streamMessage") else {
        faults.add(format!("{at}/streamMessage"), required());
        return None;
    };
    let key = members
        .last("streamKey")
        .map_or(Cow::Borrowed(""), key_text);
    if let Err(wrong) = field::key(&key, limits.key_bytes_max) {
        faults.add(format!("{at}/streamKey"), wrong);
        return None;
    }
    let value = message.get();
    let Ok(message) = Message::read(value) else {
        return Some(Checked {
            key,
            value,
            target: None,
            secret_name: None,
            content_type: None,
            layout: None,
        });
    };
    if let Err(wrong) = field::secret_name(message.secret_name().unwrap_or_default()) {
        // No secret can have this name, so the token that came along would be lost.
        faults.add(format!("{at}/streamMessage/vaultSecretName"), wrong);
        return None;
    }
    let target: Option<Origin> = field::url(&message.target_rest_api).ok();
    Some(Checked::new(key, value, target, message))
}

/// The text of a key as the sample takes it; `null`, objects and arrays are no key.
fn key_text(value: &RawValue) -> Cow<'_, str> {
    match value.get().as_bytes().first() {
        Some(b'"') => json::string(value).unwrap_or_default(),
        Some(b'{' | b'[' | b'n') | None => Cow::Borrowed(""),
        Some(_) => Cow::Borrowed(value.get()),
    }
}

fn members<'a>(text: &'a str, at: &str, faults: &mut Faults) -> Option<Members<'a>> {
    match serde_json::from_str(text) {
        Ok(members) => Some(members),
        Err(error) => {
            let wrong = match error.classify() {
                serde_json::error::Category::Data => wrong_type("an object"),
                _ => not_json(&error),
            };
            faults.add(at.into(), wrong);
            None
        }
    }
}

fn repeated(members: &Members<'_>, names: &[&str], at: &str, faults: &mut Faults) {
    for name in names {
        if members.count(name) > 1 {
            let what = "the member is there more than once".into();
            faults.add(format!("{at}/{name}"), (FieldCode::WrongType, what));
        }
    }
}

/// Says where the JSON breaks, and quotes nothing.
pub(super) fn not_json(error: &serde_json::Error) -> Wrong {
    // serde counts columns from 1: nothing was there.
    if (error.line(), error.column()) == (1, 0) {
        return (FieldCode::WrongType, "there is nothing to read".into());
    }
    let what = format!(
        "this is not JSON: it breaks at line {}, column {}",
        error.line(),
        error.column()
    );
    (FieldCode::WrongType, what)
}

fn required() -> Wrong {
    (FieldCode::Required, "the member is missing".into())
}

pub(super) fn wrong_type(expected: &str) -> Wrong {
    (FieldCode::WrongType, format!("this must be {expected}"))
}

/// Spells a member's name in a JSON pointer (RFC 6901); a long one is cut, it is only to be recognised.
fn escaped(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    name.replace('~', "~0").replace('/', "~1")
}
