//! `errormapping`: from the cause of a retry's failure to the error stream of the record. Pure.

use std::sync::Arc;

use crate::{
    dispatch::{KeyInvalid, outcome::table::CauseTable},
    storage::Stream,
};

/// The error streams of a retry's failures.
///
/// The default uses the gateway's outcome table, as a first dispatch does. With a mapping, causes that it does not name
/// go to the stream of the role `default`, also if the mapping is empty.
#[derive(Clone, Debug, Default)]
pub struct ErrorMapping(pub(super) Option<CauseTable<Arc<Stream>>>);

/// An entry that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of the mapping: {reason}")]
pub struct MappingInvalid {
    /// Its place in the list, from 0.
    pub index: usize,
    /// What is wrong, and what would be right.
    pub reason: KeyInvalid,
}

impl ErrorMapping {
    /// Reads pairs of `responsecode` and stream. Of two entries with one code the later wins.
    ///
    /// Codes: a status (`404`), a class (`4xx`), a cause (`timeout`), `network`, `unexpectedError` (every cause that is not
    /// a status), `default`. The closest one that fits is used, in this order.
    ///
    /// # Errors
    /// The first entry whose code is none of these.
    pub fn parse<C: AsRef<str>>(
        entries: impl IntoIterator<Item = (C, Arc<Stream>)>,
    ) -> Result<Self, MappingInvalid> {
        let mut table = CauseTable::default();
        for (index, (code, stream)) in entries.into_iter().enumerate() {
            table
                .set(code.as_ref(), stream)
                .map_err(|reason| MappingInvalid { index, reason })?;
        }
        Ok(Self(Some(table)))
    }

    /// Returns whether the request has a mapping.
    #[cfg(test)]
    pub(crate) fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dispatch::Cause,
        model::ids::{Incarnation, StreamId},
        storage::StreamConfig,
    };

    fn stream(name: &str) -> Arc<Stream> {
        Arc::new(Stream {
            id: StreamId([0; 16]),
            incarnation: Incarnation(1),
            name: name.parse().unwrap(),
            partitions: 1,
            config: StreamConfig::default(),
            revision: 1,
            events: Vec::new(),
            last_purge: None,
        })
    }

    #[test]
    fn the_closest_code_wins_and_of_equal_ones_the_last() {
        let codes = [
            ("404", "first"),
            ("4xx", "client"),
            ("404", "exact"),
            ("network", "network"),
            ("dns", "names"),
            ("unexpectedError", "unexpected"),
            ("default", "rest"),
        ];
        let pairs = codes.map(|(code, name)| (code, stream(name)));
        let mapping = ErrorMapping::parse(pairs).unwrap();
        let cases = [
            (Cause::Status(404), "exact"),
            (Cause::Status(418), "client"),
            (Cause::Status(503), "rest"),
            (Cause::Dns, "names"),
            (Cause::Timeout, "network"),
            (Cause::Invalid, "unexpected"),
        ];
        for (cause, expected) in cases {
            let found = mapping.0.as_ref().unwrap().find(cause).unwrap();
            assert_eq!(found.name.as_str(), expected, "{cause}");
        }
        let none = ErrorMapping::parse([("404", stream("exact"))]).unwrap();
        assert!(none.0.unwrap().find(Cause::Connect).is_none());
    }

    #[test]
    fn a_code_that_is_none_is_told_with_its_place() {
        for wrong in ["", "40", "4xy", "6xx", "Network", "404,405"] {
            let pairs = [("404", stream("good")), (wrong, stream("bad"))];
            let invalid = ErrorMapping::parse(pairs).unwrap_err();
            assert_eq!(invalid.index, 1, "{wrong:?}");
        }
    }
}
