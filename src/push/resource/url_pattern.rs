//! Patterns of `targetRestApi`.

use std::str::FromStr;

use super::glob;

/// Longest name of a column, in characters.
pub(super) const COLUMN_LEN_MAX: usize = 128;

/// A URL in which `*` is any run of characters without `/` and `{name}` is one segment that becomes a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPattern {
    text: String,
    segments: usize,
    captures: usize,
}

/// A URL to be compared with patterns, without query and fragment.
#[derive(Clone, Copy, Debug)]
pub struct UrlParts<'a> {
    text: &'a str,
    segments: usize,
}

impl<'a> UrlParts<'a> {
    /// Splits a URL, once for all patterns.
    #[must_use]
    pub fn of(url: &'a str) -> Self {
        let end = url.find(['?', '#']).unwrap_or(url.len());
        let text = &url[..end];
        Self {
            text,
            segments: text.split('/').count(),
        }
    }
}

/// The captured segments of a URL that fits: column name and segment, in the pattern's order.
///
/// A segment is not percent-decoded, so the column has the bytes of the URL that the target was called with.
pub type Captures<'a> = Vec<(&'a str, &'a str)>;

/// Why a text is no URL pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlPatternInvalid {
    /// It does not begin with scheme and host, so no URL fits.
    #[error("this must be a whole URL, such as https://*/orders/{{id}}")]
    Relative,
    /// It is longer than the longest legal URL.
    #[error("a URL has at most {} bytes", crate::model::target::URL_BYTES_MAX)]
    Long,
    /// It has a query or fragment, which are not compared.
    #[error("this can have no '?' and no '#': what is behind them is not compared")]
    Query,
    /// It has blanks or control characters, which no URL has.
    #[error("a URL has no blanks and no control characters")]
    Blank,
    /// Braces are not around a whole segment, or not around a legal name.
    #[error("{{name}} must be a whole segment, with a name of 1 to {COLUMN_LEN_MAX} characters")]
    Capture,
    /// Two segments are captured under one name.
    #[error("each {{name}} can be there once")]
    Twice,
}

impl UrlPattern {
    /// Returns the text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the names of the captured columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.text.split('/').filter_map(captured)
    }

    /// Returns the captured segments if the URL fits, in time linear in both; a URL with another number of segments
    /// costs nothing.
    ///
    /// Scheme and host are compared literally, case included. A captured segment is not empty.
    #[must_use]
    pub fn fits<'a>(&'a self, url: &UrlParts<'a>) -> Option<Captures<'a>> {
        if url.segments != self.segments {
            return None;
        }
        let (mut pattern, mut segments) = (self.text.split('/'), url.text.split('/'));
        let mut captures = Vec::with_capacity(self.captures);
        loop {
            match (pattern.next(), segments.next()) {
                (None, None) => return Some(captures),
                (Some(pattern), Some(segment)) => match captured(pattern) {
                    Some(_) if segment.is_empty() => return None,
                    Some(name) => captures.push((name, segment)),
                    None if glob::fits(pattern, segment) => {}
                    None => return None,
                },
                _ => return None,
            }
        }
    }
}

impl FromStr for UrlPattern {
    type Err = UrlPatternInvalid;

    fn from_str(text: &str) -> Result<Self, UrlPatternInvalid> {
        let is_whole = text.split('/').nth(1) == Some("") && text.split('/').nth(2).is_some();
        if text.len() > crate::model::target::URL_BYTES_MAX {
            return Err(UrlPatternInvalid::Long);
        } else if text.contains(['?', '#']) {
            return Err(UrlPatternInvalid::Query);
        } else if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(UrlPatternInvalid::Blank);
        } else if !is_whole {
            return Err(UrlPatternInvalid::Relative);
        }
        let mut names = Vec::new();
        for segment in text.split('/').filter(|text| text.contains(['{', '}'])) {
            let legal = |name: &&str| {
                !name.contains(['{', '}']) && (1..=COLUMN_LEN_MAX).contains(&name.chars().count())
            };
            names.push(
                captured(segment)
                    .filter(legal)
                    .ok_or(UrlPatternInvalid::Capture)?,
            );
        }
        let captures = names.len();
        names.sort_unstable();
        names.dedup();
        match names.len() == captures {
            true => Ok(Self {
                segments: text.split('/').count(),
                text: text.into(),
                captures,
            }),
            false => Err(UrlPatternInvalid::Twice),
        }
    }
}

fn captured(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, url: &str, expected: Option<&[(&str, &str)]>) {
        let pattern: UrlPattern = pattern.parse().unwrap();
        let fits = pattern.fits(&UrlParts::of(url));
        assert_eq!(fits.as_deref(), expected, "{pattern:?} {url}");
    }

    #[test]
    fn a_url_fits_segment_by_segment_and_gives_its_columns() {
        let orders = "https://*/latest/orders/{orderid}";
        check(
            orders,
            "https://a.example/latest/orders/7",
            Some(&[("orderid", "7")]),
        );
        check(
            orders,
            "https://a:1/latest/orders/a%2Fb?x=/1#y",
            Some(&[("orderid", "a%2Fb")]),
        );
        check(
            orders,
            "https://a/latest/orders/7#/8",
            Some(&[("orderid", "7")]),
        );
        check(orders, "https://a/latest/orders/", None);
        check(orders, "https://a/latest/orders", None);
        check(orders, "https://a/latest/orders/7/8", None);
        check(orders, "https://a/b/latest/orders/7", None);
        check(orders, "http://a/latest/orders/7", None);
        check(
            "*://*/a*c/{x}/{y}",
            "http://h/abbc/1/2",
            Some(&[("x", "1"), ("y", "2")]),
        );
        check("http://h/", "http://h/", Some(&[]));
        check("http://h/", "http://h", None);
        check("http://{h}", "http://h?/", Some(&[("h", "h")]));
    }

    #[test]
    fn a_pattern_that_no_url_can_fit_is_refused() {
        use UrlPatternInvalid::*;
        let long = format!("http://{}", "a".repeat(8 << 10));
        let name = |len| format!("http://h/{{{}}}", "ü".repeat(len));
        for (text, expected) in [
            ("", Relative),
            ("*", Relative),
            ("/orders", Relative),
            ("http:/", Relative),
            ("http://h?x", Query),
            ("http://h#x", Query),
            ("http://h /", Blank),
            ("http://h/a{b}", Capture),
            ("http://h/{b", Capture),
            ("http://h/{}", Capture),
            ("http://h/{a{b}}", Capture),
            ("http://h/{a}/{a}", Twice),
            (&name(129), Capture),
            (&long, Long),
        ] {
            assert_eq!(text.parse::<UrlPattern>(), Err(expected), "{text}");
        }
        let pattern: UrlPattern = name(128).parse().unwrap();
        assert_eq!(pattern.names().count(), 1);
    }

    #[test]
    fn many_stars_and_segments_take_no_more_time_than_few() {
        let pattern: UrlPattern = format!("http://{}b", "*a".repeat(4_000)).parse().unwrap();
        let url = format!("http://{}", "a".repeat(8_000));
        assert_eq!(pattern.fits(&UrlParts::of(&url)), None);
        let pattern: UrlPattern = format!("http://{}b", "*/".repeat(4_000)).parse().unwrap();
        let url = format!("http://{}", "a/".repeat(4_000));
        assert_eq!(pattern.fits(&UrlParts::of(&url)), None);
    }
}
