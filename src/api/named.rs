//! What a request names: the variable parts of its path, and what is said of a name that nothing has.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::json::nearest::nearest;

use super::problem::{Code, Problem};

/// So much of a wrong name is shown: an OCID has about 100 characters.
const SHOWN_CHARS_MAX: usize = 128;

/// The variable parts of a path. What is no text names nothing.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Named<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        let Path(named) =
            path.map_err(|_| Problem::new(Code::NotFound, "the path is not UTF-8"))?;
        Ok(Self(named))
    }
}

/// Says that nothing has a name, and which name was probably meant: "no stream is called `DataSyncStrem`; did you mean
/// `DataSyncStream`?". If none of `names` is like it, `list` says where they can be seen.
pub(super) fn unknown<'a>(
    what: &str,
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
    list: &str,
) -> String {
    let shown: String = wrong.chars().take(SHOWN_CHARS_MAX).collect();
    let is_whole = shown.len() == wrong.len();
    let dots = if is_whole { "" } else { "…" };
    // One that is too long for a name is like none, and is not compared with thousands of them.
    let near = is_whole.then(|| nearest(wrong, names)).flatten();
    match near {
        Some(near) => format!("no {what} is called `{shown}`; did you mean `{near}`?"),
        None => format!("no {what} is called `{shown}{dots}`; {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_answered_with_the_one_that_is_like_it() {
        let say = |wrong: &str| unknown("stream", wrong, ["DataSyncStream", "audit"], "look there");
        assert_eq!(
            say("DataSyncStrem"),
            "no stream is called `DataSyncStrem`; did you mean `DataSyncStream`?"
        );
        assert_eq!(say("orders"), "no stream is called `orders`; look there");
        let long = "é".repeat(200);
        let shown = "é".repeat(128);
        assert_eq!(
            say(&long),
            format!("no stream is called `{shown}…`; look there")
        );
    }
}
