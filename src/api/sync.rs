//! `POST /stream/sync`: makes a submission of headers and body, and an answer of its partitions and offsets.
//!
//! It reads these headers: the token's, `Content-Type`, `Content-Encoding`, `Accept`, `Idempotency-Key`, `traceparent`.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header, request};
use hyper::body::{Body as _, Incoming};

use crate::{
    ingest::{Accepted, Error, Form, IdempotencyKey, Submission, Warning},
    secrets::PrepareError,
};

use super::{
    EdgeState, Settings,
    access::guard::one,
    body::{Sender, media_type},
    problem::{Code, Problem},
    query::Query,
    wire,
};

/// The route.
pub(super) const PATH: &str = "/stream/sync";

/// The codes of refused submissions. Metrics show each of them from the start.
pub(super) const REFUSALS: [Code; 17] = [
    Code::InvalidRequest,
    Code::InvalidMessage,
    Code::TooSlow,
    Code::SecretNotForTarget,
    Code::StreamUnknown,
    Code::IdempotencyInFlight,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::IdempotencyMismatch,
    Code::HeadersTooLarge,
    Code::Internal,
    Code::QueueFull,
    Code::LogStopped,
    Code::MaybeStored,
    Code::DiskFull,
    Code::SecretsFull,
    Code::StateFull,
];

/// An answer to a batch that may be larger takes its space before the batch is stored.
const SMALL_ANSWER_BYTES_MAX: usize = 16 << 10;

/// The name of every source.
const SOURCE: &str = "default";

/// Characters of a header name that a warning shows.
const NAME_SHOWN_MAX: usize = 128;

const MESSAGE_ID: HeaderName = HeaderName::from_static("x-message-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub(super) async fn answer(
    shared: &EdgeState,
    settings: &Settings,
    request: &request::Parts,
    body: Incoming,
    request_id: &str,
) -> Result<Response, Problem> {
    let headers = &request.headers;
    Query::parse(&request.uri, &[])?;
    let token = token(headers, &settings.token_header)?;
    let unheeded = unheeded(headers, &settings.token_header, token);
    let key = idempotency_key(headers)?;
    let lines = media_type(headers).is_some_and(is_of_lines);
    let body = shared
        .bodies
        .read_from(Sender::Source, headers, body, settings.batch_bytes_max)
        .await?;
    // A stored batch must get its answer, so the space for the answer is taken before.
    let is_batch = lines || !body.bytes.trim_ascii_start().starts_with(b"{");
    let space = match answer_bytes_max(body.bytes.len(), settings.batch_len_max) {
        bytes if is_batch && bytes > SMALL_ANSWER_BYTES_MAX => {
            Some(shared.answers.take_for_batch(settings, bytes)?)
        }
        _ => None,
    };
    let accepted = shared
        .ingest
        .submit(Submission {
            source: SOURCE,
            body: body.bytes.clone(),
            form: if lines { Form::Lines } else { Form::Json },
            token,
            traceparent: traceparent(headers),
            key,
        })
        .await?;
    if accepted.repeated {
        shared.metrics.repeated.inc();
    } else {
        let len = u64::try_from(accepted.placed.len()).unwrap_or(u64::MAX);
        shared.metrics.accepted.inc_by(len);
    }
    for placed in &accepted.placed {
        let repeated = accepted.repeated;
        tracing::debug!(request_id, message_id = %placed.message_id, repeated, "accepted");
    }
    let text = wants_text(headers).unwrap_or(settings.text_answers);
    let response = success(&accepted, text, unheeded);
    let len = response.body().size_hint().exact();
    let len = len.and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    Ok(match space {
        Some(mut space) if len > 0 => {
            space.resize(len);
            space.attach(response)
        }
        _ => response,
    })
}

/// Returns whether a media type is JSON lines. None of these names is registered.
fn is_of_lines(kind: &str) -> bool {
    const LINES: [&str; 6] = [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
    ];
    LINES.iter().any(|one| kind.eq_ignore_ascii_case(one))
}

/// Returns the largest size of the answer to a body.
fn answer_bytes_max(body_bytes: usize, batch_len_max: usize) -> usize {
    // A message has at least a URL and an operation. A result has a stream name, two numbers, an id and a warning.
    const MESSAGE_BYTES_MIN: usize = 64;
    const RESULT_BYTES_MAX: usize = 512;
    // Ingest bounds the warnings of one answer.
    const WARNINGS_BYTES_MAX: usize = 32 << 10;
    // The warning about the request.
    const WARNING_BYTES_MAX: usize = 512;
    let results = (body_bytes / MESSAGE_BYTES_MIN).min(batch_len_max) * RESULT_BYTES_MAX;
    let warnings = (2 * body_bytes).min(WARNINGS_BYTES_MAX);
    results + warnings + WARNING_BYTES_MAX
}

/// Returns a warning if the request has `Authorization`, and the gateway reads the token from another header.
fn unheeded(
    headers: &HeaderMap,
    name: &HeaderName,
    token: Option<&str>,
) -> Option<wire::WarningView> {
    let is_unheeded = token.is_none()
        && *name != header::AUTHORIZATION
        && headers.contains_key(header::AUTHORIZATION);
    is_unheeded.then(|| wire::WarningView {
        code: "authorization_ignored",
        detail: format!(
            "the gateway takes the target's token from the header {} (sync.token_header), and the request has Authorization \
             only: the target gets no token from it",
            name.as_str().get(..NAME_SHOWN_MAX).unwrap_or(name.as_str())
        )
        .into(),
    })
}

/// Writes the answer. `of_request` is a warning about the whole request; the first result shows it.
fn success(accepted: &Accepted, text: bool, of_request: Option<wire::WarningView>) -> Response {
    let mut ids: Vec<String> = accepted
        .placed
        .iter()
        .map(|placed| placed.message_id.text())
        .collect();
    let mut body = Vec::with_capacity(accepted.placed.len() * 256);
    if text {
        body.extend_from_slice(b"success");
    } else {
        if accepted.batch {
            body.extend_from_slice(br#"{"status":"success","results":["#);
        }
        let mut of_request = of_request;
        for (index, mut view) in views(accepted, &ids).enumerate() {
            if index > 0 {
                body.push(b',');
            }
            view.warnings.extend(of_request.take());
            view.write(&mut body);
        }
        if accepted.batch {
            body.extend_from_slice(b"]}");
        }
    }
    let mut response = Response::new(Body::from(body));
    let kind = if text {
        "text/plain"
    } else {
        "application/json"
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if !accepted.batch
        && let Some(id) = ids.pop()
        && let Ok(id) = HeaderValue::from_maybe_shared(Bytes::from(id))
    {
        headers.insert(MESSAGE_ID, id);
    }
    response
}

fn views<'a>(
    accepted: &'a Accepted,
    ids: &'a [String],
) -> impl Iterator<Item = wire::MessageAccepted<'a>> {
    accepted
        .placed
        .iter()
        .zip(ids)
        .map(|(placed, id)| wire::MessageAccepted {
            status: "success",
            stream: accepted.stream.name.as_str(),
            partition: itoa::Buffer::new().format(placed.partition.0).into(),
            offset: placed.offset.0,
            message_id: id,
            warnings: placed.warnings.iter().map(warning).collect(),
        })
}

fn warning(warning: &Warning) -> wire::WarningView {
    match warning {
        Warning::SecretUnknown => wire::WarningView {
            code: "secret_unknown",
            detail: "no token was presented under vaultSecretName yet; until then dispatch fails with cause secret"
                .into(),
        },
        Warning::UnknownMember(slip) => wire::WarningView {
            code: "unknown_member",
            detail: format!(
                "streamMessage has \"{}\", which is kept and not looked at; did you mean \"{}\"?",
                slip.given,
                slip.meant()
            )
            .into(),
        },
        Warning::TargetBlocked(why) => wire::WarningView {
            code: "target_blocked",
            detail: format!(
                "the target's address is not called, so dispatch fails with cause blocked; {}",
                why.words()
            )
            .into(),
        },
    }
}

/// Returns the token for the target, if the request has one.
fn token<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let invalid = |what: &str| Problem::new(Code::InvalidRequest, format!("header {name} {what}"));
    let value = one(headers, name).map_err(|()| invalid("is there more than once"))?;
    let Some(value) = value else {
        return Ok(None);
    };
    let token = value.to_str().map_err(|_| invalid("is not ASCII"))?;
    Ok(Some(token).filter(|token| !token.is_empty()))
}

/// Returns the idempotency key of the request.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey<'_>>, Problem> {
    let invalid = |what: &str| {
        let what = format!("header {IDEMPOTENCY_KEY} {what}");
        Problem::new(Code::InvalidRequest, what)
    };
    let value = one(headers, &IDEMPOTENCY_KEY).map_err(|()| invalid("is there more than once"))?;
    let Some(value) = value else {
        return Ok(None);
    };
    let key = IdempotencyKey::read(value.as_bytes());
    key.ok_or_else(|| invalid(IdempotencyKey::RULE)).map(Some)
}

/// Returns a well-formed `traceparent` (W3C Trace Context, version 00, or a later one with the same fields first).
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = one(headers, &HeaderName::from_static("traceparent")).ok()??;
    let text = text.to_str().ok()?;
    let mut parts = text.split('-');
    let mut hex = |len: usize| {
        let part = parts.next()?;
        let legal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (part.len() == len && part.bytes().all(legal)).then_some(part)
    };
    let (version, trace, parent, _flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    let whole = parts.next().is_none();
    (whole && version != "ff" && !zero(trace) && !zero(parent)).then_some(text)
}

/// Returns whether `Accept` names plain text before JSON; `None` if it names neither.
fn wants_text(headers: &HeaderMap) -> Option<bool> {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim())
        .find_map(|kind| {
            let is = |name: &str| kind.eq_ignore_ascii_case(name);
            let text = is("text/plain").then_some(true);
            text.or_else(|| (is("application/json") || is("application/*")).then_some(false))
        })
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(errors) => Self::invalid(Code::InvalidMessage, errors),
            Error::TooLarge { .. } => Self::new(Code::BodyTooLarge, error.to_string()),
            Error::SecretNotForTarget { pointer } => Self::new(
                Code::SecretNotForTarget,
                format!(
                    "{pointer}: present the token for this target once, in the request's header"
                ),
            ),
            Error::Secret(error) => error.into(),
            Error::IdempotencyMismatch => Self::new(
                Code::IdempotencyMismatch,
                "nothing was stored; this Idempotency-Key came with another body before, so another request needs another key",
            ),
            Error::IdempotencyInFlight => Self::new(
                Code::IdempotencyInFlight,
                "another request with this Idempotency-Key has no answer yet; send this one again to get its answer",
            )
            .retry_after(1),
            Error::StreamGone(_) | Error::ReplyMalformed => Self::internal(error),
            Error::Unanswered => {
                let told = "the disk has not answered in time; the message may still be stored";
                let mut problem = Self::new(Code::MaybeStored, told).retry_after(60);
                problem.cause = Some(error.to_string().into());
                problem
            }
            Error::Commit(error) => error.into(),
        }
    }
}

impl From<PrepareError> for Problem {
    fn from(error: PrepareError) -> Self {
        let detail = error.to_string();
        match error {
            PrepareError::NameInvalid | PrepareError::TooManyTargets => {
                Self::new(Code::InvalidRequest, detail)
            }
            PrepareError::TokenTooLong => Self::new(Code::HeadersTooLarge, detail),
            // No `Retry-After`, because waiting makes no room: an operator must.
            PrepareError::Full | PrepareError::RecordsUnreadable => {
                Self::new(Code::SecretsFull, detail)
            }
            PrepareError::MakingRoom => Self::new(Code::QueueFull, detail).retry_after(1),
            PrepareError::Unreadable | PrepareError::NoRandom => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_written_as_serde_would_write_it() {
        for warnings in [vec![], vec![warning(&Warning::SecretUnknown)]] {
            let view = wire::MessageAccepted {
                status: "success",
                stream: "DataSync-1_x",
                partition: "255".into(),
                offset: u64::MAX,
                message_id: "abc-0-1-z",
                warnings,
            };
            let mut body = Vec::new();
            view.write(&mut body);
            assert_eq!(body, serde_json::to_vec(&view).unwrap());
        }
    }

    #[track_caller]
    fn check_traceparent(text: &'static str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static(text));
        assert_eq!(traceparent(&headers).is_some(), expected, "{text}");
    }

    #[test]
    fn only_a_well_formed_traceparent_is_kept() {
        check_traceparent(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            true,
        );
        check_traceparent(
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            false,
        );
        check_traceparent(
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            false,
        );
        check_traceparent(
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            false,
        );
        check_traceparent(
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            false,
        );
        check_traceparent(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            false,
        );
        check_traceparent(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            false,
        );
        check_traceparent("", false);
    }
}
