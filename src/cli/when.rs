//! Times in arguments, such as `10m`. The gateway gets them as RFC 3339 in UTC.

use crate::{
    model::when::{EXAMPLES, read},
    runtime::clock::Clock,
};

/// Reads the value of an argument that is a time.
///
/// # Errors
/// A sentence with examples.
pub(super) fn time(text: &str) -> Result<String, String> {
    let at = read(text, Clock::system().now());
    at.map(|at| at.to_string())
        .ok_or_else(|| format!("this is no time: give {EXAMPLES}"))
}

/// Reads the position where a reader begins: a time becomes RFC 3339, and the gateway judges every other text.
///
/// # Errors
/// None; the type is what clap's value parsers need.
pub(super) fn begin(text: &str) -> Result<String, String> {
    // The gateway names the position of `now` itself.
    let at = match text {
        "now" => None,
        text => read(text, Clock::system().now()),
    };
    Ok(at.map_or_else(|| text.to_owned(), |at| at.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_time_is_refused_with_examples() {
        let said = time("yesterday").unwrap_err();
        assert!(
            said.contains("2026-12-01T07:00:00Z, 2026-12-01, 10m"),
            "{said}"
        );
    }

    #[test]
    fn the_gateway_judges_a_position_that_is_not_a_time() {
        for text in ["now", "earliest", "p1abc", "yesterday"] {
            assert_eq!(begin(text), Ok(text.to_owned()));
        }
        assert_eq!(
            begin("2026-12-01"),
            Ok("2026-12-01T00:00:00.000000Z".to_owned())
        );
    }
}
