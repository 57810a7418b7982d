//! Patterns in which `*` is any run of characters.

/// Returns whether `text` fits `pattern`, in time linear in both. Each piece between two stars is searched once,
/// because its first match is as good as any later one.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, behind)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = behind.rsplit_once('*').unwrap_or(("", behind));
    for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for text in bad {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        check("", &[""], &["a"]);
        check("a", &["a"], &["", "aa", "A"]);
        check("*", &["", "a", "ü*"], &[]);
        check("**", &["", "a"], &[]);
        check("a*", &["a", "ab"], &["", "ba"]);
        check("*a", &["a", "ba", "aa"], &["ab"]);
        check("a*a", &["aa", "aba"], &["a", "ab"]);
        check("a*b*c", &["abc", "a-b-b-c", "acbc"], &["ac", "abcd", "acb"]);
        check("*ab*", &["ab", "aab", "xabx"], &["a", "ba"]);
        check("a*bc*c", &["abcc", "abcbcc"], &["abc"]);
    }

    #[test]
    fn fits_agrees_with_a_naive_definition() {
        fn plain(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, _) => text.is_empty(),
                (Some((b'*', rest)), None) => plain(rest, text),
                (Some((b'*', rest)), Some((_, behind))) => {
                    plain(rest, text) || plain(pattern, behind)
                }
                (Some((p, rest)), Some((t, behind))) => p == t && plain(rest, behind),
                (Some(_), None) => false,
            }
        }
        let words = |letters: &[u8], len_max: u32| {
            let mut words = vec![String::new()];
            for len in 1..=len_max {
                for n in 0..letters.len().pow(len) {
                    let letter = |at: u32| letters[n / letters.len().pow(at) % letters.len()];
                    words.push((0..len).map(|at| char::from(letter(at))).collect());
                }
            }
            words
        };
        for pattern in words(b"ab*", 5) {
            for text in words(b"ab", 5) {
                let expected = plain(pattern.as_bytes(), text.as_bytes());
                assert_eq!(fits(&pattern, &text), expected, "{pattern} {text}");
            }
        }
    }

    // One that went back for each star would not end while anybody waits: there are 50 000 of them.
    #[test]
    fn many_stars_take_no_more_time_than_few() {
        let pattern = "*a".repeat(50_000) + "*b";
        assert!(!fits(&pattern, &"a".repeat(100_000)));
        assert!(fits(&pattern, &("a".repeat(100_000) + "b")));
    }
}
