//! Bodies that describe a stream.

use std::ops::RangeInclusive;

use crate::{
    json::{
        faults::{Faults, FieldCode, fault},
        object::{self, Object},
        scan,
    },
    model::ids::StreamName,
};

const PARTITIONS: RangeInclusive<u64> = 1..=256;
const RETENTION_HOURS: RangeInclusive<u64> = 0..=1_000_000;
const RETENTION_BYTES: RangeInclusive<u64> = 0..=u64::MAX >> 11;
const OCID_BYTES_MAX: usize = 255;
const REASON_LEN_MAX: usize = 1_024;

/// Body of `POST /v1/streams`.
#[derive(Debug, PartialEq)]
pub(in crate::api) struct NewStream {
    pub(in crate::api) name: StreamName,
    pub(in crate::api) partitions: u16,
    pub(in crate::api) ocid: Option<String>,
    pub(in crate::api) retention_hours: Option<u32>,
    pub(in crate::api) retention_bytes: Option<u64>,
}

/// Body of `PATCH /v1/streams/{stream}`: an absent member keeps its value, `null` sets the default.
#[derive(Debug, PartialEq)]
pub(in crate::api) struct StreamChange {
    pub(in crate::api) partitions: Option<u16>,
    pub(in crate::api) retention_hours: Option<Option<u32>>,
    pub(in crate::api) retention_bytes: Option<Option<u64>>,
}

/// Body of `POST /v1/streams/{stream}/purge`.
#[derive(Debug, PartialEq)]
pub(in crate::api) struct Purge {
    pub(in crate::api) reason: String,
    pub(in crate::api) discard_pending: bool,
}

impl Purge {
    pub(in crate::api) fn parse(body: &[u8]) -> Result<Self, Faults> {
        let (object, mut faults) = object::body(body, &["reason", "discardPending"])?;
        let reason = reason(&object, &mut faults);
        let discard_pending = object.flag("discardPending", &mut faults);
        match reason {
            Some(reason) if faults.is_empty() => Ok(Self {
                reason,
                discard_pending,
            }),
            _ => Err(faults),
        }
    }
}

impl NewStream {
    pub(in crate::api) fn parse(body: &[u8]) -> Result<Self, Faults> {
        let known = [
            "name",
            "partitions",
            "retentionHours",
            "retentionBytes",
            "ocid",
        ];
        let (object, mut faults) = object::body(body, &known)?;
        let name = object.text("name", &mut faults);
        let name = name.map(|name| name.parse::<StreamName>());
        match &name {
            Some(Err(error)) => object.wrong("name", &error.to_string(), &mut faults),
            Some(Ok(name)) if name.is_reserved() => {
                let what = format!("{name} is reserved for the gateway; take another name");
                object.wrong("name", &what, &mut faults);
            }
            _ => {}
        }
        let partitions = number(&object, "partitions", PARTITIONS, &mut faults);
        let (retention_hours, retention_bytes) = retention(&object, &mut faults);
        let ocid = ocid(&object, &mut faults);
        match name {
            Some(Ok(name)) if faults.is_empty() => Ok(Self {
                name,
                partitions: partitions.flatten().map_or(1, narrow),
                ocid,
                retention_hours: retention_hours.flatten(),
                retention_bytes: retention_bytes.flatten(),
            }),
            _ => Err(faults),
        }
    }
}

impl StreamChange {
    pub(in crate::api) fn parse(body: &[u8]) -> Result<Self, Faults> {
        let known = ["partitions", "retentionHours", "retentionBytes"];
        let (object, mut faults) = object::body(body, &known)?;
        let partitions = number(&object, "partitions", PARTITIONS, &mut faults);
        if partitions == Some(None) {
            object.wrong("partitions", "this must be a number", &mut faults);
        }
        let (retention_hours, retention_bytes) = retention(&object, &mut faults);
        match faults.is_empty() {
            true => Ok(Self {
                partitions: partitions.flatten().map(narrow),
                retention_hours,
                retention_bytes,
            }),
            false => Err(faults),
        }
    }
}

/// Returns `None` if the member is absent or wrong, `Some(None)` if it is `null`.
fn number(
    object: &Object<'_>,
    name: &str,
    range: RangeInclusive<u64>,
    faults: &mut Faults,
) -> Option<Option<u64>> {
    let value = object.get(name)?;
    if scan::is_null(value) {
        return Some(None);
    }
    let number = value.get().parse().ok().filter(|n| range.contains(n));
    if number.is_none() {
        let (least, most) = (range.start(), range.end());
        let what = format!("this must be a number from {least} to {most}");
        object.wrong(name, &what, faults);
    }
    number.map(Some)
}

/// Returns hours and bytes of the retention, each as [`number`] does.
fn retention(
    object: &Object<'_>,
    faults: &mut Faults,
) -> (Option<Option<u32>>, Option<Option<u64>>) {
    let hours = number(object, "retentionHours", RETENTION_HOURS, faults);
    let bytes = number(object, "retentionBytes", RETENTION_BYTES, faults);
    (hours.map(|hours| hours.map(narrow)), bytes)
}

fn ocid(object: &Object<'_>, faults: &mut Faults) -> Option<String> {
    let value = object.get("ocid").filter(|value| !scan::is_null(value))?;
    let Some(text) = scan::string(value) else {
        object.wrong("ocid", "this must be a string or null", faults);
        return None;
    };
    if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let what = "this must be a text without blanks and control characters";
        object.wrong("ocid", what, faults);
        return None;
    }
    if text.len() > OCID_BYTES_MAX {
        let what = format!("this has at most {OCID_BYTES_MAX} bytes");
        fault(faults, &object.pointer("ocid"), FieldCode::TooLong, &what);
        return None;
    }
    Some(text.into_owned())
}

/// Returns the reason of a purge: one line, because the log shows it in one.
fn reason(object: &Object<'_>, faults: &mut Faults) -> Option<String> {
    let text = object.text("reason", faults)?;
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        let what = "this must be a text of one line that is not blank, such as \"wrong target\"";
        object.wrong("reason", what, faults);
        return None;
    }
    if text.chars().count() > REASON_LEN_MAX {
        let what = format!("this has at most {REASON_LEN_MAX} characters");
        let pointer = object.pointer("reason");
        fault(faults, &pointer, FieldCode::TooLong, &what);
        return None;
    }
    Some(text.into_owned())
}

/// Narrows a number whose range [`number`] has checked.
fn narrow<T: TryFrom<u64> + Default>(number: u64) -> T {
    T::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_new(body: &str, expected: &[(&str, FieldCode)]) {
        let faults = NewStream::parse(body.as_bytes()).err().unwrap_or_default();
        let faults: Vec<_> = faults.iter().map(|f| (&*f.pointer, f.code)).collect();
        assert_eq!(faults, expected, "{body}");
    }

    #[test]
    fn every_fault_of_a_new_stream_is_named() {
        check_new(r#"{"name":"abc"}"#, &[]);
        check_new(r#"{"name":"abc","partitions":256,"ocid":"o"}"#, &[]);
        check_new("[]", &[("", FieldCode::WrongType)]);
        check_new("{}", &[("/name", FieldCode::Required)]);
        check_new(
            r#"{"name":"a b","partitions":257,"ocid":1,"x":1}"#,
            &[
                ("/x", FieldCode::UnknownMember),
                ("/name", FieldCode::WrongType),
                ("/partitions", FieldCode::WrongType),
                ("/ocid", FieldCode::WrongType),
            ],
        );
        let long = format!(r#"{{"name":"abc","ocid":"{}"}}"#, "o".repeat(256));
        check_new(&long, &[("/ocid", FieldCode::TooLong)]);
        check_new(
            r#"{"name":"abc","name":"abc"}"#,
            &[("/name", FieldCode::WrongType)],
        );
    }

    #[track_caller]
    fn check_purge(body: &str, expected: &[(&str, FieldCode)]) {
        let faults = Purge::parse(body.as_bytes()).err().unwrap_or_default();
        let faults: Vec<_> = faults.iter().map(|f| (&*f.pointer, f.code)).collect();
        assert_eq!(faults, expected, "{body}");
    }

    #[test]
    fn a_purge_needs_a_reason_and_keeps_what_waits_unless_it_is_told_otherwise() {
        let purge = |reason: &str, discard_pending| Purge {
            reason: reason.into(),
            discard_pending,
        };
        for (body, expected) in [
            (r#"{"reason":"x"}"#, purge("x", false)),
            (
                r#"{"reason":"wrong \u00e4","discardPending":false}"#,
                purge("wrong \u{e4}", false),
            ),
            (r#"{"reason":"x","discardPending":true}"#, purge("x", true)),
        ] {
            assert_eq!(Purge::parse(body.as_bytes()), Ok(expected), "{body}");
        }
        let long = |len| format!(r#"{{"reason":"{}"}}"#, "ä".repeat(len));
        check_purge(&long(1_024), &[]);
        check_purge(&long(1_025), &[("/reason", FieldCode::TooLong)]);
        check_purge("[]", &[("", FieldCode::WrongType)]);
        check_purge("{}", &[("/reason", FieldCode::Required)]);
        for reason in ["7", "null", "\"\"", "\" \"", r#""a\nb""#] {
            let body = format!(r#"{{"reason":{reason}}}"#);
            check_purge(&body, &[("/reason", FieldCode::WrongType)]);
        }
        for flag in ["null", "1", "\"true\""] {
            let body = format!(r#"{{"reason":"x","discardPending":{flag}}}"#);
            check_purge(&body, &[("/discardPending", FieldCode::WrongType)]);
        }
        check_purge(
            r#"{"because":"x","discardPending":2}"#,
            &[
                ("/because", FieldCode::UnknownMember),
                ("/reason", FieldCode::Required),
                ("/discardPending", FieldCode::WrongType),
            ],
        );
    }

    #[test]
    fn a_change_is_of_partitions_and_retention() {
        let change = StreamChange::parse(br#"{"partitions":2}"#).unwrap();
        let expected = StreamChange {
            partitions: Some(2),
            retention_hours: None,
            retention_bytes: None,
        };
        assert_eq!(change, expected);
        let change = br#"{"retentionHours":24,"retentionBytes":null}"#;
        let expected = StreamChange {
            partitions: None,
            retention_hours: Some(Some(24)),
            retention_bytes: Some(None),
        };
        assert_eq!(StreamChange::parse(change).unwrap(), expected);
        assert!(StreamChange::parse(br#"{"retentionHours":1000001}"#).is_err());
        assert!(StreamChange::parse(br#"{"retentionBytes":-1}"#).is_err());
        assert!(StreamChange::parse(br#"{"partitions":null}"#).is_err());
        assert!(StreamChange::parse(br#"{"name":"x"}"#).is_err());
    }
}
