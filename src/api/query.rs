//! Query parameters: only those that a route knows, each once.

use std::borrow::Cow;

use http::Uri;
use url::form_urlencoded;

use super::problem::{Code, Problem};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads them; an unknown or repeated one is refused.
    pub(super) fn parse(uri: &'a Uri, known: &[&str]) -> Result<Self, Problem> {
        let mut all: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                // A name is no secret, but it may be anything: only its beginning is shown.
                let name: String = name.chars().take(32).collect();
                let what = match known {
                    [] => format!("query parameter {name:?}: this route has none"),
                    known => format!("query parameter {name:?}: there are {}", known.join(", ")),
                };
                return Err(invalid(what));
            }
            if all.iter().any(|(other, _)| *other == name) {
                return Err(invalid(format!("query parameter {name} is there twice")));
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

    /// Returns how many items a list shall have, 1 to 1000; 100 if nothing is said.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        self.limit_or(LIMIT_DEFAULT)
    }

    /// The same with another number if nothing is said.
    pub(super) fn limit_or(&self, default: usize) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(default);
        };
        let limit = text.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n));
        limit.ok_or_else(|| invalid(format!("limit is a number from 1 to {LIMIT_MAX}")))
    }

    /// Returns a yes or no; no if nothing is said.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(format!("{name} is true or false"))),
        }
    }
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
