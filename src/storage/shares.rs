//! Shares: how many bytes of state the values of one kind may take together, so that no kind takes another's space.
//!
//! A kind is known by the beginning of a value's name. The kinds are facts of the product, and every engine keeps the
//! same table: [`State`](super::State) says how full each share is, and a commit that would go beyond one is refused
//! as [`CommitError::StateFull`](super::CommitError::StateFull).

/// The share of one kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Share {
    /// The kind's name, as metrics and refusals say it.
    pub kind: &'static str,
    /// How the names of its values begin; the first share with a fitting beginning has the value.
    pub prefixes: &'static [&'static str],
    /// What its values may take together. Each value counts with its name and [`VALUE_BYTES`].
    pub bytes_max: usize,
}

/// What a value costs beside its name and its bytes.
pub const VALUE_BYTES: usize = 32;

const MIB: usize = 1 << 20;

/// Kind of the tokens of targets.
pub const TOKENS: &str = "tokens";
/// How the names of their values begin.
pub const TOKENS_PREFIX: &str = "secret/";

/// All shares. Together they bound the state: every value lies in memory and in the snapshot of each journal file.
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
    // What dispatch notes about lagging targets: losing it costs reading, and no record.
    Share {
        kind: "other",
        prefixes: &[""],
        bytes_max: MIB,
    },
];

/// Bytes by share, in the order of [`SHARES`].
pub type ShareBytes = [usize; SHARES.len()];

/// Returns which of [`SHARES`] a value belongs to.
#[must_use]
pub fn share_of(key: &str) -> usize {
    let fits = |share: &Share| share.prefixes.iter().any(|prefix| key.starts_with(prefix));
    let last = SHARES.len() - 1;
    SHARES.iter().position(fits).unwrap_or(last)
}

/// Returns what a value is charged with.
#[must_use]
pub fn state_cost(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + VALUE_BYTES
}

/// Returns the share that would be exceeded. A kind that is over its share already, as one of a directory from before
/// there were shares, may shrink and stay, and not grow.
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
