//! Lists that a gateway answers in pages: one loop for every command.

use serde_json::Value;

use super::{Failure, client::Client};

/// A gateway has far fewer pages; another server may name a next page for ever.
const PAGES_MAX: usize = 1_000;

/// The query of the next page: empty for the first one.
pub(super) type Query = Vec<(&'static str, String)>;

/// Reads page after page. `page` gets the query of a page, and returns the name after which the next one begins.
///
/// # Errors
/// Those of `page`; after [`PAGES_MAX`] pages, one that names the list `of`.
pub(super) async fn each(
    client: &Client,
    of: &str,
    mut page: impl AsyncFnMut(&Query) -> Result<Option<String>, Failure>,
) -> Result<(), Failure> {
    let mut query = Vec::new();
    for _ in 0..PAGES_MAX {
        match page(&query).await? {
            Some(after) => query = vec![("after", after)],
            None => return Ok(()),
        }
    }
    Err(Failure::failed(format!(
        "{} has more than {PAGES_MAX} pages of {of}, so it is not a gateway",
        client.base()
    )))
}

/// Returns the items of all pages of a route that answers `items` and `next`.
pub(super) async fn items(client: &Client, path: &[&str], of: &str) -> Result<Vec<Value>, Failure> {
    let mut items = Vec::new();
    let read = async |query: &Query| {
        let mut page = client.get(path, query).await?;
        let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) else {
            return Err(client.not_a_gateway(&format!("a page of {of}")).into());
        };
        items.extend(more);
        Ok(page["next"].as_str().map(str::to_owned))
    };
    each(client, of, read).await?;
    Ok(items)
}
