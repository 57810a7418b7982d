//! The slow way through a message: it names every fault, and reads what lenient mode accepts.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    json::{
        faults::{Faults, FieldCode, REPEATED, Wrong, fault, is_full, pointer_to},
        nearest::{did_you_mean, missing},
        scan::{self, Members, Start},
    },
    model::{
        message::{MEMBERS, Message},
        slip::Slips,
        target::Origin,
    },
};

use super::{Warning, envelope::Checked, field, read::Limits};

/// Adds a fault under a pointer.
pub(super) fn add(faults: &mut Faults, pointer: &str, (code, detail): Wrong) {
    fault(faults, pointer, code, &detail);
}

fn check(faults: &mut Faults, pointer: &str, checked: Result<(), Wrong>) {
    if let Err(wrong) = checked {
        add(faults, pointer, wrong);
    }
}

/// The members of an envelope.
const OUTER: [&str; 2] = ["streamKey", "streamMessage"];

/// Adds every fault of one message; `at` is its pointer, empty if the body is one message.
pub(super) fn explain(text: &str, start: Start, at: &str, limits: &Limits, faults: &mut Faults) {
    let Some(members) = members(text, start, at, faults) else {
        return;
    };
    for name in unknown(&members, &OUTER) {
        if is_full(faults) {
            break;
        }
        let near = did_you_mean(name, OUTER);
        let what = format!("a message has streamKey and streamMessage, nothing else{near}");
        fault(
            faults,
            &pointer_to(at, name),
            FieldCode::UnknownMember,
            &what,
        );
    }
    repeated(&members, &OUTER, at, faults);
    if let Some(key) = members.last("streamKey").filter(|key| !scan::is_null(key)) {
        let at = format!("{at}/streamKey");
        match scan::string(key) {
            Some(key) => check(faults, &at, field::key(&key, limits.key_bytes_max)),
            None => add(faults, &at, wrong_type("a string or null")),
        }
    }
    let at = format!("{at}/streamMessage");
    match members.last("streamMessage") {
        None => add(faults, &at, required("streamMessage", &members, &OUTER)),
        Some(message) => explain_message(message, &at, limits, faults),
    }
}

fn explain_message(message: &RawValue, at: &str, limits: &Limits, faults: &mut Faults) {
    let Some(members) = members(message.get(), Start::default(), at, faults) else {
        return;
    };
    repeated(&members, &MEMBERS, at, faults);
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
            None => add(faults, &at, required(name, &members, &MEMBERS)),
            Some(value) => match scan::string(value) {
                Some(text) => check(faults, &at, rule(&text)),
                None => add(faults, &at, wrong_type("a string")),
            },
        }
    }
    let present = |name| members.last(name).filter(|value| !scan::is_null(value));
    if let Some(name) = present("vaultSecretName") {
        let at = format!("{at}/vaultSecretName");
        match scan::string(name) {
            Some(name) => check(faults, &at, field::secret_name(&name)),
            None => add(faults, &at, wrong_type("a string or null")),
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
        add(faults, at, wrong_type("an array of {\"key\", \"value\"}"));
        return;
    };
    let mut pairs = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        if is_full(faults) {
            return;
        }
        let at = format!("{at}/{index}");
        let Some(members) = members(entry.get(), Start::default(), &at, faults) else {
            continue;
        };
        let known = ["key", "value"];
        repeated(&members, &known, &at, faults);
        let mut text = |name: &str, rule: &Rule<'_>| {
            let at = format!("{at}/{name}");
            let Some(value) = members.last(name) else {
                add(faults, &at, required(name, &members, &known));
                return Cow::Borrowed("");
            };
            match scan::string(value) {
                Some(text) => {
                    check(faults, &at, rule(&text));
                    text
                }
                None => {
                    add(faults, &at, wrong_type("a string"));
                    Cow::Borrowed("")
                }
            }
        };
        let name = text("key", &field::header_name);
        pairs.push((name, text("value", &field::header_value)));
    }
    let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
    check(
        faults,
        at,
        field::headers_len(pairs, limits.headers_bytes_max),
    );
}

/// Reads a message as the OCI sample does: `streamMessage` is any JSON, the key any scalar; other members are dropped.
///
/// A message that cannot be called has no target, and its dispatch fails with cause `invalid`.
pub(super) fn read_leniently<'a>(
    text: &'a str,
    start: Start,
    at: &str,
    limits: &Limits,
    faults: &mut Faults,
) -> Option<Checked<'a>> {
    let members = members(text, start, at, faults)?;
    let Some(message) = members.last("streamMessage") else {
        let wrong = required("streamMessage", &members, &OUTER);
        add(faults, &format!("{at}/streamMessage"), wrong);
        return None;
    };
    let key = members
        .last("streamKey")
        .map_or(Cow::Borrowed(""), key_text);
    if let Err(wrong) = field::key(&key, limits.key_bytes_max) {
        add(faults, &format!("{at}/streamKey"), wrong);
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
            warnings: slips(value),
        });
    };
    if let Err(wrong) = field::secret_name(message.secret_name().unwrap_or_default()) {
        // No secret can have this name, so the token of the request would be lost.
        add(
            faults,
            &format!("{at}/streamMessage/vaultSecretName"),
            wrong,
        );
        return None;
    }
    let target: Option<Origin> = field::url(&message.target_rest_api).ok();
    Some(Checked::new(key, value, target, message, limits))
}

/// Returns the members with nearly a known name. They may be the reason why the message cannot be called.
fn slips(message: &str) -> Vec<Warning> {
    let members = Members::parse(message).map_or(Vec::new(), |members| members.0);
    let mut slips = Slips::default();
    for (name, _) in &members {
        if !MEMBERS.contains(&&**name) {
            slips.look_at(name);
        }
    }
    slips
        .found
        .into_iter()
        .map(Warning::UnknownMember)
        .collect()
}

/// Returns the text of a key as the OCI sample does; `null`, objects and arrays are an empty key.
fn key_text(value: &RawValue) -> Cow<'_, str> {
    match value.get().as_bytes().first() {
        Some(b'"') => scan::string(value).unwrap_or_default(),
        Some(b'{' | b'[' | b'n') | None => Cow::Borrowed(""),
        Some(_) => Cow::Borrowed(value.get()),
    }
}

fn members<'a>(text: &'a str, start: Start, at: &str, faults: &mut Faults) -> Option<Members<'a>> {
    match serde_json::from_str(text) {
        Ok(members) => Some(members),
        Err(error) => {
            add(faults, at, unread(text, &error, start, "an object"));
            None
        }
    }
}

/// Returns the names of members that are not among the `known` ones.
fn unknown<'a>(members: &'a Members<'_>, known: &[&str]) -> impl Iterator<Item = &'a str> {
    let names = members.0.iter().map(|(name, _)| &**name);
    names.filter(|name| !known.contains(name))
}

fn repeated(members: &Members<'_>, names: &[&str], at: &str, faults: &mut Faults) {
    for name in names {
        if members.count(name) > 1 {
            fault(
                faults,
                &format!("{at}/{name}"),
                FieldCode::WrongType,
                REPEATED,
            );
        }
    }
}

/// Says where a text stops being JSON, or which type it must have.
pub(super) fn unread(text: &str, error: &serde_json::Error, start: Start, expected: &str) -> Wrong {
    match scan::broken(text, error, start) {
        Some(what) => (FieldCode::WrongType, what),
        None => wrong_type(expected),
    }
}

fn required(name: &str, members: &Members<'_>, known: &[&str]) -> Wrong {
    let what = missing(name, unknown(members, known));
    (FieldCode::Required, what)
}

pub(super) fn wrong_type(expected: &str) -> Wrong {
    (FieldCode::WrongType, format!("this must be {expected}"))
}
