//! What every test stands on: the binary in a process, a target, and waits that say what they waited for.

mod gateway;
mod target;
mod terminal;
mod yaml;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub use gateway::{Answer, Gateway, Place, client, run_on, syncgate};
pub use target::{Act, Call, StubTarget};
pub use terminal::{on_terminal, on_terminal_in_colour, on_terminal_of, on_terminal_typing};
pub(crate) use yaml::read as read_yaml;

/// Longer than anything takes on a slow machine; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something, and fails with its name.
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let what = what.to_owned();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("waited in vain for {what}"),
        }
    }
}

/// Asks again until there is an answer. For facts of another process that cannot call us back.
pub async fn poll<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The seed's message: a POST of `payload` to `url`, without key and token.
pub fn message(url: &str, payload: Value) -> Value {
    json!({ "streamKey": "", "streamMessage": {
        "targetRestApi": url, "targetRestApiOperation": "POST", "targetRestApiPayload": payload,
        "targetRestApiHeaders": [ { "key": "Content-Type", "value": "application/json" } ] } })
}

/// The same with a key.
pub fn keyed(key: &str, url: &str, payload: Value) -> Value {
    let mut message = message(url, payload);
    message["streamKey"] = key.into();
    message
}
