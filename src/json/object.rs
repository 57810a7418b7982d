//! Reads a JSON body member by member, so that one answer names every fault.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    faults::{DEPTH_MAX, Faults, FieldCode, REPEATED, fault, is_full, pointer_to},
    nearest::{did_you_mean, missing},
    scan::{self, Members, Start},
};

/// An object, and the faults found in it so far.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    members: Members<'a>,
    /// Indexes of the members that are not known.
    unknown: Vec<usize>,
    at: String,
}

/// Returns the body as an object with no other members than `known`.
pub(crate) fn body<'a>(body: &'a [u8], known: &[&str]) -> Result<(Object<'a>, Faults), Faults> {
    let mut faults = Vec::new();
    let Ok(text) = std::str::from_utf8(body) else {
        fault(&mut faults, "", FieldCode::NotUtf8, "the body is not UTF-8");
        return Err(faults);
    };
    if !scan::depth_is_legal(body) {
        let what = format!("objects and arrays can be {DEPTH_MAX} deep");
        fault(&mut faults, "", FieldCode::TooLong, &what);
        return Err(faults);
    }
    match Object::parse(text, String::new(), known, &mut faults) {
        Some(object) => Ok((object, faults)),
        None => Err(faults),
    }
}

impl<'a> Object<'a> {
    /// Reads an object at the pointer `at`.
    pub(crate) fn parse(
        text: &'a str,
        at: String,
        known: &[&str],
        faults: &mut Faults,
    ) -> Option<Self> {
        let members: Members<'_> = match serde_json::from_str(text) {
            Ok(members) => members,
            Err(error) => {
                let broken = scan::broken(text, &error, Start::default());
                let what = broken.unwrap_or_else(|| "this must be a JSON object".into());
                fault(faults, &at, FieldCode::WrongType, &what);
                return None;
            }
        };
        let mut unknown = Vec::new();
        for (index, (name, _)) in members.0.iter().enumerate() {
            if is_full(faults) {
                break;
            }
            if !known.contains(&&**name) {
                unknown.push(index);
                let pointer = pointer_to(&at, name);
                let what = match known {
                    [] => "there are no members here".to_owned(),
                    known => {
                        let near = did_you_mean(name, known.iter().copied());
                        format!("the members are {}{near}", known.join(", "))
                    }
                };
                fault(faults, &pointer, FieldCode::UnknownMember, &what);
            }
        }
        for name in known {
            if members.count(name) > 1 {
                let pointer = format!("{at}/{name}");
                fault(faults, &pointer, FieldCode::WrongType, REPEATED);
            }
        }
        Some(Self {
            members,
            unknown,
            at,
        })
    }

    /// Returns the pointer of a member.
    pub(crate) fn pointer(&self, name: &str) -> String {
        format!("{}/{name}", self.at)
    }

    /// Returns the raw text of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.last(name)
    }

    /// Adds a fault of the type of a member.
    pub(crate) fn wrong(&self, name: &str, what: &str, faults: &mut Faults) {
        fault(faults, &self.pointer(name), FieldCode::WrongType, what);
    }

    /// Returns a required member; its absence is a fault.
    pub(crate) fn required(&self, name: &str, faults: &mut Faults) -> Option<&'a RawValue> {
        let value = self.get(name);
        if value.is_none() {
            let unknown = self.unknown.iter().map(|index| &*self.members.0[*index].0);
            let what = missing(name, unknown);
            fault(faults, &self.pointer(name), FieldCode::Required, &what);
        }
        value
    }

    /// Returns a required string.
    pub(crate) fn text(&self, name: &str, faults: &mut Faults) -> Option<Cow<'a, str>> {
        let value = self.required(name, faults)?;
        let text = scan::string(value);
        if text.is_none() {
            self.wrong(name, "this must be a string", faults);
        }
        text
    }

    /// Returns a boolean; `false` if it is absent.
    pub(crate) fn flag(&self, name: &str, faults: &mut Faults) -> bool {
        self.flag_or(name, false, faults)
    }

    /// Returns a boolean; `default` if it is absent.
    pub(crate) fn flag_or(&self, name: &str, default: bool, faults: &mut Faults) -> bool {
        match self.get(name).map(RawValue::get) {
            None => default,
            Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.wrong(name, "this must be true or false", faults);
                default
            }
        }
    }
}

/// Returns the whole number that `value` is, as a number or as a string of digits.
pub(crate) fn whole(value: &RawValue) -> Option<i128> {
    let text = value.get();
    let quoted = scan::string(value);
    let digits = quoted.as_deref().unwrap_or(text).trim();
    let (_, unsigned) = digits.split_at(usize::from(digits.starts_with('-')));
    let legal = !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    // An i128 holds every number of 38 digits, and every bound is smaller.
    (legal && digits.len() <= 38).then(|| digits.parse().ok())?
}
