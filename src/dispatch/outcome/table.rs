//! The outcome table: from a cause to the error stream of the record. Pure.
//!
//! Keys are those of `routes.md` "Causes": an exact status, a class of statuses, a cause, `network`, `unexpectedError`,
//! `default`. The closest key wins: status or cause, then class or `network`, then `unexpectedError`, then `default`.

use std::collections::{BTreeMap, HashMap};

use super::Cause;
use crate::{config::Roles, model::ids::StreamName};

/// A key of a table of causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Exact(Cause),
    Class(u16),
    Network,
    Unexpected,
    Default,
}

/// A text that is not a key of a table of causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key is a status such as 404, a class such as 4xx, a cause such as timeout, network, unexpectedError or default"
)]
pub struct KeyInvalid;

impl Key {
    fn parse(text: &str) -> Result<Self, KeyInvalid> {
        match (text, text.as_bytes()) {
            ("default", _) => Ok(Self::Default),
            ("unexpectedError", _) => Ok(Self::Unexpected),
            ("network", _) => Ok(Self::Network),
            (_, [class @ b'1'..=b'5', b'x', b'x']) => Ok(Self::Class(u16::from(class - b'0'))),
            (_, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']) => text
                .parse()
                .map(|status| Self::Exact(Cause::Status(status)))
                .map_err(|_| KeyInvalid),
            _ => Cause::without_status(text)
                .map(Self::Exact)
                .ok_or(KeyInvalid),
        }
    }

    /// Returns the keys that fit a cause, the closest first.
    fn fitting(cause: Cause) -> impl Iterator<Item = Self> {
        let group = match cause {
            Cause::Status(status) => Some(Self::Class(status / 100)),
            other => other.is_network().then_some(Self::Network),
        };
        let unexpected = cause.status().is_none().then_some(Self::Unexpected);
        [
            Some(Self::Exact(cause)),
            group,
            unexpected,
            Some(Self::Default),
        ]
        .into_iter()
        .flatten()
    }
}

/// A table with values by cause.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CauseTable<T>(HashMap<Key, T>);

impl<T> Default for CauseTable<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> CauseTable<T> {
    /// Sets the value of a key; a later one wins.
    pub(crate) fn set(&mut self, key: &str, value: T) -> Result<(), KeyInvalid> {
        self.0.insert(Key::parse(key)?, value);
        Ok(())
    }

    /// Returns the value of the closest key that fits.
    pub(crate) fn find(&self, cause: Cause) -> Option<&T> {
        Key::fitting(cause).find_map(|key| self.0.get(&key))
    }
}

/// The destination of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    /// The record counts as delivered.
    Delivered,
    /// An error stream.
    Stream(StreamName),
}

/// `[outcomes]` over the built-in table.
///
/// A configured entry wins over every built-in one, even a closer one. Only the configured `default` comes after them.
#[derive(Clone, Debug)]
pub(crate) struct OutcomeTable {
    configured: CauseTable<Destination>,
    built_in: CauseTable<Destination>,
    fallback: StreamName,
    /// Whether a status is delivered, by status; a vector, because every call reads it.
    delivering: Vec<bool>,
}

/// An entry of `[outcomes]` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutcomeInvalid {
    /// Its key.
    pub(crate) key: String,
    /// What is wrong, and what would be right.
    pub(crate) reason: String,
}

impl OutcomeTable {
    /// Reads `[outcomes]`. `compat` uses the OCI sample's table as the built-in one (`datasync.md` §2.3).
    pub(crate) fn new(
        outcomes: &BTreeMap<String, String>,
        roles: &Roles,
        compat: bool,
    ) -> Result<Self, Vec<OutcomeInvalid>> {
        let mut table = Self {
            configured: CauseTable::default(),
            built_in: built_in(roles, compat),
            fallback: roles.default.clone(),
            delivering: Vec::new(),
        };
        let mut invalid = Vec::new();
        for (key, value) in outcomes {
            let destination = match value.as_str() {
                "delivered" => Ok(Destination::Delivered),
                "unavailable" => Ok(Destination::Stream(roles.unavailable.clone())),
                "internal" => Ok(Destination::Stream(roles.internal.clone())),
                "unrecoverable" => Ok(Destination::Stream(roles.unrecoverable.clone())),
                "default" => Ok(Destination::Stream(roles.default.clone())),
                name => name.parse().map(Destination::Stream).map_err(|invalid| {
                    format!("'delivered', a role's word or a stream's name is needed; {invalid}")
                }),
            };
            let source = Destination::Stream(roles.source.clone());
            let placed = match destination {
                Ok(to) if to == source => Err(
                    "the source stream takes no failures: they would be sent again for ever".into(),
                ),
                Ok(Destination::Stream(name)) if key == "default" => {
                    table.fallback = name;
                    Ok(())
                }
                Ok(Destination::Delivered) if key == "default" => {
                    Err("failures of every kind cannot count as delivered".into())
                }
                Ok(to) => table.configured.set(key, to).map_err(|e| e.to_string()),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = placed {
                let key = key.clone();
                invalid.push(OutcomeInvalid { key, reason });
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        table.delivering = table.delivering();
        Ok(table)
    }

    /// Returns for each status whether it is delivered. Keys are written from the weakest to the closest, because
    /// searching the tables for each status took most of the time of a reload.
    fn delivering(&self) -> Vec<bool> {
        let mut delivering = vec![false; 1000];
        for table in [&self.built_in, &self.configured] {
            let (classes, exact): (Vec<_>, Vec<_>) = table
                .0
                .iter()
                .partition(|(key, _)| matches!(key, Key::Class(_)));
            for (key, to) in classes.into_iter().chain(exact) {
                let (first, len) = match key {
                    Key::Class(class) => (class * 100, 100),
                    Key::Exact(Cause::Status(status)) => (*status, 1),
                    // `default` is never a delivery, and other keys fit no status.
                    _ => continue,
                };
                let statuses = delivering.iter_mut().skip(first.into()).take(len);
                statuses.for_each(|status| *status = *to == Destination::Delivered);
            }
        }
        delivering
    }

    /// Returns whether a response of this status means that the record is delivered.
    pub(crate) fn delivers(&self, status: u16) -> bool {
        self.delivering.get(usize::from(status)) == Some(&true)
    }

    /// Returns the error stream of a cause.
    pub(crate) fn stream(&self, cause: Cause) -> &StreamName {
        match self.destination(cause) {
            Some(Destination::Stream(name)) => name,
            Some(Destination::Delivered) | None => &self.fallback,
        }
    }

    fn destination(&self, cause: Cause) -> Option<&Destination> {
        self.configured
            .find(cause)
            .or_else(|| self.built_in.find(cause))
    }
}

/// Returns the built-in table of design §5, or that of the OCI sample. Other causes go to the default stream.
fn built_in(roles: &Roles, compat: bool) -> CauseTable<Destination> {
    let (unavailable, internal, unrecoverable) =
        (&roles.unavailable, &roles.internal, &roles.unrecoverable);
    let rows: &[(&[&str], &StreamName)] = if compat {
        &[
            (&["503"], unavailable),
            (&["500"], internal),
            (&["400", "unexpectedError"], unrecoverable),
        ]
    } else {
        &[
            (
                &["408", "425", "429", "502", "503", "504", "network"],
                unavailable,
            ),
            (&["500"], internal),
            (
                &[
                    "400", "404", "405", "409", "410", "413", "415", "422", "3xx", "invalid",
                ],
                unrecoverable,
            ),
        ]
    };
    let mut table = CauseTable(HashMap::from([(Key::Class(2), Destination::Delivered)]));
    for (keys, stream) in rows {
        for key in *keys {
            let to = Destination::Stream((*stream).clone());
            table.set(key, to).expect("built-in keys are keys");
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(outcomes: &[(&str, &str)], compat: bool, cases: &[(Cause, &str)]) {
        let outcomes = outcomes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let table = OutcomeTable::new(&outcomes, &Roles::default(), compat).unwrap();
        for (cause, expected) in cases {
            let found = match cause.status() {
                Some(status) if table.delivers(status) => "delivered",
                _ => table.stream(*cause).as_str(),
            };
            assert_eq!(found, *expected, "{cause}");
        }
    }

    const UNAVAILABLE: &str = "ServerUnavailableStream";
    const INTERNAL: &str = "InternalserverErrorStream";
    const UNRECOVERABLE: &str = "UnrecoverableErrorStream";
    const DEFAULT: &str = "DefaultErrorStream";

    #[test]
    fn the_built_in_table_is_that_of_the_design() {
        let mut cases = vec![(Cause::Internal, DEFAULT), (Cause::Secret, DEFAULT)];
        cases.extend([(Cause::Blocked, DEFAULT), (Cause::Invalid, UNRECOVERABLE)]);
        cases.extend([200, 201, 204, 299].map(|status| (Cause::Status(status), "delivered")));
        for status in [408, 425, 429, 502, 503, 504] {
            cases.push((Cause::Status(status), UNAVAILABLE));
        }
        use Cause::{Connect, Dns, Reset, Timeout, Tls};
        cases.extend([Dns, Connect, Tls, Timeout, Reset].map(|cause| (cause, UNAVAILABLE)));
        cases.push((Cause::Status(500), INTERNAL));
        for status in [400, 404, 405, 409, 410, 413, 415, 422, 300, 302, 304] {
            cases.push((Cause::Status(status), UNRECOVERABLE));
        }
        for status in [101, 401, 403, 418, 501, 505, 600, 999] {
            cases.push((Cause::Status(status), DEFAULT));
        }
        check(&[], false, &cases);
    }

    #[test]
    fn the_samples_table_never_takes_1xx_or_3xx_for_success() {
        let cases = [
            (Cause::Status(204), "delivered"),
            (Cause::Status(101), DEFAULT),
            (Cause::Status(302), DEFAULT),
            (Cause::Status(400), UNRECOVERABLE),
            (Cause::Status(404), DEFAULT),
            (Cause::Status(500), INTERNAL),
            (Cause::Status(502), DEFAULT),
            (Cause::Status(503), UNAVAILABLE),
            (Cause::Invalid, UNRECOVERABLE),
            (Cause::Connect, UNRECOVERABLE),
        ];
        check(&[], true, &cases);
    }

    #[test]
    fn the_closest_configured_key_wins_over_all_built_in_ones() {
        let outcomes = [
            ("404", "delivered"),
            ("4xx", "OrdersErrors"),
            ("network", "default"),
            ("dns", "internal"),
            ("unexpectedError", "unrecoverable"),
            ("default", "RestErrors"),
        ];
        let cases = [
            (Cause::Status(404), "delivered"),
            (Cause::Status(400), "OrdersErrors"),
            (Cause::Status(418), "OrdersErrors"),
            (Cause::Timeout, DEFAULT),
            (Cause::Dns, INTERNAL),
            (Cause::Secret, UNRECOVERABLE),
            (Cause::Status(503), UNAVAILABLE),
            (Cause::Status(200), "delivered"),
            (Cause::Status(501), "RestErrors"),
        ];
        check(&outcomes, false, &cases);
    }

    #[test]
    fn the_list_of_delivered_statuses_equals_the_tables() {
        let configured = [
            &[][..],
            &[
                ("2xx", "default"),
                ("201", "delivered"),
                ("3xx", "delivered"),
            ],
            &[
                ("404", "delivered"),
                ("4xx", "internal"),
                ("200", "default"),
            ],
            &[
                ("4xx", "delivered"),
                ("404", "internal"),
                ("default", "internal"),
            ],
        ];
        for (outcomes, compat) in configured.iter().flat_map(|of| [(of, false), (of, true)]) {
            let entries = outcomes
                .iter()
                .map(|(key, to)| ((*key).into(), (*to).into()));
            let entries = entries.collect::<BTreeMap<String, String>>();
            let table = OutcomeTable::new(&entries, &Roles::default(), compat).unwrap();
            for status in 0..=1000 {
                let found = table.destination(Cause::Status(status));
                let delivered = found == Some(&Destination::Delivered);
                assert_eq!(
                    table.delivers(status),
                    delivered,
                    "{outcomes:?} {compat} {status}"
                );
            }
        }
    }

    #[test]
    fn entries_that_cannot_be_used_are_all_named() {
        let outcomes = ["4x", "40", "0404", "6xx", "Timeout", "", "404 "]
            .map(|key| (key.to_owned(), "default".to_owned()))
            .into_iter()
            .chain([
                ("503".into(), "no name".into()),
                ("504".into(), "DataSyncStream".into()),
            ])
            .collect::<BTreeMap<_, _>>();
        let invalid = OutcomeTable::new(&outcomes, &Roles::default(), false).unwrap_err();
        assert_eq!(invalid.len(), outcomes.len(), "{invalid:?}");
    }
}
