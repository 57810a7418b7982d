//! The page `problems.md`, written from the one match of `problem/code.rs`.

use std::fmt::Write as _;

use super::super::problem::Code;
use crate::docs::{held_equal, variants};

const HEAD: &str = "\
# Problem codes
<!-- Written from the code: SYNCGATE_WRITE_DOCS=1 cargo test --lib docs -->

Every refused request gets a problem (RFC 9457) with the media type `application/problem+json`. Programs look at `code`,
which never changes its meaning. `detail` is for people and may change. `errors` names each wrong member by a JSON pointer.
`requestId` is in the header `X-Request-Id` too, and the log of the gateway has it with the cause.

Below `/services/v2` the same problem comes in the envelope of the data stream protocol: the code stands at the end of
`messages[0].type`, as `urn:syncgate:problem:<code>`.

An answer with `Retry-After` may be asked for again after that many seconds. Every refusal without one stays the same until
somebody changes the request or the gateway.
";

/// What a caller or an operator does about it.
fn what_to_do(code: Code) -> &'static str {
    match code {
        Code::InvalidRequest => {
            "Change the request as `detail` and `errors` say. Parameters and members of unknown names are refused, because \
             ignoring one could do something else than was asked."
        }
        Code::InvalidMessage => {
            "Change the message: `errors` names every wrong member. Nothing of the request was stored, also of a batch."
        }
        Code::FilterInvalid => {
            "Change the filter of the retry: `errors` names the member and what it may hold."
        }
        Code::TooSlow => {
            "Send the whole request within `server.request_timeout_ms`. Nothing was stored."
        }
        Code::CredentialsMissing => {
            "Send name and password of a user by Basic authentication. Commands take them from `SYNCGATE_USER` and \
             `SYNCGATE_PASSWORD`."
        }
        Code::CredentialsWrong => {
            "Check name and password. The gateway counts such requests in `syncgate_failed_logins_total`."
        }
        Code::Forbidden => "Ask with a user of the role that `detail` names.",
        Code::SecretNotForTarget => {
            "Present the token once in the header of a request for this target. A token goes only to targets that it was \
             presented for."
        }
        Code::OriginNotAllowed => {
            "The request comes from a web page of another origin. Add the origin to `server.cors_origins` if its pages may \
             do this."
        }
        Code::NotFound => {
            "Check the path. The data stream or cursor that it names may be unknown; the list beside it shows those there are."
        }
        Code::StreamUnknown => {
            "Check the name; `syncgate streams ls` shows the streams. `detail` proposes the nearest name."
        }
        Code::PartitionUnknown => {
            "Check the number of the partition; `syncgate streams show NAME` shows how many there are. The first is 0."
        }
        Code::MethodNotAllowed => "Use one of the methods in the header `Allow`.",
        Code::Exists => "Choose another name, or change what has this name.",
        Code::StreamInUse => {
            "`detail` says what uses the stream: open records, a role, a data stream or a purge. End that first."
        }
        Code::StreamInConfig => {
            "The stream stands in `[[streams]]`. Change it there, and reload the configuration."
        }
        Code::PartitionsShrink => {
            "Keep the number of partitions, or ask for more. Fewer would change the order of records with the same key."
        }
        Code::RetryRunning => {
            "Wait until the retry has ended; `since` and `by` say when it began and who asked for it."
        }
        Code::IdempotencyInFlight => {
            "Send the same request again after a second: it gets the answer of the first one."
        }
        Code::OffsetTrimmed => {
            "Begin at `earliest` of the body, or later. Retention or a purge has removed the record."
        }
        Code::RecordLost => {
            "The record was given up after damage to the journal. Send it again from its source if it is still needed."
        }
        Code::ChangedMeanwhile => {
            "Somebody else has changed it. Read it again, and repeat the change with the new `ETag` in `If-Match`."
        }
        Code::BodyTooLarge => {
            "Send less at once. The limits are `sync.record_bytes_max`, `sync.batch_bytes_max` and `sync.batch_len_max`."
        }
        Code::UnsupportedMediaType => {
            "Send JSON as `application/json`, or NDJSON as `application/x-ndjson`, plain or compressed by gzip."
        }
        Code::ConfigInvalid => {
            "Mend the configuration: `errors` names every wrong key. The settings of before are still in force."
        }
        Code::HostNotAllowed => {
            "Call the gateway by `localhost`, by the address that it listens on, or add the name to `server.hosts`."
        }
        Code::IdempotencyMismatch => {
            "Use a new `Idempotency-Key` for a new body. Nothing was stored."
        }
        Code::HeadersTooLarge => "Send fewer or shorter headers, or a shorter token.",
        Code::Internal => {
            "Look for the request id in the log of the gateway. This is a fault of the gateway or its disk."
        }
        Code::NotImplemented => "Send the body without a transfer coding other than `chunked`.",
        Code::QueueFull => {
            "Send the request again after `Retry-After`. Nothing was stored. If it happens often, see `log.queue_bytes_max` \
             and the speed of the disk."
        }
        Code::LogStopped => {
            "Restart the gateway after looking at its log: the disk has failed. Nothing was stored."
        }
        Code::MaybeStored => {
            "Send the same request again with the same `Idempotency-Key` after a restart: then it is stored once. Without \
             a key it may be stored twice."
        }
        Code::Draining => "Send the request again after `Retry-After`: the gateway is stopping.",
        Code::DiskFull => {
            "Free space on the disk of `data.dir`. The gateway takes messages again by itself."
        }
        Code::SecretsFull => {
            "All room for tokens is taken by tokens that records still need. Let records be delivered, or purge them."
        }
        Code::StateFull => {
            "Delete something of the kind that `detail` names: a stream, a data stream or a cursor. For streams, \
             `log.streams_max` may be raised."
        }
        Code::BeginInvalid => {
            "Give `earliest`, `now`, a time such as `2026-01-02T03:04:05Z`, or the `pos` of a record."
        }
        Code::InvalidDocument => {
            "Change the YAML document as `detail` says. Only the parts that describe the data stream may differ."
        }
        Code::PositionForeign => {
            "Use a position that this data stream has sent, or choose another place to begin."
        }
        Code::PositionGone => {
            "The records at this position are gone. Begin with `earliest`, `now` or a time; what lies between was missed."
        }
        Code::CursorInUse => {
            "Another client uses the cursor. Close that one, or connect with `takeover=true`."
        }
        Code::UpgradeRequired => {
            "Use version 13 of the WebSocket protocol (`Sec-WebSocket-Version: 13`)."
        }
        Code::TooManySubscribers => {
            "Connect again after `Retry-After`, or raise `push.clients_max`."
        }
    }
}

/// Returns every code with the titles and remedies of its variants, in the order of status and word.
fn page() -> String {
    let mut all: Vec<_> = Code::ALL
        .into_iter()
        .map(|code| (code.parts(), code))
        .collect();
    all.sort_by_key(|((status, word, _), _)| (*word, status.as_u16()));
    let mut page = HEAD.to_owned();
    let mut last = "";
    for ((status, word, title), code) in all {
        if word != last {
            write!(page, "\n## {word}\n").unwrap();
            last = word;
        }
        let status = status.to_string();
        write!(page, "\n**{title}** ({status})\n\n{}\n", what_to_do(code)).unwrap();
    }
    page
}

#[test]
fn the_problems_are_those_of_the_code() {
    let source = include_str!("../problem/code.rs");
    let named: Vec<String> = Code::ALL.iter().map(|code| format!("{code:?}")).collect();
    assert_eq!(
        named,
        variants(source, "pub(in crate::api) enum Code {"),
        "Code::ALL"
    );
    held_equal("problems", &page());
}
