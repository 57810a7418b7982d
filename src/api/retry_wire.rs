//! Body of `POST /stream/retry`: the sample's five members, and three of ours.
//!
//! Numbers may come as strings and strings of digits as numbers, since the sample takes both.

use std::{borrow::Cow, time::Duration};

use serde_json::value::RawValue;

use crate::ingest::{FieldCode, json};

use super::object::{self, Faults, Object, fault, whole};

const MEMBERS: [&str; 8] = [
    "streamOCIDToRetry",
    "noOfMessagesToProcess",
    "readAfterOffset",
    "readPartition",
    "errormapping",
    "dryRun",
    "redeliver",
    "timeBudgetMs",
];
/// Entries of `errormapping`: more than there are statuses and causes.
const MAPPING_LEN_MAX: usize = 1000;

/// What is asked, streams still by name.
#[derive(Debug, PartialEq)]
pub(super) struct Retry {
    pub(super) stream: String,
    pub(super) records_max: u64,
    /// -1 means from the earliest record.
    pub(super) after: i64,
    pub(super) partition: ReadPartition,
    /// `responsecode` and `stream` of each entry.
    pub(super) mapping: Vec<(String, String)>,
    pub(super) dry_run: bool,
    pub(super) redeliver: bool,
    pub(super) time_budget: Duration,
}

/// Which partitions.
#[derive(Debug, PartialEq)]
pub(super) enum ReadPartition {
    One(u16),
    /// `"*"`
    All,
}

/// What the configuration allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) records_max: u64,
    /// Also what is meant if nothing is said.
    pub(super) time_budget: Duration,
}

impl Retry {
    /// Reads a body, or names every fault of it.
    pub(super) fn parse(body: &[u8], bounds: Bounds) -> Result<Self, Faults> {
        let (object, mut faults) = object::body(body, &MEMBERS)?;
        let stream = object.text("streamOCIDToRetry", &mut faults);
        let most = i128::from(bounds.records_max);
        let records_max = required(&object, "noOfMessagesToProcess", 1, most, &mut faults);
        let most = i128::from(i64::MAX);
        let after = required(&object, "readAfterOffset", -1, most, &mut faults);
        let partition = object.required("readPartition", &mut faults);
        let partition = partition.and_then(|value| read_partition(&object, value, &mut faults));
        let mapping = object.required("errormapping", &mut faults);
        let mapping = mapping.and_then(|value| read_mapping(&object, value, &mut faults));
        let dry_run = object.flag("dryRun", &mut faults);
        let redeliver = object.flag("redeliver", &mut faults);
        let time_budget = match object.get("timeBudgetMs") {
            None => Some(bounds.time_budget),
            Some(value) => {
                let most = i128::try_from(bounds.time_budget.as_millis()).unwrap_or(i128::MAX);
                let ms = in_range(&object, "timeBudgetMs", value, 1, most, &mut faults);
                ms.map(|ms| Duration::from_millis(ms.unsigned_abs()))
            }
        };
        match (stream, records_max, after, partition, mapping, time_budget) {
            (
                Some(stream),
                Some(records_max),
                Some(after),
                Some(partition),
                Some(mapping),
                Some(time_budget),
            ) if faults.is_empty() => Ok(Self {
                stream: stream.into_owned(),
                records_max: records_max.unsigned_abs(),
                after,
                partition,
                mapping,
                dry_run,
                redeliver,
                time_budget,
            }),
            _ => Err(faults),
        }
    }
}

fn required(
    object: &Object<'_>,
    name: &str,
    least: i128,
    most: i128,
    faults: &mut Faults,
) -> Option<i64> {
    let value = object.required(name, faults)?;
    in_range(object, name, value, least, most, faults)
}

fn in_range(
    object: &Object<'_>,
    name: &str,
    value: &RawValue,
    least: i128,
    most: i128,
    faults: &mut Faults,
) -> Option<i64> {
    let number = whole(value)
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| i64::try_from(number).ok());
    if number.is_none() {
        let what = format!("this must be a whole number from {least} to {most}");
        object.wrong(name, &what, faults);
    }
    number
}

fn read_partition(
    object: &Object<'_>,
    value: &RawValue,
    faults: &mut Faults,
) -> Option<ReadPartition> {
    if json::string(value).as_deref() == Some("*") {
        return Some(ReadPartition::All);
    }
    let number = whole(value).and_then(|number| u16::try_from(number).ok());
    if number.is_none() {
        let what = "this must be the number of a partition such as \"0\", or \"*\"";
        object.wrong("readPartition", what, faults);
    }
    number.map(ReadPartition::One)
}

fn read_mapping(
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
            let text = json::string(value);
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

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        records_max: 100_000,
        time_budget: Duration::from_millis(240_000),
    };

    /// The sample's own request, one member replaced, or removed by an empty text.
    fn with(name: &str, value: &str) -> String {
        let members = [
            ("streamOCIDToRetry", r#""ServerUnavailableStream""#),
            ("noOfMessagesToProcess", "5"),
            ("readAfterOffset", "405"),
            ("readPartition", r#""0""#),
            (
                "errormapping",
                r#"[{"responsecode":"404","stream":"A1"},{"responsecode":"unexpectedError","stream":"B1"}]"#,
            ),
        ];
        let known = members.iter().any(|(member, _)| *member == name);
        let mut all: Vec<_> = members.to_vec();
        if !known && !name.is_empty() {
            all.push((name, ""));
        }
        let members = all.iter().filter_map(|(member, default)| {
            let text = if *member == name { value } else { default };
            (!text.is_empty()).then(|| format!("\"{member}\":{text}"))
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }

    fn parse(name: &str, value: &str) -> Result<Retry, Vec<(String, FieldCode)>> {
        let faults = |faults: Faults| faults.into_iter().map(|f| (f.pointer, f.code)).collect();
        Retry::parse(with(name, value).as_bytes(), BOUNDS).map_err(faults)
    }

    #[track_caller]
    fn check(name: &str, value: &str, expected: impl Fn(&mut Retry)) {
        let mut retry = Retry {
            stream: "ServerUnavailableStream".into(),
            records_max: 5,
            after: 405,
            partition: ReadPartition::One(0),
            mapping: vec![
                ("404".into(), "A1".into()),
                ("unexpectedError".into(), "B1".into()),
            ],
            dry_run: false,
            redeliver: false,
            time_budget: BOUNDS.time_budget,
        };
        expected(&mut retry);
        assert_eq!(parse(name, value), Ok(retry), "{name}: {value}");
    }

    #[track_caller]
    fn check_refused(name: &str, value: &str, pointer: &str, code: FieldCode) {
        let expected = Err(vec![(pointer.to_owned(), code)]);
        assert_eq!(parse(name, value), expected, "{name}: {value}");
    }

    #[test]
    fn what_the_sample_takes_is_taken() {
        check("", "", |_| {});
        check("noOfMessagesToProcess", r#""5""#, |_| {});
        check("noOfMessagesToProcess", "100000", |retry| {
            retry.records_max = 100_000
        });
        check("readAfterOffset", r#""405""#, |_| {});
        check("readAfterOffset", "-1", |retry| retry.after = -1);
        check("readAfterOffset", r#""-1""#, |retry| retry.after = -1);
        check("readAfterOffset", "0", |retry| retry.after = 0);
        check("readAfterOffset", "4294967296000", |retry| {
            retry.after = 4_294_967_296_000
        });
        check("readAfterOffset", "9223372036854775807", |retry| {
            retry.after = i64::MAX
        });
        check("readPartition", "0", |_| {});
        check("readPartition", "255", |retry| {
            retry.partition = ReadPartition::One(255)
        });
        check("readPartition", r#""*""#, |retry| {
            retry.partition = ReadPartition::All
        });
        check("errormapping", "[]", |retry| retry.mapping.clear());
        check(
            "errormapping",
            r#"[{"responsecode":404,"stream":"A1"}]"#,
            |retry| {
                retry.mapping.truncate(1);
            },
        );
        check("dryRun", "true", |retry| retry.dry_run = true);
        check("redeliver", "true", |retry| retry.redeliver = true);
        check("redeliver", "false", |_| {});
        check("timeBudgetMs", "240000", |_| {});
        check("timeBudgetMs", "1", |retry| {
            retry.time_budget = Duration::from_millis(1)
        });
    }

    #[test]
    fn each_bad_input_has_its_answer() {
        use FieldCode::{Required, TooLong, UnknownMember, WrongType};
        for name in &MEMBERS[..5] {
            check_refused(name, "", &format!("/{name}"), Required);
            let pointer = format!("/{name}");
            check_refused(name, "null", &pointer, WrongType);
            check_refused(name, "{}", &pointer, WrongType);
        }
        for (name, values) in [
            ("streamOCIDToRetry", &["1", "[]"][..]),
            (
                "noOfMessagesToProcess",
                &[
                    "0",
                    "-5",
                    "\"0\"",
                    "\"x\"",
                    "1.5",
                    "1e3",
                    "100001",
                    "99999999999999999999",
                    "true",
                    "\"\"",
                ],
            ),
            (
                "readAfterOffset",
                &[
                    "-2",
                    "\"x\"",
                    "\"\"",
                    "1.0",
                    "9223372036854775808",
                    "[]",
                    "\"- 1\"",
                ],
            ),
            (
                "readPartition",
                &["-1", "\"x\"", "65536", "\"\"", "0.5", "true"],
            ),
            ("errormapping", &["\"x\"", "1"]),
            ("dryRun", &["1", "null", "\"true\""]),
            ("redeliver", &["\"x\""]),
            ("timeBudgetMs", &["0", "240001", "null", "\"x\"", "-1"]),
        ] {
            for value in values {
                check_refused(name, value, &format!("/{name}"), WrongType);
            }
        }
        for name in ["group", "filter", "ratePerSecond", "x"] {
            check_refused(name, "1", &format!("/{name}"), UnknownMember);
        }
        let entry = |entry: &str| format!("[{entry}]");
        let at = |member: &str| format!("/errormapping/0{member}");
        check_refused("errormapping", &entry("1"), &at(""), WrongType);
        check_refused(
            "errormapping",
            &entry(r#"{"stream":"A1"}"#),
            &at("/responsecode"),
            Required,
        );
        check_refused(
            "errormapping",
            &entry(r#"{"responsecode":"404"}"#),
            &at("/stream"),
            Required,
        );
        check_refused(
            "errormapping",
            &entry(r#"{"responsecode":null,"stream":"A1"}"#),
            &at("/responsecode"),
            WrongType,
        );
        check_refused(
            "errormapping",
            &entry(r#"{"responsecode":1,"stream":"A1","x":1}"#),
            &at("/x"),
            UnknownMember,
        );
        let many = vec![r#"{"responsecode":"404","stream":"A1"}"#; MAPPING_LEN_MAX + 1].join(",");
        check_refused("errormapping", &entry(&many), "/errormapping", TooLong);
    }

    #[test]
    fn a_body_that_is_no_object_is_refused_and_all_faults_come_at_once() {
        for body in ["", "[]", "null", "{", "x", "\"x\""] {
            assert_eq!(
                Retry::parse(body.as_bytes(), BOUNDS).unwrap_err().len(),
                1,
                "{body}"
            );
        }
        assert_eq!(Retry::parse(b"{}", BOUNDS).unwrap_err().len(), 5);
        assert_eq!(
            Retry::parse(b"\xff", BOUNDS).unwrap_err()[0].code,
            FieldCode::NotUtf8
        );
    }
}
