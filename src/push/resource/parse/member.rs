//! Reads members of a known type. Each function notes faults; a faulty member is then treated as absent.

use std::ops::RangeInclusive;

use serde_json::value::RawValue;

use crate::json::{
    faults::{Faults, FieldCode, fault},
    object::Object,
    scan,
};

pub(super) use crate::push::resource::url_pattern::COLUMN_LEN_MAX;

/// Characters of a header's value in a rule, at most.
pub(super) const TAG_LEN_MAX: usize = 4096;
/// Entries of a list, at most, unless the list has its own bound.
pub(super) const ENTRIES_LEN_MAX: usize = 1024;

/// Reads a whole number.
pub(super) fn whole(
    object: &Object<'_>,
    name: &str,
    range: RangeInclusive<u64>,
    faults: &mut Faults,
) -> Option<u64> {
    let value = object.get(name)?;
    let number = value.get().parse().ok().filter(|n| range.contains(n));
    if number.is_none() {
        let (least, most) = (range.start(), range.end());
        let what = format!("this must be a whole number from {least} to {most}");
        object.wrong(name, &what, faults);
    }
    number
}

/// Narrows a number whose range was checked before.
pub(super) fn narrow<T: TryFrom<u64> + Default>(number: u64) -> T {
    T::try_from(number).unwrap_or_default()
}

/// Reads a string with a number of characters.
pub(super) fn text(
    object: &Object<'_>,
    name: &str,
    len: RangeInclusive<usize>,
    faults: &mut Faults,
) -> Option<String> {
    let value = object.get(name)?;
    text_at(value, &object.pointer(name), len, faults)
}

/// Reads a string with a number of characters.
pub(super) fn text_at(
    value: &RawValue,
    at: &str,
    len: RangeInclusive<usize>,
    faults: &mut Faults,
) -> Option<String> {
    let (least, most) = (len.start(), len.end());
    let what = format!("this must be a string of {least} to {most} characters");
    let Some(text) = scan::string(value) else {
        fault(faults, at, FieldCode::WrongType, &what);
        return None;
    };
    let found = text.chars().count();
    if !len.contains(&found) {
        let code = match found > *most {
            true => FieldCode::TooLong,
            false => FieldCode::WrongType,
        };
        fault(faults, at, code, &what);
        return None;
    }
    Some(text.into_owned())
}

/// Reads one of several words.
pub(super) fn word<T: Copy>(
    object: &Object<'_>,
    name: &str,
    words: &[(T, &str)],
    faults: &mut Faults,
) -> Option<T> {
    let value = object.get(name)?;
    word_at(value, &object.pointer(name), words, faults)
}

/// Reads one of several words.
pub(super) fn word_at<T: Copy>(
    value: &RawValue,
    at: &str,
    words: &[(T, &str)],
    faults: &mut Faults,
) -> Option<T> {
    let text = scan::string(value);
    let found = words.iter().find(|(_, word)| text.as_deref() == Some(word));
    if found.is_none() {
        let words: Vec<_> = words.iter().map(|(_, word)| *word).collect();
        let what = match &words[..] {
            [only] => format!("this must be \"{only}\""),
            _ => format!("this must be one of {}", words.join(", ")),
        };
        fault(faults, at, FieldCode::WrongType, &what);
    }
    found.map(|(value, _)| *value)
}

/// Reads a member that has one legal value, if it is there.
pub(super) fn constant(object: &Object<'_>, name: &str, value: &str, faults: &mut Faults) {
    let _: Option<()> = word(object, name, &[((), value)], faults);
}

/// Reads a string and parses it; `None` if it is absent.
pub(super) fn parsed<T>(object: &Object<'_>, name: &str, faults: &mut Faults) -> Option<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    parsed_at(object.get(name)?, &object.pointer(name), faults)
}

/// Reads a string and parses it.
pub(super) fn parsed_at<T>(value: &RawValue, at: &str, faults: &mut Faults) -> Option<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let what = match scan::string(value).map(|text| text.parse()) {
        Some(Ok(parsed)) => return Some(parsed),
        Some(Err(error)) => error.to_string(),
        None => "this must be a string".into(),
    };
    fault(faults, at, FieldCode::WrongType, &what);
    None
}

/// Returns the elements of an array, each with its pointer; none if the array is absent.
pub(super) fn entries<'a>(
    object: &Object<'a>,
    name: &str,
    len: RangeInclusive<usize>,
    faults: &mut Faults,
) -> Vec<(String, &'a RawValue)> {
    let Some(value) = object.get(name) else {
        return Vec::new();
    };
    let (least, most) = (len.start(), len.end());
    let what = format!("this must be an array of {least} to {most} entries");
    let at = object.pointer(name);
    match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        Ok(entries) if len.contains(&entries.len()) => {
            let entries = entries.into_iter().enumerate();
            return entries
                .map(|(n, entry)| (format!("{at}/{n}"), entry))
                .collect();
        }
        Ok(entries) if entries.len() > *most => fault(faults, &at, FieldCode::TooLong, &what),
        _ => fault(faults, &at, FieldCode::WrongType, &what),
    }
    Vec::new()
}
