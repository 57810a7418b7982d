//! The filter of a retry. Pure.

use bytes::Bytes;

use crate::{
    dispatch::{
        KeyInvalid, TargetId,
        outcome::{error_record::cause, table::CauseTable},
    },
    model::{layout::CallParts, record::Record},
    runtime::clock::Timestamp,
};

/// Conditions on records; the default is met by every record.
///
/// Each kind of condition with entries must be met by one of its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Its target.
    pub targets: Vec<TargetId>,
    /// The cause of its failure. Records of the source stream have none, so they meet no entry.
    pub causes: Causes,
    /// Its key; an empty one is met by records without a key.
    pub keys: Vec<Bytes>,
    /// Its `targetRestApiOperation`.
    pub operations: Vec<String>,
    /// Stored then or later.
    pub from: Option<Timestamp>,
    /// Stored before then.
    pub to: Option<Timestamp>,
}

/// A set of causes, in the words of `errormapping`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Causes(Option<CauseTable<()>>);

impl Causes {
    /// Adds the causes of a word: a status (`404`), a class (`4xx`), a cause (`timeout`), `network`, `unexpectedError`,
    /// or `default` (every cause).
    ///
    /// # Errors
    /// If the word is none of these.
    pub fn add(&mut self, word: &str) -> Result<(), KeyInvalid> {
        let mut table = self.0.take().unwrap_or_default();
        let added = table.set(word, ());
        self.0 = Some(table);
        added
    }

    fn contain(&self, record: &Record) -> bool {
        let Some(table) = &self.0 else { return true };
        cause(record).is_some_and(|cause| table.find(cause).is_some())
    }
}

impl Filter {
    /// Returns whether a record meets all conditions but those of time.
    pub(super) fn is_met_by(&self, record: &Record) -> bool {
        let is_covered = || self.targets.iter().any(|target| target.covers(record));
        (self.keys.is_empty() || self.keys.contains(&record.key))
            && self.causes.contain(record)
            && (self.targets.is_empty() || is_covered())
            && (self.operations.is_empty() || self.has_operation(record))
    }

    fn has_operation(&self, record: &Record) -> bool {
        CallParts::of(record)
            .is_ok_and(|parts| self.operations.iter().any(|one| *one == parts.operation))
    }

    /// Returns whether a condition needs the record itself.
    pub(super) fn looks_at_records(&self) -> bool {
        let Self {
            targets,
            causes,
            keys,
            operations,
            from: _,
            to: _,
        } = self;
        causes.0.is_some() || !(targets.is_empty() && keys.is_empty() && operations.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::record::HeadersBuilder;

    fn record(key: &str, operation: &str, headers: &[(&str, &str)]) -> Record {
        let mut builder = HeadersBuilder::default();
        for (name, value) in headers {
            builder.push(name, value);
        }
        let message =
            json!({"targetRestApi": "https://a.example/x", "targetRestApiOperation": operation});
        Record {
            key: key.to_owned().into(),
            value: message.to_string().into(),
            headers: builder.build(),
        }
    }

    fn causes(words: &[&str]) -> Causes {
        let mut causes = Causes::default();
        for word in words {
            causes.add(word).unwrap();
        }
        causes
    }

    #[test]
    fn a_cause_is_met_in_the_words_of_the_mapping() {
        let status = |status| [("cause-class", "status"), ("cause-status", status)];
        let cases: [(&[&str], [bool; 4]); 8] = [
            // 503, 404, timeout, none
            (&[], [true, true, true, true]),
            (&["503"], [true, false, false, false]),
            (&["4xx", "5xx"], [true, true, false, false]),
            (&["timeout"], [false, false, true, false]),
            (&["network", "404"], [false, true, true, false]),
            (&["unexpectedError"], [false, false, true, false]),
            (&["dns"], [false, false, false, false]),
            (&["default"], [true, true, true, false]),
        ];
        let records = [
            record("k", "POST", &status("503")),
            record("k", "POST", &status("404")),
            record("k", "POST", &[("cause-class", "timeout")]),
            record("k", "POST", &[]),
        ];
        for (words, expected) in cases {
            let filter = Filter {
                causes: causes(words),
                ..Filter::default()
            };
            let met = [0, 1, 2, 3].map(|at| filter.is_met_by(&records[at]));
            assert_eq!(met, expected, "{words:?}");
        }
        assert!(Causes::default().add("4xy").is_err());
    }

    #[test]
    fn each_condition_must_be_met_by_one_of_its_entries() {
        let target = |text: &str| TargetId::read(text).unwrap();
        let whole = Filter {
            targets: vec![
                target("http://b.example"),
                target("https://a.example:443/x"),
            ],
            causes: causes(&["503"]),
            keys: vec!["k1".into(), Bytes::new()],
            operations: vec!["PUT".into(), "DELETE".into()],
            ..Filter::default()
        };
        let down = [("cause-class", "status"), ("cause-status", "503")];
        for (key, operation, met) in [
            ("k1", "PUT", true),
            ("", "DELETE", true),
            ("k2", "PUT", false),
            ("k1", "POST", false),
            ("k1", "put", false),
        ] {
            let record = record(key, operation, &down);
            assert_eq!(whole.is_met_by(&record), met, "{key} {operation}");
        }
        assert!(!whole.is_met_by(&record("k1", "PUT", &[])));
        let elsewhere = Filter {
            targets: vec![target("https://a.example:8443")],
            ..whole.clone()
        };
        assert!(!elsewhere.is_met_by(&record("k1", "PUT", &down)));
        let no_message = Record {
            value: "[]".into(),
            ..record("k1", "PUT", &down)
        };
        assert!(!whole.is_met_by(&no_message));
    }

    #[test]
    fn only_what_stands_in_records_needs_them_read() {
        let time = Filter {
            from: Some(Timestamp(1)),
            to: Some(Timestamp(2)),
            ..Filter::default()
        };
        assert!(!time.looks_at_records() && time.is_met_by(&record("k", "POST", &[])));
        let key = Filter {
            keys: vec!["k".into()],
            ..Filter::default()
        };
        let cause = Filter {
            causes: causes(&["404"]),
            ..Filter::default()
        };
        let operation = Filter {
            operations: vec!["PUT".into()],
            ..Filter::default()
        };
        let target = Filter {
            targets: vec![TargetId::read("http://a").unwrap()],
            ..Filter::default()
        };
        for filter in [key, cause, operation, target] {
            assert!(filter.looks_at_records(), "{filter:?}");
        }
    }
}
