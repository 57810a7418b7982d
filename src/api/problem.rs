//! Problems: the one place where an error becomes a status and a body (RFC 9457).
//!
//! ```json
//! {"type":"urn:syncgate:problem:invalid_message","title":"The message is invalid","status":400,"detail":"…",
//!  "instance":"/stream/sync","code":"invalid_message","errors":[{"pointer":"/streamMessage/targetRestApi",
//!  "code":"required","detail":"the member is missing"}],"requestId":"6f1d2c3b-1"}
//! ```
//!
//! Every enum is matched without a wildcard, so that a new variant does not compile until someone has chosen its
//! status. No text here quotes a body, a header value or a secret; inner causes go to the log under the request id.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::{
    config::{ConfigError, SettingPlace},
    ingest::{self, FieldCode, FieldError},
    push::{AckError, ChangeError, CursorError, MoveError, StartRefused, SubscribeError},
    retry,
    runtime::clock::Timestamp,
    secrets::PrepareError,
    storage::{CommitError, ReadError, StreamError},
    users::Refused,
};

use super::{ReloadError, access::is_below, data_streams, server::refusals::Refusals, wire};

/// Paths whose answers have the envelope of data streams.
const ENVELOPED: &str = "/services/v2";

/// A refusal, before it knows the request's id.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<Fault>,
    retry_after_secs: Option<u32>,
    /// Member `earliest` of the body.
    earliest: Option<u64>,
    /// Members `since` and `by` of the body.
    running: Option<Box<retry::Taken>>,
    /// The number that the protocol of data streams has for it.
    number: Option<u16>,
    /// For the log alone.
    cause: Option<Arc<str>>,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
struct Fault {
    /// Where: a JSON pointer, or a key of the configuration.
    pointer: String,
    code: &'static str,
    detail: String,
}

/// The stable codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidRequest,
    InvalidMessage,
    FilterInvalid,
    TooSlow,
    /// The request shows no credentials.
    CredentialsMissing,
    /// It shows some, and they are nobody's.
    CredentialsWrong,
    /// The caller is known and its role too low.
    Forbidden,
    SecretNotForTarget,
    OriginNotAllowed,
    NotFound,
    StreamUnknown,
    PartitionUnknown,
    MethodNotAllowed,
    Exists,
    StreamInUse,
    StreamInConfig,
    PartitionsShrink,
    RetryRunning,
    IdempotencyInFlight,
    OffsetTrimmed,
    RecordLost,
    ChangedMeanwhile,
    BodyTooLarge,
    UnsupportedMediaType,
    ConfigInvalid,
    HostNotAllowed,
    IdempotencyMismatch,
    HeadersTooLarge,
    Internal,
    NotImplemented,
    QueueFull,
    LogStopped,
    MaybeStored,
    Draining,
    DiskFull,
    SecretsFull,
    StateFull,
    BeginInvalid,
    InvalidDocument,
    PositionForeign,
    PositionGone,
    CursorInUse,
    UpgradeRequired,
    TooManySubscribers,
}

impl Code {
    /// Every code, in the order of the enum.
    #[cfg(test)]
    pub(super) const ALL: [Self; 44] = [
        Self::InvalidRequest,
        Self::InvalidMessage,
        Self::FilterInvalid,
        Self::TooSlow,
        Self::CredentialsMissing,
        Self::CredentialsWrong,
        Self::Forbidden,
        Self::SecretNotForTarget,
        Self::OriginNotAllowed,
        Self::NotFound,
        Self::StreamUnknown,
        Self::PartitionUnknown,
        Self::MethodNotAllowed,
        Self::Exists,
        Self::StreamInUse,
        Self::StreamInConfig,
        Self::PartitionsShrink,
        Self::RetryRunning,
        Self::IdempotencyInFlight,
        Self::OffsetTrimmed,
        Self::RecordLost,
        Self::ChangedMeanwhile,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::ConfigInvalid,
        Self::HostNotAllowed,
        Self::IdempotencyMismatch,
        Self::HeadersTooLarge,
        Self::Internal,
        Self::NotImplemented,
        Self::QueueFull,
        Self::LogStopped,
        Self::MaybeStored,
        Self::Draining,
        Self::DiskFull,
        Self::SecretsFull,
        Self::StateFull,
        Self::BeginInvalid,
        Self::InvalidDocument,
        Self::PositionForeign,
        Self::PositionGone,
        Self::CursorInUse,
        Self::UpgradeRequired,
        Self::TooManySubscribers,
    ];

    /// Returns status, word and title.
    pub(super) fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest => (S::BAD_REQUEST, "invalid_request", "The request is invalid"),
            Self::InvalidMessage => (S::BAD_REQUEST, "invalid_message", "The message is invalid"),
            Self::FilterInvalid => (S::BAD_REQUEST, "filter_invalid", "The filter is invalid"),
            Self::TooSlow => (
                S::REQUEST_TIMEOUT,
                "invalid_request",
                "The body came too slowly",
            ),
            Self::CredentialsMissing => {
                (S::UNAUTHORIZED, "unauthenticated", "Only users may do this")
            }
            Self::CredentialsWrong => (
                S::UNAUTHORIZED,
                "unauthenticated",
                "The credentials are wrong",
            ),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The role is too low for this"),
            Self::SecretNotForTarget => (
                S::FORBIDDEN,
                "secret_not_for_target",
                "The secret is not bound to this target",
            ),
            Self::OriginNotAllowed => (
                S::FORBIDDEN,
                "origin_not_allowed",
                "Pages of this origin may not do this",
            ),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is nothing here"),
            Self::StreamUnknown => (S::NOT_FOUND, "stream_unknown", "There is no such stream"),
            Self::PartitionUnknown => (
                S::NOT_FOUND,
                "partition_unknown",
                "The stream has no such partition",
            ),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The path has other methods",
            ),
            Self::Exists => (S::CONFLICT, "exists", "The name is taken"),
            Self::StreamInUse => (S::CONFLICT, "stream_in_use", "The stream is in use"),
            Self::StreamInConfig => (
                S::CONFLICT,
                "stream_in_config",
                "The stream is changed in the configuration",
            ),
            Self::PartitionsShrink => (
                S::CONFLICT,
                "partitions_shrink",
                "A stream cannot lose partitions",
            ),
            Self::RetryRunning => (
                S::CONFLICT,
                "retry_running",
                "A retry of this partition is running",
            ),
            Self::IdempotencyInFlight => (
                S::CONFLICT,
                "idempotency_in_flight",
                "A request with this key is under way",
            ),
            Self::OffsetTrimmed => (S::GONE, "offset_trimmed", "The record was trimmed"),
            Self::RecordLost => (S::GONE, "record_lost", "The record was lost"),
            Self::ChangedMeanwhile => (
                S::PRECONDITION_FAILED,
                "changed_meanwhile",
                "It has changed meanwhile",
            ),
            Self::BodyTooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The body is too large",
            ),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The body cannot be read",
            ),
            Self::ConfigInvalid => (
                S::UNPROCESSABLE_ENTITY,
                "config_invalid",
                "The configuration is wrong",
            ),
            Self::HostNotAllowed => (
                S::MISDIRECTED_REQUEST,
                "host_not_allowed",
                "This server is not called so",
            ),
            Self::IdempotencyMismatch => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency_mismatch",
                "The key is taken by another body",
            ),
            Self::HeadersTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                "The headers are too large",
            ),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong inside",
            ),
            Self::NotImplemented => (
                S::NOT_IMPLEMENTED,
                "not_implemented",
                "Unknown transfer coding",
            ),
            Self::QueueFull => (S::SERVICE_UNAVAILABLE, "queue_full", "The queue is full"),
            Self::LogStopped => (
                S::SERVICE_UNAVAILABLE,
                "log_stopped",
                "The log takes no more records",
            ),
            Self::MaybeStored => (
                S::SERVICE_UNAVAILABLE,
                "maybe_stored",
                "The message may or may not be stored",
            ),
            Self::Draining => (
                S::SERVICE_UNAVAILABLE,
                "draining",
                "The gateway is stopping",
            ),
            Self::BeginInvalid => (
                S::BAD_REQUEST,
                "begin_invalid",
                "There is no such beginning",
            ),
            Self::InvalidDocument => (
                S::BAD_REQUEST,
                "invalid_document",
                "The document is invalid",
            ),
            Self::PositionForeign => (
                S::CONFLICT,
                "position_foreign",
                "The position is one of another data stream",
            ),
            Self::PositionGone => (S::GONE, "position_gone", "The position is gone"),
            Self::CursorInUse => (S::CONFLICT, "cursor_in_use", "The cursor is in use"),
            Self::UpgradeRequired => (
                S::UPGRADE_REQUIRED,
                "upgrade_required",
                "The version of WebSocket is another one",
            ),
            Self::TooManySubscribers => (
                S::SERVICE_UNAVAILABLE,
                "queue_full",
                "There are too many subscribers",
            ),
            Self::DiskFull => (S::INSUFFICIENT_STORAGE, "disk_full", "There is no space"),
            Self::SecretsFull => (
                S::INSUFFICIENT_STORAGE,
                "secrets_full",
                "No space for tokens",
            ),
            Self::StateFull => (
                S::INSUFFICIENT_STORAGE,
                "state_full",
                "No space for values of this kind",
            ),
        }
    }

    /// Returns the number that the protocol of data streams has for it, if that does not follow from the status.
    fn number(self) -> Option<u16> {
        match self {
            Self::CredentialsMissing => Some(12063),
            Self::CredentialsWrong => Some(12061),
            Self::Forbidden => Some(12062),
            _ => None,
        }
    }

    /// Returns the word that programs look at.
    pub(super) fn word(self) -> &'static str {
        self.parts().1
    }
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_secs: None,
            earliest: None,
            running: None,
            number: None,
            cause: None,
        }
    }

    /// A request that must be changed; every fault is named.
    pub(super) fn invalid(code: Code, errors: Vec<FieldError>) -> Self {
        let detail = match errors.first() {
            Some(first) if errors.len() == 1 => first.detail.clone(),
            Some(_) => format!("{} members are wrong; see errors", errors.len()),
            None => String::new(),
        };
        let fault = |error: FieldError| Fault {
            pointer: error.pointer,
            code: field_code(error.code),
            detail: error.detail,
        };
        Self {
            errors: errors.into_iter().map(fault).collect(),
            ..Self::new(code, detail)
        }
    }

    /// One member that must be changed.
    fn at(pointer: &str, code: Code, detail: String) -> Self {
        let fault = FieldError {
            pointer: pointer.into(),
            code: FieldCode::WrongType,
            detail,
        };
        Self::invalid(code, vec![fault])
    }

    /// Says it with this number in the envelope of data streams.
    pub(super) fn of_protocol(mut self, number: u16) -> Self {
        self.number = Some(number);
        self
    }

    pub(super) fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// Something that only we can mend; `cause` is for the log.
    pub(super) fn internal(cause: impl ToString) -> Self {
        Self {
            cause: Some(cause.to_string().into()),
            ..Self::new(
                Code::Internal,
                "the log of the gateway has more, under this request id or that of an earlier request",
            )
        }
    }

    pub(super) fn draining() -> Self {
        Self::new(Code::Draining, "send the request again in a moment").retry_after(5)
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Writes a line to the log if the fault is ours, and if the log has not just heard of one of this kind.
    pub(super) fn tell(&self, refusals: &Refusals, request_id: &str) {
        let (status, code, _) = self.code.parts();
        if !status.is_server_error() || self.code == Code::NotImplemented {
            tracing::debug!(request_id, code, "request refused");
            return;
        }
        let Some(requests) = refusals.note(code) else {
            return;
        };
        match &self.cause {
            Some(cause) => {
                tracing::error!(
                    request_id,
                    code,
                    cause = &**cause,
                    requests,
                    "request failed"
                );
            }
            None => tracing::warn!(request_id, code, requests, "request refused"),
        }
    }

    /// Becomes the response.
    pub(super) fn render(self, path: &str, request_id: &str, now: Timestamp) -> Response {
        let (status, code, title) = self.code.parts();
        let mut response = match is_below(path, ENVELOPED) {
            true => data_streams::problem(
                &data_streams::Wrong {
                    status,
                    word: code,
                    number: self.number.or(self.code.number()),
                    title,
                    detail: &self.detail,
                    faults: self
                        .errors
                        .iter()
                        .map(|error| (&*error.pointer, &*error.detail))
                        .collect(),
                },
                now,
            ),
            false => self.plain(path, request_id),
        };
        let headers = response.headers_mut();
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, BASIC);
        }
        if self.code == Code::UpgradeRequired {
            let version = HeaderValue::from_static("13");
            headers.insert(header::SEC_WEBSOCKET_VERSION, version);
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, secs.into());
        }
        response
    }

    fn plain(&self, path: &str, request_id: &str) -> Response {
        let (status, code, title) = self.code.parts();
        let errors = self.errors.iter().map(|error| wire::FieldErrorView {
            pointer: &error.pointer,
            code: error.code,
            detail: &error.detail,
        });
        let view = wire::ProblemView {
            r#type: format!("urn:syncgate:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            instance: path,
            code,
            errors: errors.collect(),
            request_id,
            earliest: self.earliest,
            since: self.running.as_ref().map(|taken| taken.since.to_string()),
            by: self.running.as_ref().and_then(|taken| taken.by.as_deref()),
        };
        let body = serde_json::to_vec(&view).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// A handler's problem travels to `server.rs` as an extension: only there the request's id is known.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.parts().0;
        response.extensions_mut().insert(self);
        response
    }
}

fn field_code(code: FieldCode) -> &'static str {
    match code {
        FieldCode::Required => "required",
        FieldCode::WrongType => "wrong_type",
        FieldCode::TooLong => "too_long",
        FieldCode::NotUtf8 => "not_utf8",
        FieldCode::UrlInvalid => "url_invalid",
        FieldCode::SchemeNotAllowed => "scheme_not_allowed",
        FieldCode::MethodNotAllowed => "method_not_allowed",
        FieldCode::HeaderInvalid => "header_invalid",
        FieldCode::HeaderHopByHop => "header_hop_by_hop",
        FieldCode::SecretNameInvalid => "secret_name_invalid",
        FieldCode::UnknownMember => "unknown_member",
    }
}

impl From<ingest::Error> for Problem {
    fn from(error: ingest::Error) -> Self {
        use ingest::Error;
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
                "the request that has this Idempotency-Key has no answer yet; send it again to get that",
            )
            .retry_after(1),
            Error::StreamGone(_) | Error::ReplyMalformed => Self::internal(error),
            Error::Unanswered => {
                let told = "the disk has not answered yet; what was sent may still be stored";
                let mut problem = Self::new(Code::MaybeStored, told).retry_after(60);
                problem.cause = Some(error.to_string().into());
                problem
            }
            Error::Commit(error) => error.into(),
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::Exists => Self::new(Code::Exists, detail),
            ChangeError::Unknown => Self::new(Code::NotFound, detail),
            ChangeError::ChangedMeanwhile => Self::new(Code::ChangedMeanwhile, detail),
            ChangeError::Invalid(errors) => Self::invalid(Code::InvalidRequest, errors),
            ChangeError::PatchedInvalid(errors) => {
                Self::invalid(Code::InvalidRequest, errors).of_protocol(data_streams::PATCH_INVALID)
            }
            ChangeError::TooLarge => Self::new(Code::BodyTooLarge, detail),
            ChangeError::TooMany => Self::new(Code::InvalidRequest, detail),
            ChangeError::Commit(error) => error.into(),
        }
    }
}

impl From<SubscribeError> for Problem {
    fn from(error: SubscribeError) -> Self {
        let detail = error.to_string();
        match error {
            SubscribeError::Unknown => Self::new(Code::NotFound, detail),
            SubscribeError::Full => Self::new(Code::TooManySubscribers, detail).retry_after(5),
            SubscribeError::Begin(_) => {
                Self::new(Code::BeginInvalid, detail).of_protocol(data_streams::QUERY_INVALID)
            }
            SubscribeError::Start(refused) => refused.into(),
            SubscribeError::Cursor(error) => error.into(),
        }
    }
}

impl From<StartRefused> for Problem {
    fn from(refused: StartRefused) -> Self {
        let detail = refused.to_string();
        match refused {
            StartRefused::Foreign => Self::new(Code::PositionForeign, detail),
            StartRefused::Gone => Self::new(Code::PositionGone, detail),
            StartRefused::StreamGone => Self::new(Code::StreamUnknown, detail),
            StartRefused::Read(error) => Self::internal(error),
        }
    }
}

impl From<CursorError> for Problem {
    fn from(error: CursorError) -> Self {
        let detail = error.to_string();
        match error {
            CursorError::Unknown => Self::new(Code::NotFound, detail),
            CursorError::InUse(_) => Self::new(Code::CursorInUse, detail),
            CursorError::TooMany => Self::new(Code::InvalidRequest, detail),
            CursorError::Commit(error) => error.into(),
        }
    }
}

impl From<MoveError> for Problem {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Begin(error) => Self::at("/begin", Code::BeginInvalid, error.to_string()),
            MoveError::Start(refused) => refused.into(),
            MoveError::Cursor(error) => error.into(),
        }
    }
}

impl From<AckError> for Problem {
    fn from(error: AckError) -> Self {
        match error {
            AckError::Position(error) => Self::at("/ack", Code::BeginInvalid, error.to_string()),
            AckError::Start(refused) => refused.into(),
            AckError::Cursor(error) => error.into(),
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
            // Waiting makes no room: somebody has to, so there is no `Retry-After`.
            PrepareError::Full | PrepareError::RecordsUnreadable => {
                Self::new(Code::SecretsFull, detail)
            }
            PrepareError::MakingRoom => Self::new(Code::QueueFull, detail).retry_after(1),
            PrepareError::Unreadable | PrepareError::NoRandom => Self::internal(error),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Wrong(_) => Self::new(Code::CredentialsWrong, detail),
            Refused::Busy => Self::new(
                Code::QueueFull,
                format!("{detail}; send the request again in a moment"),
            )
            .retry_after(1),
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let detail = error.to_string();
        match error {
            CommitError::Busy | CommitError::StateConflict { .. } => {
                Self::new(Code::QueueFull, "nothing was stored; send it again").retry_after(1)
            }
            CommitError::DiskFull => {
                Self::new(Code::DiskFull, "nothing was stored; the disk is full").retry_after(30)
            }
            CommitError::TooLarge { .. } => Self::new(Code::BodyTooLarge, detail),
            CommitError::StateFull { kind, bytes_max } => Self::new(
                Code::StateFull,
                format!(
                    "nothing was stored; values of the kind {kind} take their whole share of the state ({bytes_max} bytes), so delete some of them first"
                ),
            ),
            CommitError::PartitionUnknown(_) => Self::new(
                Code::StreamUnknown,
                "nothing was stored; the stream has just been deleted",
            ),
            CommitError::AlreadySettled { .. } | CommitError::Fenced(_) => Self::internal(detail),
            CommitError::Stopped(_) => {
                let told = "nothing was stored; the log has stopped until a restart";
                let mut problem = Self::new(Code::LogStopped, told).retry_after(60);
                problem.cause = Some(detail.into());
                problem
            }
            CommitError::MaybeStored(_) => {
                let told = "the log stopped while it was writing; a restart shows what is stored";
                let mut problem = Self::new(Code::MaybeStored, told).retry_after(60);
                problem.cause = Some(detail.into());
                problem
            }
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::PartitionUnknown(_) => {
                Self::new(Code::PartitionUnknown, "the stream has just been deleted")
            }
            ReadError::Trimmed { wanted, earliest } => Self {
                earliest: Some(earliest.0),
                ..Self::new(
                    Code::OffsetTrimmed,
                    format!("offset {wanted} was trimmed; the earliest is {earliest}"),
                )
            },
            ReadError::Damaged(_) | ReadError::Io(_) => Self::internal(error),
        }
    }
}

impl From<retry::Error> for Problem {
    fn from(error: retry::Error) -> Self {
        use crate::retry::Error;
        let detail = error.to_string();
        match error {
            Error::Running(taken) => {
                let code = match taken.work {
                    retry::Work::Retry => Code::RetryRunning,
                    retry::Work::Purge => Code::StreamInUse,
                };
                Self {
                    running: Some(Box::new(taken)),
                    ..Self::new(code, format!("{detail}; send it again when that is over"))
                }
            }
            Error::PartitionUnknown(_) => {
                Self::new(Code::PartitionUnknown, "the stream has just been deleted")
            }
            Error::BeyondTail { .. } => {
                let fault = FieldError {
                    pointer: "/readAfterOffset".into(),
                    code: FieldCode::WrongType,
                    detail,
                };
                Self::invalid(Code::InvalidRequest, vec![fault])
            }
            Error::NotLeased(_) => Self::new(
                Code::QueueFull,
                "nothing was done; another node has this partition",
            )
            .retry_after(5),
            Error::Read(error) => error.into(),
            Error::LogRefuses(error) => error.into(),
            Error::NotStored(error) => {
                let detail = format!(
                    "records up to here are done; the end of one was not stored, so it may be called again: {error}"
                );
                Self {
                    detail,
                    ..error.into()
                }
            }
            Error::GroupsFull => {
                let fault = FieldError {
                    pointer: "/group".into(),
                    code: FieldCode::TooLong,
                    detail,
                };
                Self::invalid(Code::InvalidRequest, vec![fault])
            }
            Error::GroupUnreadable(_) => Self::internal(detail),
            Error::GroupNotStored(error) => {
                let detail = format!(
                    "what was called is done; the group stands where it stood before, so the next call looks at it again: {error}"
                );
                Self {
                    detail,
                    ..error.into()
                }
            }
            Error::Panicked => Self {
                detail: "a mistake of the gateway ended the retry: records that were called are done, and the next call goes on with the others".into(),
                ..Self::internal(detail)
            },
            Error::Stopping => Self::draining(),
        }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let detail = error.to_string();
        match error {
            ReloadError::Invalid(wrong) => Self {
                errors: wrong.0.into_iter().map(Fault::from).collect(),
                ..Self::new(Code::ConfigInvalid, detail)
            },
            ReloadError::Stream { source, .. } => {
                let why = Self::from(source);
                Self {
                    detail: format!("{detail} ({})", why.detail),
                    ..why
                }
            }
            ReloadError::Busy(_) => Self::new(Code::QueueFull, detail).retry_after(5),
            ReloadError::Stopping => Self::draining(),
        }
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self {
            detail: match error.place {
                SettingPlace::Default => error.message,
                place => format!("{place}: {}", error.message),
            },
            pointer: error.key,
            code: "setting_invalid",
        }
    }
}

impl From<ingest::NotPaused> for Problem {
    fn from(error: ingest::NotPaused) -> Self {
        let what = format!("nothing was changed: {error}");
        Self::new(Code::QueueFull, what).retry_after(5)
    }
}

impl From<StreamError> for Problem {
    fn from(error: StreamError) -> Self {
        let detail = error.to_string();
        match error {
            StreamError::Exists => Self::new(Code::Exists, detail),
            StreamError::Unknown => Self::new(Code::StreamUnknown, detail),
            StreamError::Shrink { .. } => Self::new(Code::PartitionsShrink, detail),
            StreamError::TooMany { .. } => Self::new(
                Code::StateFull,
                format!("{detail}; delete one, or raise log.streams_max and restart"),
            ),
            StreamError::Open { .. } => Self::new(Code::StreamInUse, detail),
            StreamError::ChangedMeanwhile => Self::new(Code::ChangedMeanwhile, detail),
            StreamError::Commit(error) => error.into(),
        }
    }
}

/// What every 401 asks for (RFC 7617, 2.1: names and passwords are UTF-8).
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"syncgate\", charset=\"UTF-8\"");

/// Name of the header that carries the request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
