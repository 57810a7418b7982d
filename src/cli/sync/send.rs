//! Sends batches, each under its key, until an answer is final.

use std::time::Duration;

use indicatif::ProgressBar;
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::Value;

use super::batches::Batch;
use crate::cli::{
    client::{Client, Error, Refusal},
    output,
};

/// How often a batch is sent again.
const TRIES_MAX: u32 = 20;
/// Longest wait before the next try.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Sends batches.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) token: Option<String>,
    pub(super) token_header: String,
    pub(super) bar: ProgressBar,
}

/// Why a batch was not accepted.
pub(super) struct Unsent {
    pub(super) error: Error,
    /// Whether a try may have been stored.
    pub(super) maybe_stored: bool,
}

impl Sender {
    /// Sends a batch under its key until an answer is final.
    pub(super) async fn send(&self, batch: &Batch, key: &str) -> Result<Value, Unsent> {
        let (mut tries, mut maybe_stored) = (0, false);
        loop {
            let mut request = self
                .client
                .request(Method::POST, &["stream", "sync"], &[])
                .header(CONTENT_TYPE, batch.content_type)
                .header("idempotency-key", key)
                .body(batch.body.clone());
            if let Some(token) = &self.token {
                request = request.header(&self.token_header, token);
            }
            let error = match self.client.send(request).await {
                Ok(answer) if is_accepted(&answer, batch.messages_len()) => return Ok(answer),
                Ok(_) => self.client.not_a_gateway("a result for each message"),
                Err(error) => error,
            };
            maybe_stored |= may_be_stored(&error);
            let (what, wait) = match &error {
                _ if tries == TRIES_MAX => {
                    return Err(Unsent {
                        error,
                        maybe_stored,
                    });
                }
                Error::Refused(refusal) if is_passing(refusal) => {
                    (refusal.line(), refusal.retry_after)
                }
                Error::NoAnswer(why) => (why.clone(), None),
                // The gateway answered an earlier try, so it may come back.
                Error::Unreachable(why) if tries > 0 => (why.clone(), None),
                Error::Refused(_) | Error::Unreachable(_) | Error::NotAGateway(_) => {
                    return Err(Unsent {
                        error,
                        maybe_stored,
                    });
                }
            };
            tries += 1;
            let wait = wait.unwrap_or(Duration::from_secs(1)).min(WAIT_MAX);
            let secs = wait.as_secs();
            self.say(&format!("warning: {what}; sending it again in {secs} s"));
            tokio::time::sleep(wait).await;
        }
    }

    /// Writes a line to standard error, above the bar if there is one.
    fn say(&self, line: &str) {
        match self.bar.is_hidden() {
            true => output::say(line),
            false => self.bar.println(output::said(line)),
        }
    }
}

/// Returns whether an answer accepts so many messages: one result, or a list of results.
fn is_accepted(answer: &Value, messages_len: u64) -> bool {
    let is_result = |result: &Value| result["offset"].is_u64() && result["messageId"].is_string();
    match answer["results"].as_array() {
        Some(results) => results.len() as u64 == messages_len && results.iter().all(is_result),
        None => messages_len == 1 && is_result(answer),
    }
}

/// Returns whether another try may succeed.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(
        refusal.code.as_str(),
        "queue_full" | "rate_limited" | "draining" | "idempotency_in_flight" | "maybe_stored"
    )
}

fn may_be_stored(error: &Error) -> bool {
    match error {
        Error::Unreachable(_) => false,
        // A proxy may have passed the batch on.
        Error::NoAnswer(_) | Error::NotAGateway(_) => true,
        Error::Refused(refusal) => {
            let told = ["maybe_stored", "idempotency_in_flight"];
            told.contains(&refusal.code.as_str()) || refusal.status.as_u16() == 500
        }
    }
}
