//! Shares bound the bytes of state for each kind of value, so that no kind takes the space of another.
//!
//! The prefix of a value's name decides its kind. Every engine uses this table. [`State`](super::State) returns the use of
//! each share. A commit that would exceed a share is refused as
//! [`CommitError::StateFull`](super::CommitError::StateFull).

/// The share of one kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Share {
    /// The kind's name in metrics and refusals.
    pub kind: &'static str,
    /// Prefixes of its values' names. A value belongs to the first share with a matching prefix.
    pub prefixes: &'static [&'static str],
    /// Bound of all its values. Each value counts with its name and [`VALUE_BYTES`].
    pub bytes_max: usize,
}

/// Cost of a value beside its name and its bytes.
pub const VALUE_BYTES: usize = 32;

const MIB: usize = 1 << 20;

/// Kind of the tokens of targets.
pub const TOKENS: &str = "tokens";
/// Prefix of their values' names.
pub const TOKENS_PREFIX: &str = "secret/";

/// All shares. Together they bound the state, because every value is in memory and in the snapshot of each journal file.
pub const SHARES: [Share; 7] = [
    Share {
        kind: TOKENS,
        prefixes: &[TOKENS_PREFIX],
        bytes_max: 8 * MIB,
    },
    Share {
        kind: "cursors",
        prefixes: &["push/cursor/"],
        bytes_max: MIB,
    },
    Share {
        kind: "data_streams",
        prefixes: &["push/"],
        bytes_max: 4 * MIB,
    },
    Share {
        kind: "groups",
        prefixes: &["redrive/"],
        bytes_max: MIB,
    },
    Share {
        kind: "users",
        prefixes: &["user/"],
        bytes_max: MIB,
    },
    Share {
        kind: "retention",
        prefixes: &["retention/"],
        bytes_max: MIB,
    },
    // Checkpoints of dispatch for lagging targets. Their loss costs reads of the log, and no record.
    Share {
        kind: "other",
        prefixes: &[""],
        bytes_max: MIB,
    },
];

/// Bytes by share, in the order of [`SHARES`].
pub type ShareBytes = [usize; SHARES.len()];

/// Returns the index in [`SHARES`] of the share that a value belongs to.
#[must_use]
pub fn share_of(key: &str) -> usize {
    let fits = |share: &Share| share.prefixes.iter().any(|prefix| key.starts_with(prefix));
    let last = SHARES.len() - 1;
    SHARES.iter().position(fits).unwrap_or(last)
}

/// Returns the cost of a value.
#[must_use]
pub fn state_cost(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + VALUE_BYTES
}

/// Returns the share that would be exceeded.
///
/// A kind may be over its share already, in a directory written before shares existed. It may then shrink, and not grow.
pub(crate) fn exceeded(before: &ShareBytes, after: &ShareBytes) -> Option<&'static Share> {
    let both = before.iter().zip(after);
    let mut shares = SHARES.iter().zip(both);
    let found =
        shares.find(|(share, (before, after))| *after > before && **after > share.bytes_max);
    found.map(|(share, _)| share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_kind() {
        let kind = |key| SHARES[share_of(key)].kind;
        for (key, expected) in [
            ("secret/default/n/1", "tokens"),
            ("secret/key-check", "tokens"),
            ("push/stream/a", "data_streams"),
            ("push/document/a", "data_streams"),
            ("push/key", "data_streams"),
            ("push/cursor/a/b", "cursors"),
            ("redrive/00/g", "groups"),
            ("user/admin", "users"),
            ("retention/ages", "retention"),
            ("behind/00/0", "other"),
            ("t/a", "other"),
            ("", "other"),
        ] {
            assert_eq!(kind(key), expected, "{key}");
        }
    }

    #[test]
    fn a_kind_over_its_share_may_shrink_and_not_grow() {
        let bytes = |tokens: usize| {
            let mut bytes = ShareBytes::default();
            bytes[0] = tokens;
            bytes
        };
        let max = SHARES[0].bytes_max;
        let kind = |before, after| exceeded(&bytes(before), &bytes(after)).map(|share| share.kind);
        assert_eq!(kind(0, max), None);
        assert_eq!(kind(max, max + 1), Some("tokens"));
        assert_eq!(kind(2 * max, 2 * max), None);
        assert_eq!(kind(2 * max, 2 * max - 1), None);
        assert_eq!(kind(2 * max, 2 * max + 1), Some("tokens"));
    }
}
