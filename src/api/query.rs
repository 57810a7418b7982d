//! Query parameters: a route accepts only those it knows, each once.

use std::borrow::Cow;

use http::Uri;
use url::form_urlencoded;

use crate::json::nearest::did_you_mean;

use super::problem::{Code, Problem};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// A parameter is unknown or repeated. Ignoring it could do something unwanted, such as read all records again.
    pub(super) fn parse(uri: &'a Uri, known: &[&str]) -> Result<Self, Problem> {
        let mut all: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(unknown(&name, known));
            }
            if all.iter().any(|(other, _)| *other == name) {
                let what = format!("query parameter \"{name}\" is there more than once");
                return Err(invalid(what));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// Returns the value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let named = self.0.iter().find(|(other, _)| other == name);
        named.map(|(_, value)| &**value)
    }

    /// Returns the largest number of items of a list: 1 to 1000, by default 100.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        self.limit_or(LIMIT_DEFAULT)
    }

    /// As [`Self::limit`], with another default.
    pub(super) fn limit_or(&self, default: usize) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(default);
        };
        let limit = text.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n));
        limit.ok_or_else(|| invalid(format!("limit is a number from 1 to {LIMIT_MAX}")))
    }

    /// Returns a boolean; `false` if the parameter is absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(format!("{name} is true or false"))),
        }
    }
}

/// Refuses an unknown parameter, and lists the known ones.
fn unknown(name: &str, known: &[&str]) -> Problem {
    // A name can be of any length and content, so show only its beginning.
    let shown: String = name.chars().take(32).collect();
    invalid(match known {
        [] => format!("query parameter {shown:?} is unknown: this route takes none"),
        known => format!(
            "query parameter {shown:?} is unknown: this route takes {}{}",
            known.join(", "),
            did_you_mean(name, known.iter().copied())
        ),
    })
}

pub(super) fn invalid(what: String) -> Problem {
    Problem::new(Code::InvalidRequest, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<(usize, Option<&str>), ()>) {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        let read = Query::parse(&uri, &["limit", "after"]).and_then(|query| {
            let after = query.get("after").map(String::from);
            Ok((query.limit()?, after))
        });
        let expected = expected.map(|(limit, after)| (limit, after.map(String::from)));
        assert_eq!(read.map_err(|_| ()), expected, "{query}");
    }

    #[test]
    fn an_unknown_parameter_is_named_with_those_that_there_are() {
        let told = |query: &str, known: &[&str]| {
            let uri: Uri = format!("/x?{query}").parse().unwrap();
            Query::parse(&uri, known).unwrap_err().detail().to_owned()
        };
        assert_eq!(
            told("begn=now", &["begin", "cursor"]),
            "query parameter \"begn\" is unknown: this route takes begin, cursor; did you mean \"begin\"?"
        );
        assert_eq!(
            told("cursor=a&x", &["cursor"]),
            "query parameter \"x\" is unknown: this route takes cursor"
        );
        assert_eq!(
            told("a=1", &[]),
            "query parameter \"a\" is unknown: this route takes none"
        );
        assert_eq!(
            told("cursor=a&cursor=a", &["cursor"]),
            "query parameter \"cursor\" is there more than once"
        );
        let long = told(&"%0A".repeat(1_000), &["cursor"]);
        assert!(long.len() < 200 && !long.contains('\n'), "{long}");
    }

    #[test]
    fn only_known_parameters_each_once() {
        check("", Ok((100, None)));
        check("limit=1000&after=a%20b", Ok((1000, Some("a b"))));
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=",
            "limit=1&limit=1",
            "Limit=1",
            "x",
        ] {
            check(wrong, Err(()));
        }
    }
}
