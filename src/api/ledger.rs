//! `GET /v1/ledger`: the balance of all streams, or of one.

use std::sync::Arc;

use axum::{Json, extract::State};
use http::Uri;

use crate::storage::ledger::Balance;

use super::{EdgeState, problem::Problem, query::Query, streams};

pub(super) async fn show(
    State(shared): State<Arc<EdgeState>>,
    uri: Uri,
) -> Result<Json<Balance>, Problem> {
    let query = Query::parse(&uri, &["stream"])?;
    let only = match query.get("stream") {
        Some(name) => Some(streams::find(&shared, name)?.name.to_string()),
        None => None,
    };
    let ledger = shared.streams.engine().ledger();
    let mut balance = Balance::of(&ledger, streams::source(&shared));
    // `total` stays the total of all streams.
    if only.is_some() {
        balance.streams.retain(|row| row.stream == only);
    }
    Ok(Json(balance))
}
