//! Proposes the known name that is nearest to a wrong one. Pure.
//!
//! Case, `_` and `-` are ignored, so `retry-after` equals `retry_after`. A name is near if at most a third of its characters
//! differ, or if it begins with the wrong one. Without a near name nothing is proposed, because a wrong proposal costs more
//! time than none.

/// A longer text is compared with no name, because comparing it is slow and it cannot be near.
const WRONG_BYTES_MAX: usize = 128;
/// Unknown members that are compared with a missing one, at most.
const LOOKED_AT_MAX: usize = 100;
/// Shortest beginning that counts. Many names share shorter ones.
const BEGINNING_LEN_MIN: usize = 3;

/// Returns the name that is nearest to `wrong`; `None` if none is near.
pub(crate) fn nearest<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if wrong.len() > WRONG_BYTES_MAX {
        return None;
    }
    let wrong = folded(wrong);
    let len = wrong.chars().count();
    let (mut best, mut begins) = (None, None);
    for name in names {
        let other = folded(name);
        let slips = strsim::damerau_levenshtein(&wrong, &other);
        let is_near = 3 * slips <= len.max(other.chars().count());
        if is_near && best.is_none_or(|(fewest, _)| slips < fewest) {
            best = Some((slips, name));
        }
        let is_beginning = len >= BEGINNING_LEN_MIN && other.starts_with(&wrong);
        if is_beginning && begins.is_none_or(|shortest: &str| name.len() < shortest.len()) {
            begins = Some(name);
        }
    }
    best.map(|(_, name)| name).or(begins)
}

/// Returns `; did you mean "x"?` for the name that is nearest to `wrong`, or nothing if none is near.
pub(crate) fn did_you_mean<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let near = nearest(wrong, names);
    near.map(|name| format!("; did you mean \"{name}\"?"))
        .unwrap_or_default()
}

/// Says that the member `name` is missing, and which of the `unknown` members is near.
pub(crate) fn missing<'a>(name: &str, unknown: impl IntoIterator<Item = &'a str>) -> String {
    // A body may have a million members.
    let mut looked_at = unknown.into_iter().take(LOOKED_AT_MAX);
    match looked_at.find(|other| nearest(other, [name]).is_some()) {
        Some(other) => {
            format!("the member is missing; there is \"{other}\": did you mean \"{name}\"?")
        }
        None => "the member is missing".into(),
    }
}

/// Returns the name that differs from `wrong` in at most two characters. The bound is small because a sender may have other
/// members, with names of its own.
pub(crate) fn slip_of<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    const SLIPS_MAX: usize = 2;
    if wrong.len() > WRONG_BYTES_MAX {
        return None;
    }
    let wrong = folded(wrong);
    let mut names = names.into_iter();
    names.find(|name| {
        let name = folded(name);
        // Compare lengths first, because comparing texts takes much longer.
        name.len().abs_diff(wrong.len()) <= SLIPS_MAX * char::MAX.len_utf8()
            && strsim::damerau_levenshtein(&wrong, &name) <= SLIPS_MAX
    })
}

fn folded(name: &str) -> String {
    let kept = name.chars().filter(|c| !matches!(c, '_' | '-'));
    kept.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wrong: &str, expected: Option<&str>) {
        let names = [
            "name",
            "origin",
            "rate_per_second",
            "retry_after_ms_max",
            "begin",
            "cursor",
            "POST",
        ];
        assert_eq!(nearest(wrong, names), expected, "{wrong}");
    }

    #[test]
    fn the_nearest_name_is_proposed_and_none_that_is_not_near() {
        for (wrong, expected) in [
            ("nmae", "name"),
            ("Name", "name"),
            ("begn", "begin"),
            ("cusror", "cursor"),
            ("post", "POST"),
            ("rate", "rate_per_second"),
            ("rate-per-second", "rate_per_second"),
            ("retry_after_max_ms", "retry_after_ms_max"),
        ] {
            check(wrong, Some(expected));
        }
        for wrong in ["", "x", "ra", "limit", "gate", "rates_of_all_targets"] {
            check(wrong, None);
        }
        check(&"begin".repeat(100), None);
    }

    #[test]
    fn a_missing_member_is_looked_for_among_the_unknown_ones() {
        let (none, found) = (
            "the member is missing",
            "; there is \"nmae\": did you mean \"name\"?",
        );
        assert_eq!(missing("name", []), none);
        assert_eq!(missing("name", ["other"]), none);
        let all = ["other", "nmae", "naem"];
        assert_eq!(missing("name", all), format!("{none}{found}"));
        assert_eq!(missing("name", ["other"; 100].into_iter().chain(all)), none);
    }

    #[test]
    fn a_slip_is_two_characters_at_most() {
        let ours = ["targetRestApi", "targetRestApiPayload"];
        for (wrong, expected) in [
            ("targetRestApiPayloda", Some("targetRestApiPayload")),
            ("targetrestapipayload", Some("targetRestApiPayload")),
            ("target_rest_api", Some("targetRestApi")),
            ("targetRestApis", Some("targetRestApi")),
            ("targetRestApiTimeout", None),
            ("target", None),
            ("payload", None),
        ] {
            assert_eq!(slip_of(wrong, ours), expected, "{wrong}");
        }
        assert_eq!(slip_of(&"a".repeat(1 << 20), ours), None);
    }
}
