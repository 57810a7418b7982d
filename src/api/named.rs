//! Names in requests: the variable parts of a path, and the detail about an unknown name.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::json::nearest::nearest;

use super::problem::{Code, Problem};

/// Characters of a wrong name that an answer shows. An OCID has about 100.
const SHOWN_CHARS_MAX: usize = 128;

/// The variable parts of a path. A part that is not UTF-8 is 404.
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

/// Returns the detail about an unknown name, with the nearest known one: "no stream is called `DataSyncStrem`; did you mean
/// `DataSyncStream`?". If none of `names` is near, the detail ends with `list`, which says where to see them.
pub(super) fn unknown<'a>(
    what: &str,
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
    list: &str,
) -> String {
    let shown: String = wrong.chars().take(SHOWN_CHARS_MAX).collect();
    let is_whole = shown.len() == wrong.len();
    let dots = if is_whole { "" } else { "…" };
    // A text too long for a name is not compared with thousands of names.
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
