//! The codes of problems: the one match that gives each its status, its stable word and its title.
//!
//! The match has no wildcard, so that a new code does not compile until somebody has chosen its status.

use http::StatusCode;

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Code {
    InvalidRequest,
    InvalidMessage,
    FilterInvalid,
    TooSlow,
    /// The request has no credentials.
    CredentialsMissing,
    /// The credentials belong to no user.
    CredentialsWrong,
    /// The caller is known, and its role is too low.
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
    pub(in crate::api) const ALL: [Self; 44] = [
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

    /// Returns status, code and title: the one place that chooses a status.
    ///
    /// Titles are noun phrases that people can search for. The detail of a problem says what would be right.
    pub(in crate::api) fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest => (S::BAD_REQUEST, "invalid_request", "Invalid request"),
            Self::InvalidMessage => (S::BAD_REQUEST, "invalid_message", "Invalid message"),
            Self::FilterInvalid => (S::BAD_REQUEST, "filter_invalid", "Invalid filter"),
            Self::TooSlow => (S::REQUEST_TIMEOUT, "invalid_request", "Request too slow"),
            Self::CredentialsMissing => {
                (S::UNAUTHORIZED, "unauthenticated", "Credentials required")
            }
            Self::CredentialsWrong => (S::UNAUTHORIZED, "unauthenticated", "Wrong credentials"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "Role too low"),
            Self::SecretNotForTarget => (
                S::FORBIDDEN,
                "secret_not_for_target",
                "Secret not bound to this target",
            ),
            Self::OriginNotAllowed => (S::FORBIDDEN, "origin_not_allowed", "Origin not allowed"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "Not found"),
            Self::StreamUnknown => (S::NOT_FOUND, "stream_unknown", "Unknown stream"),
            Self::PartitionUnknown => (S::NOT_FOUND, "partition_unknown", "Unknown partition"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
            ),
            Self::Exists => (S::CONFLICT, "exists", "Name already taken"),
            Self::StreamInUse => (S::CONFLICT, "stream_in_use", "Stream in use"),
            Self::StreamInConfig => (
                S::CONFLICT,
                "stream_in_config",
                "Stream set by the configuration",
            ),
            Self::PartitionsShrink => (
                S::CONFLICT,
                "partitions_shrink",
                "Partitions cannot be removed",
            ),
            Self::RetryRunning => (S::CONFLICT, "retry_running", "Retry already running"),
            Self::IdempotencyInFlight => (
                S::CONFLICT,
                "idempotency_in_flight",
                "Idempotency key in flight",
            ),
            Self::OffsetTrimmed => (S::GONE, "offset_trimmed", "Record trimmed"),
            Self::RecordLost => (S::GONE, "record_lost", "Record lost"),
            Self::ChangedMeanwhile => (
                S::PRECONDITION_FAILED,
                "changed_meanwhile",
                "Changed by another request",
            ),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large"),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported body",
            ),
            Self::ConfigInvalid => (
                S::UNPROCESSABLE_ENTITY,
                "config_invalid",
                "Invalid configuration",
            ),
            Self::HostNotAllowed => (
                S::MISDIRECTED_REQUEST,
                "host_not_allowed",
                "Unknown Host header",
            ),
            Self::IdempotencyMismatch => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency_mismatch",
                "Idempotency key used with another body",
            ),
            Self::HeadersTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                "Headers too large",
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::NotImplemented => (
                S::NOT_IMPLEMENTED,
                "not_implemented",
                "Unknown transfer coding",
            ),
            Self::QueueFull => (S::SERVICE_UNAVAILABLE, "queue_full", "Queue full"),
            Self::LogStopped => (S::SERVICE_UNAVAILABLE, "log_stopped", "Log stopped"),
            Self::MaybeStored => (
                S::SERVICE_UNAVAILABLE,
                "maybe_stored",
                "Message may be stored",
            ),
            Self::Draining => (S::SERVICE_UNAVAILABLE, "draining", "Gateway stopping"),
            Self::BeginInvalid => (S::BAD_REQUEST, "begin_invalid", "Invalid begin"),
            Self::InvalidDocument => (S::BAD_REQUEST, "invalid_document", "Invalid document"),
            Self::PositionForeign => (
                S::CONFLICT,
                "position_foreign",
                "Position of another data stream",
            ),
            Self::PositionGone => (S::GONE, "position_gone", "Position no longer available"),
            Self::CursorInUse => (S::CONFLICT, "cursor_in_use", "Cursor in use"),
            Self::UpgradeRequired => (
                S::UPGRADE_REQUIRED,
                "upgrade_required",
                "Unsupported WebSocket version",
            ),
            Self::TooManySubscribers => {
                (S::SERVICE_UNAVAILABLE, "queue_full", "Too many subscribers")
            }
            Self::DiskFull => (S::INSUFFICIENT_STORAGE, "disk_full", "Disk full"),
            Self::SecretsFull => (
                S::INSUFFICIENT_STORAGE,
                "secrets_full",
                "No room for secrets",
            ),
            Self::StateFull => (S::INSUFFICIENT_STORAGE, "state_full", "No room for state"),
        }
    }

    /// Returns its message number in the data stream protocol, unless the status decides it.
    pub(in crate::api) fn number(self) -> Option<u16> {
        match self {
            Self::CredentialsMissing => Some(12063),
            Self::CredentialsWrong => Some(12061),
            Self::Forbidden => Some(12062),
            _ => None,
        }
    }

    /// Returns the stable code that programs compare.
    pub(in crate::api) fn word(self) -> &'static str {
        self.parts().1
    }
}
