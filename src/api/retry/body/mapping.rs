//! `errormapping`: pairs of a status or cause, and the stream for its failures.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::{
    faults::{Faults, FieldCode, fault},
    object::{Object, whole},
    scan,
};

/// Entries, at most: more than there are statuses and causes.
pub(super) const MAPPING_LEN_MAX: usize = 1000;

/// Reads the pairs of `responsecode` and `stream`.
pub(super) fn read(
    object: &Object<'_>,
    value: &RawValue,
    faults: &mut Faults,
) -> Option<Vec<(String, String)>> {
    let at = object.pointer("errormapping");
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(value.get()) else {
        let what = "this must be an array of {\"responsecode\", \"stream\"}";
        object.wrong("errormapping", what, faults);
        return None;
    };
    if entries.len() > MAPPING_LEN_MAX {
        let what = format!("this has at most {MAPPING_LEN_MAX} entries");
        fault(faults, &at, FieldCode::TooLong, &what);
        return None;
    }
    let mut mapping = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let at = format!("{at}/{index}");
        let Some(entry) = Object::parse(entry.get(), at, &["responsecode", "stream"], faults)
        else {
            continue;
        };
        let code = entry.required("responsecode", faults);
        let code = code.and_then(|value| {
            let text = scan::string(value);
            let number = || Some(Cow::Owned(whole(value)?.to_string()));
            let code = text.or_else(number);
            if code.is_none() {
                entry.wrong("responsecode", "this must be a string or a number", faults);
            }
            code
        });
        if let (Some(code), Some(stream)) = (code, entry.text("stream", faults)) {
            mapping.push((code.trim().to_owned(), stream.into_owned()));
        }
    }
    Some(mapping)
}
