//! Whether the end of a connection is followed by another one, or ends the command. Pure: takes the random number as a value.

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

/// Why a connection ended or failed.
#[derive(Debug)]
pub(super) enum Cut {
    /// Connect again, but not before `retry_after`.
    Passing {
        why: String,
        retry_after: Option<Duration>,
    },
    /// Connect again once, because the configuration changed between its read and the first record.
    OtherShape(String),
    /// Another connection would end in the same way.
    Final(String),
    /// The data stream or its stream was removed.
    Gone(String),
    /// The next records were trimmed; only another position helps.
    Trimmed(String),
}

impl Cut {
    /// Judges a refused handshake after a lost connection.
    pub(super) fn refused(error: client::Error) -> Self {
        match error {
            // A proxy may answer in place of a gateway that restarts.
            client::Error::Unreachable(why)
            | client::Error::NoAnswer(why)
            | client::Error::NotAGateway(why) => Self::passing(why),
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
                // The lost connection may still hold the cursor until the gateway notices its end.
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

/// Judges a close code.
fn closed(code: u16, reason: &str) -> Cut {
    let reason = reason.replace(char::is_control, " ");
    let told = format!("the gateway closed the connection ({code} {reason})").replace(" )", ")");
    let hint = match code {
        4408 | 4412 | 4429 => return Cut::passing(told),
        1002 | 1003 | 1007..=1010 | 4400 => "the client broke the protocol",
        4401 => "the user has no access any more",
        4403 => "the user may not read this data stream any more",
        4404 => "the data stream was deleted, or the stream that it shows",
        4409 => "another client took over the cursor",
        4410 => "the next records were removed before they were read",
        4000..=4999 => "this client does not know the code",
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
    // The jitter spreads clients that got the same Retry-After.
    retry_after.map_or(jitter, |asked| asked.min(ASKED_MAX) + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_close_code_is_judged_as_the_protocol_says() {
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
    fn waits_grow_within_bounds_and_are_never_shorter_than_retry_after() {
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
