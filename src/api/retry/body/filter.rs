//! `filter`: an object; a record must match every member. Strings are reserved for expressions.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::value::RawValue;

use crate::{
    dispatch::TargetId,
    json::{
        faults::{Faults, FieldCode, fault},
        object::{Object, whole},
        scan,
    },
    retry::Filter,
    runtime::clock::Timestamp,
};

/// Its name in the body.
pub(super) const NAME: &str = "filter";
const MEMBERS: [&str; 6] = ["target", "cause", "key", "operation", "from", "to"];
const OPERATIONS: [&str; 5] = ["POST", "PUT", "PATCH", "DELETE", "GET"];
/// Entries of one member, at most.
pub(super) const ENTRIES_LEN_MAX: usize = 100;

/// Reads a filter, and adds its faults. `targets` are the configured targets by name.
pub(super) fn read(
    object: &Object<'_>,
    value: &RawValue,
    targets: &BTreeMap<String, TargetId>,
    faults: &mut Faults,
) -> Filter {
    let mut filter = Filter::default();
    if !value.get().starts_with('{') {
        let what = format!(
            "this must be an object with some of {}; expressions are not understood yet",
            MEMBERS.join(", ")
        );
        object.wrong(NAME, &what, faults);
        return filter;
    }
    let Some(members) = Object::parse(value.get(), object.pointer(NAME), &MEMBERS, faults) else {
        return filter;
    };
    each(&members, "target", faults, |text| {
        let named = targets.get(&*text).cloned().map(Ok);
        let target = named.unwrap_or_else(|| TargetId::read(&text));
        filter.targets.push(target?);
        Ok(())
    });
    each(&members, "cause", faults, |text| {
        filter.causes.add(&text).map_err(|error| error.to_string())
    });
    each(&members, "key", faults, |text| {
        filter.keys.push(text.into_owned().into());
        Ok(())
    });
    each(&members, "operation", faults, |text| {
        if !OPERATIONS.contains(&&*text) {
            return Err(format!("this must be one of {}", OPERATIONS.join(", ")));
        }
        filter.operations.push(text.into_owned());
        Ok(())
    });
    filter.from = time(&members, "from", faults);
    filter.to = time(&members, "to", faults);
    if let (Some(from), Some(to)) = (filter.from, filter.to)
        && from >= to
    {
        members.wrong("to", "this must be later than from", faults);
    }
    filter
}

/// Reads a string or an array of strings, of which a record must match one. A number counts as its digits.
fn each<'a>(
    object: &Object<'a>,
    name: &str,
    faults: &mut Faults,
    mut take: impl FnMut(Cow<'a, str>) -> Result<(), String>,
) {
    let Some(value) = object.get(name) else {
        return;
    };
    let at = object.pointer(name);
    let mut entry = |value: &'a RawValue, at: &str, faults: &mut Faults| {
        let number = || Some(Cow::Owned(whole(value)?.to_string()));
        let taken = match scan::string(value).or_else(number) {
            Some(text) => take(text),
            None => Err("this must be a string, a number, or an array of these".to_owned()),
        };
        if let Err(what) = taken {
            fault(faults, at, FieldCode::WrongType, &what);
        }
    };
    match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        Err(_) => entry(value, &at, faults),
        Ok(entries) if entries.is_empty() => {
            object.wrong(name, "no record meets an empty array", faults);
        }
        Ok(entries) if entries.len() > ENTRIES_LEN_MAX => {
            let what = format!("this has at most {ENTRIES_LEN_MAX} entries");
            fault(faults, &at, FieldCode::TooLong, &what);
        }
        Ok(entries) => {
            for (index, value) in entries.into_iter().enumerate() {
                entry(value, &format!("{at}/{index}"), faults);
            }
        }
    }
}

fn time(object: &Object<'_>, name: &str, faults: &mut Faults) -> Option<Timestamp> {
    let value = object.get(name)?;
    let time = scan::string(value).and_then(|text| Timestamp::parse(&text));
    if time.is_none() {
        let what = "this must be a time such as 2026-01-02T03:04:05Z";
        object.wrong(name, what, faults);
    }
    time
}
