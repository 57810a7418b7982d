//! The outcome of an attempt: a status or a cause, in the words of `routes.md` "Causes". Pure.
//!
//! The head of a response decides. Its status counts even if the body is cut off or never ends, because the body cannot
//! change what the target has done.

pub(crate) mod error_record;
pub(super) mod refused;
pub(super) mod settle;
pub(crate) mod table;

use std::{borrow::Cow, fmt, time::Duration};

use bytes::Bytes;

use crate::runtime::clock::Timestamp;

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The target accepted the record with this status.
    Delivered {
        /// The HTTP status.
        status: u16,
    },
    /// The attempt failed.
    Failed(Failure),
}

impl Outcome {
    /// Returns the HTTP status, if a target answered.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Delivered { status } => Some(*status),
            Self::Failed(failure) => failure.cause.status(),
        }
    }
}

/// Why a record was not delivered. It holds no payload, header value or secret of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The cause.
    pub(crate) cause: Cause,
    /// The cause in a sentence.
    pub(crate) reason: Cow<'static, str>,
    /// The beginning of the response's body, at most [`KEPT_BYTES_MAX`]; empty without a response.
    pub(crate) body: Bytes,
    /// What the target asked for by `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
    /// No connection could be opened.
    pub(crate) unconnected: bool,
    /// A fresh connection ended before an answer began, so the target counts as unavailable. A reused connection that
    /// ends so is no failure: the call is made again.
    pub(crate) ended_unanswered: bool,
    /// No call began for want of a descriptor or a look-up. The record waits and is called later; no attempt is
    /// counted.
    pub(crate) not_begun: bool,
}

/// Bytes kept of a response's body.
pub(crate) const KEPT_BYTES_MAX: usize = 2 * 1024;

impl Failure {
    /// A failure without a response.
    pub(crate) fn new(cause: Cause, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            cause,
            reason: reason.into(),
            body: Bytes::new(),
            retry_after: None,
            unconnected: false,
            ended_unanswered: false,
            not_begun: false,
        }
    }

    /// Marks a failure to open a connection.
    pub(crate) fn unconnected(self) -> Self {
        Self {
            unconnected: true,
            ..self
        }
    }

    /// A response with a status that is no delivery.
    pub(crate) fn answered(status: u16, body: Bytes, retry_after: Option<Duration>) -> Self {
        let named = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let reason = match named {
            Some(named) => format!("the target answered {status} {named}"),
            None => format!("the target answered {status}"),
        };
        Self {
            cause: Cause::Status(status),
            reason: reason.into(),
            body,
            retry_after,
            ..Self::new(Cause::Status(status), "")
        }
    }
}

/// What an attempt says about its target, apart from the outcome of the record (design §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It answers calls, even if the answer fails the record.
    Answers,
    /// It takes no calls for now.
    Unavailable {
        /// It says that it is overloaded, so fewer calls in flight may help.
        overloaded: bool,
        /// What it asked for by `Retry-After`.
        asked: Option<Duration>,
    },
    /// It gave no answer in time on an open connection, which may be the fault of this record.
    Silent,
    /// It was not called.
    Unknown,
}

impl Outcome {
    /// Returns what the attempt says about the target.
    pub(crate) fn verdict(&self) -> Verdict {
        let failure = match self {
            Self::Delivered { .. } => return Verdict::Answers,
            Self::Failed(failure) => failure,
        };
        let unavailable = |overloaded| Verdict::Unavailable {
            overloaded,
            asked: failure.retry_after,
        };
        match failure.cause {
            Cause::Status(429 | 503) => unavailable(true),
            Cause::Status(502 | 504) => unavailable(false),
            Cause::Status(_) => Verdict::Answers,
            // Our own address rules blocked this; it says nothing about the target's health.
            Cause::Blocked => Verdict::Unknown,
            // The target's alert can come after its half of the handshake, on a connection that seemed open.
            Cause::Tls => unavailable(false),
            Cause::Dns | Cause::Connect | Cause::Timeout | Cause::Reset => {
                match failure.unconnected || failure.ended_unanswered {
                    true => unavailable(false),
                    false => Verdict::Silent,
                }
            }
            Cause::Invalid | Cause::Secret | Cause::Rule | Cause::Expired | Cause::Internal => {
                Verdict::Unknown
            }
        }
    }
}

impl Failure {
    /// Returns whether the target asks for the same call later: 429, or 503 with `Retry-After`.
    pub(crate) fn asks_for_later(&self) -> bool {
        match self.cause {
            Cause::Status(429) => true,
            Cause::Status(503) => self.retry_after.is_some(),
            _ => false,
        }
    }
}

/// The cause of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The target answered with this status.
    Status(u16),
    /// The target's name has no address.
    Dns,
    /// No connection was opened.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The response did not come in time.
    Timeout,
    /// The connection broke, or the answer was no HTTP.
    Reset,
    /// No call can be made of the record.
    Invalid,
    /// The secret is unknown, unreadable, or not for this target.
    Secret,
    /// The address rule forbids the target's address.
    Blocked,
    /// A rule failed.
    Rule,
    /// The record was kept too long.
    Expired,
    /// A bug of Syncgate.
    Internal,
}

impl Cause {
    /// Every cause that is not a status.
    pub(crate) const WITHOUT_STATUS: [Self; 11] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Invalid,
        Self::Secret,
        Self::Blocked,
        Self::Rule,
        Self::Expired,
        Self::Internal,
    ];

    /// Returns the word of its class: `status` for every status.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Invalid => "invalid",
            Self::Secret => "secret",
            Self::Blocked => "blocked",
            Self::Rule => "rule",
            Self::Expired => "expired",
            Self::Internal => "internal",
        }
    }

    /// Returns the cause of that word, if it is not a status.
    pub(crate) fn without_status(word: &str) -> Option<Self> {
        Self::WITHOUT_STATUS
            .into_iter()
            .find(|cause| cause.word() == word)
    }

    /// Returns the HTTP status, if this is one.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Returns whether the network or the connection failed.
    #[must_use]
    pub fn is_network(self) -> bool {
        matches!(
            self,
            Self::Dns | Self::Connect | Self::Tls | Self::Timeout | Self::Reset
        )
    }

    /// Returns whether a later attempt with the same bytes may succeed by itself (design §5).
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Status(408 | 425 | 429 | 500 | 502 | 503 | 504)) || self.is_network()
    }
}

/// Shown as the status, else as the word.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            other => f.write_str(other.word()),
        }
    }
}

/// Reads `Retry-After`: seconds, or a date. `None` if it is neither; a date in the past is a wait of 0.
///
/// A date is relative to the answer's `Date`, because the target's clock may differ from ours; without a readable one,
/// to `now`.
pub(crate) fn retry_after(value: &[u8], date: Option<&[u8]>, now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for 64 bits means a long wait, not an error.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let then = date.and_then(|date| http_date(std::str::from_utf8(date).ok()?.trim()));
    Some(http_date(text)?.since(then.unwrap_or(now)))
}

fn http_date(text: &str) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(text).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp(784_111_777 * 1_000_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let cases: [(&str, Option<Duration>); 9] = [
            ("0", seconds(0)),
            ("120", seconds(120)),
            (" 5 ", seconds(5)),
            ("99999999999999999999999", seconds(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", seconds(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = retry_after(text.as_bytes(), None, now);
            assert_eq!(read, expected, "{text:?}");
        }
        assert_eq!(retry_after(b"\xff", None, now), None);
    }

    #[test]
    fn a_date_is_relative_to_that_of_the_answer() {
        let now = Timestamp(784_111_777 * 1_000_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let fast = "Sun, 06 Nov 1994 09:49:37 GMT";
        for (text, date, expected) in [
            ("Sun, 06 Nov 1994 09:50:07 GMT", fast, seconds(30)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", fast, seconds(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", "today", seconds(60)),
            ("5", fast, seconds(5)),
        ] {
            let read = retry_after(text.as_bytes(), Some(date.as_bytes()), now);
            assert_eq!(read, expected, "{text:?} in an answer of {date:?}");
        }
    }

    #[test]
    fn a_target_is_unavailable_by_its_answer_or_by_its_connection() {
        let asked = Some(Duration::from_secs(7));
        let answered =
            |status, asked| Outcome::Failed(Failure::answered(status, Bytes::new(), asked));
        let failed = |cause| Outcome::Failed(Failure::new(cause, ""));
        let unconnected = |cause| Outcome::Failed(Failure::new(cause, "").unconnected());
        let ended = |cause| {
            let mut failure = Failure::new(cause, "");
            failure.ended_unanswered = true;
            Outcome::Failed(failure)
        };
        let unavailable = |overloaded, asked| Verdict::Unavailable { overloaded, asked };
        let cases = [
            (Outcome::Delivered { status: 200 }, Verdict::Answers),
            (answered(404, None), Verdict::Answers),
            (answered(500, None), Verdict::Answers),
            (answered(500, asked), Verdict::Answers),
            (answered(503, None), unavailable(true, None)),
            (answered(429, asked), unavailable(true, asked)),
            (answered(502, asked), unavailable(false, asked)),
            (answered(504, None), unavailable(false, None)),
            (unconnected(Cause::Timeout), unavailable(false, None)),
            (unconnected(Cause::Dns), unavailable(false, None)),
            (unconnected(Cause::Connect), unavailable(false, None)),
            (failed(Cause::Tls), unavailable(false, None)),
            (ended(Cause::Reset), unavailable(false, None)),
            (failed(Cause::Reset), Verdict::Silent),
            (failed(Cause::Timeout), Verdict::Silent),
            (unconnected(Cause::Blocked), Verdict::Unknown),
            (failed(Cause::Secret), Verdict::Unknown),
            (failed(Cause::Internal), Verdict::Unknown),
        ];
        for (outcome, expected) in cases {
            assert_eq!(outcome.verdict(), expected, "{outcome:?}");
        }
    }

    #[test]
    fn only_what_may_succeed_by_itself_is_transient() {
        let transient: Vec<_> = (100..=999)
            .filter(|status| Cause::Status(*status).is_transient())
            .collect();
        assert_eq!(transient, [408, 425, 429, 500, 502, 503, 504]);
        let words: Vec<_> = Cause::WITHOUT_STATUS
            .into_iter()
            .filter(|cause| cause.is_transient())
            .map(Cause::word)
            .collect();
        assert_eq!(words, ["dns", "connect", "tls", "timeout", "reset"]);
    }

    #[test]
    fn an_answer_is_told_with_its_name_where_it_has_one() {
        let reason = |status| Failure::answered(status, Bytes::new(), None).reason;
        assert_eq!(reason(503), "the target answered 503 Service Unavailable");
        assert_eq!(reason(799), "the target answered 799");
    }
}
