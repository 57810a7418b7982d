//! What an end of a connection means: that another one goes on, or that it is over. Pure: the random number is given.

use std::time::Duration;

use reqwest::StatusCode;

use crate::{cli::client, dispatch::backoff::Backoff};

use super::{record::ReadError, session};

const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    max: Duration::from_secs(30),
};
/// The longest wait that a gateway can ask for.
const ASKED_MAX: Duration = Duration::from_secs(600);

/// Why a connection, or the try to make one, came to its end.
#[derive(Debug)]
pub(super) enum Cut {
    /// Another connection may go on, but not before the gateway wants it.
    Passing {
        why: String,
        retry_after: Option<Duration>,
    },
    /// As passing, if it happens once: the configuration has changed between it being read and the first record.
    OtherShape(String),
    /// Another connection would end as well.
    Final(String),
    /// There is nothing any more that could be read.
    Gone(String),
    /// What comes next was removed: only another place to begin helps.
    Trimmed(String),
}

impl Cut {
    /// Judges an answer to a handshake that came after another connection was lost.
    pub(super) fn refused(error: client::Error) -> Self {
        match error {
            client::Error::Unreachable(why) | client::Error::NoAnswer(why) => Self::passing(why),
            client::Error::Refused(refusal) => {
                let passes = matches!(
                    refusal.status,
                    StatusCode::REQUEST_TIMEOUT
                        | StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::INTERNAL_SERVER_ERROR
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                );
                // The connection that was lost may have it: the gateway has not heard of its end yet.
                if passes || refusal.code == "cursor_in_use" {
                    return Self::Passing {
                        why: refusal.line(),
                        retry_after: refusal.retry_after,
                    };
                }
                match refusal.status {
                    StatusCode::NOT_FOUND => Self::Gone(refusal.text()),
                    StatusCode::GONE => Self::Trimmed(refusal.text()),
                    _ => Self::Final(refusal.text()),
                }
            }
        }
    }

    pub(super) fn ended(ended: session::Ended) -> Self {
        match ended {
            session::Ended::Lost(why) => Self::passing(why),
            session::Ended::Broken(why) => Self::Final(why),
            session::Ended::Closed(code, reason) => closed(code, &reason),
        }
    }

    pub(super) fn unread(error: &ReadError) -> Self {
        match error {
            ReadError::NoRecords(_) => Self::Final(error.to_string()),
            ReadError::OtherShape => Self::OtherShape(error.to_string()),
        }
    }

    fn passing(why: String) -> Self {
        Self::Passing {
            why,
            retry_after: None,
        }
    }
}

/// What a close means (`push-decisions.md` §8).
fn closed(code: u16, reason: &str) -> Cut {
    let reason = reason.replace(char::is_control, " ");
    let told = format!("the gateway closed the connection ({code} {reason})").replace(" )", ")");
    let hint = match code {
        4408 | 4412 | 4429 => return Cut::passing(told),
        1002 | 1003 | 1007..=1010 | 4400 => "this is a mistake of the client",
        4401 => "the user has no access any more",
        4403 => "the user may not read this data stream any more",
        4404 => "the data stream was deleted, or the stream that it shows",
        4409 => "another client has taken the cursor over",
        4410 => "what came next was removed before it was read",
        4000..=4999 => "this client does not know why",
        _ => return Cut::passing(told),
    };
    let told = format!("{told}: {hint}");
    match code {
        4404 => Cut::Gone(told),
        4410 => Cut::Trimmed(told),
        _ => Cut::Final(told),
    }
}

/// Returns whether the command connects again after a close with this code.
#[cfg(test)]
pub(in crate::cli) fn connects_again_after(code: u16) -> bool {
    matches!(closed(code, ""), Cut::Passing { .. })
}

/// Returns how long to wait before the `failures`th connection in a row (1 = the first).
pub(super) fn wait(failures: u32, retry_after: Option<Duration>, random: u64) -> Duration {
    let jitter = BACKOFF.delay(failures, random);
    // All that were told the same time do not come at the same moment.
    retry_after.map_or(jitter, |asked| asked.min(ASKED_MAX) + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_close_code_means_what_the_protocol_says() {
        for code in [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4412, 4429] {
            let cut = closed(code, "word pos=p1x");
            assert!(
                matches!(
                    cut,
                    Cut::Passing {
                        retry_after: None,
                        ..
                    }
                ),
                "{code} {cut:?}"
            );
        }
        let ends = [
            1002, 1003, 1007, 1009, 4400, 4401, 4403, 4404, 4409, 4410, 4999,
        ];
        for code in ends {
            let told = match (code, closed(code, "word\u{1b}")) {
                (4404, Cut::Gone(told)) | (4410, Cut::Trimmed(told)) => told,
                (code, Cut::Final(told)) if !matches!(code, 4404 | 4410) => told,
                (code, cut) => panic!("{code}: {cut:?}"),
            };
            let begins = format!("the gateway closed the connection ({code} word): ");
            assert!(told.starts_with(&begins), "{told}");
        }
        let Cut::Final(told) = closed(1002, "") else {
            panic!();
        };
        assert!(told.contains("(1002):"), "{told}");
    }

    #[test]
    fn waits_grow_within_bounds_and_never_undercut_what_was_asked_for() {
        assert_eq!(wait(1, None, u64::MAX), Duration::from_millis(200));
        assert_eq!(wait(1, None, 0), Duration::ZERO);
        assert_eq!(wait(3, None, u64::MAX), Duration::from_millis(800));
        assert_eq!(wait(u32::MAX, None, u64::MAX), Duration::from_secs(30));
        let asked = Some(Duration::from_secs(60));
        assert_eq!(wait(1, asked, 0), Duration::from_secs(60));
        assert_eq!(wait(2, asked, u64::MAX), Duration::from_millis(60_400));
        assert_eq!(wait(1, Some(Duration::MAX), 0), ASKED_MAX);
    }
}
