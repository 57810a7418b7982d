//! The name that was probably meant.

/// Returns the name that is most like `wrong`, if one is like it at all.
pub(crate) fn nearest<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    let likeness = |name: &str| {
        // Names of very different lengths are not alike, and there may be thousands of them.
        let (shorter, longer) = (lower.len().min(name.len()), lower.len().max(name.len()));
        match shorter * 2 < longer {
            true => 0.0,
            false => strsim::normalized_damerau_levenshtein(&lower, &name.to_lowercase()),
        }
    };
    names
        .into_iter()
        .map(|name| (likeness(name), name))
        // Below one half, more of the word is wrong than right, and the proposal would mislead.
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_is_most_like_it_is_proposed_and_none_that_is_not() {
        let names = ["DataSyncStream", "DefaultErrorStream", "audit"];
        for (wrong, meant) in [
            ("DataSyncStrem", Some("DataSyncStream")),
            ("datasyncstream", Some("DataSyncStream")),
            ("DefaultStream", Some("DefaultErrorStream")),
            ("adit", Some("audit")),
            ("orders", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names), meant, "{wrong}");
        }
        assert_eq!(nearest("x", []), None);
    }
}
