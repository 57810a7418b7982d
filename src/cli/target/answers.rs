//! The rules of the target, by path: `/down=503`. Pure.

use std::time::Duration;

use http::StatusCode;

use crate::config::Unit;

const EXAMPLES: &str =
    "503, delay:2s, retry-after:30s, close, hang, or several such as 503,delay:2s";
/// Longest delay, and longest Retry-After.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A path, and the answer to its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Rule {
    /// The path of a call; a `*` at its end matches any rest.
    path: String,
    act: Act,
}

/// The handling of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Act {
    /// How long the target waits first.
    pub(super) delay: Duration,
    pub(super) end: End,
}

/// How a call ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// An answer without a body.
    Answer {
        status: StatusCode,
        /// The header `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// The connection is closed without an answer.
    Close,
    /// No answer, until the caller gives up.
    Hang,
}

impl Default for End {
    fn default() -> Self {
        Self::Answer {
            status: StatusCode::OK,
            retry_after: None,
        }
    }
}

impl Rule {
    /// Reads `PATH=ANSWER`.
    ///
    /// # Errors
    /// A sentence that names the part that is wrong and what would be right.
    pub(in crate::cli) fn read(text: &str) -> Result<Self, String> {
        let Some((path, act)) = text.rsplit_once('=') else {
            return Err("give a path and an answer, such as /down=503".into());
        };
        if !path.starts_with(['/', '*']) || path.contains(['?', '#']) {
            return Err(format!(
                "\"{path}\" is not a path: a path begins with / and has no query; * at its end stands for any rest"
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            act: Act::read(act)?,
        })
    }

    fn fits(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == self.path,
        }
    }
}

impl Act {
    /// Returns the act of the first rule that matches a path, else the answer 200.
    pub(super) fn of(path: &str, rules: &[Rule]) -> Self {
        let rule = rules.iter().find(|rule| rule.fits(path));
        rule.map_or_else(Self::default, |rule| rule.act.clone())
    }

    fn read(text: &str) -> Result<Self, String> {
        let (mut status, mut retry_after, mut delay, mut ending) = (None, None, None, None);
        for part in text.split(',').map(str::trim) {
            let is_first = match part.split_once(':') {
                Some(("delay", wait)) => delay.replace(duration(wait)?).is_none(),
                Some(("retry-after", wait)) => {
                    retry_after.replace(duration(wait)?.as_secs()).is_none()
                }
                None if part == "close" => ending.replace(End::Close).is_none(),
                None if part == "hang" => ending.replace(End::Hang).is_none(),
                _ => status.replace(read_status(part)?).is_none(),
            };
            if !is_first {
                return Err(format!("\"{part}\" is one answer too many in \"{text}\""));
            }
        }
        let answers = status.is_some() || retry_after.is_some();
        let end = match ending {
            Some(_) if answers => {
                return Err(format!(
                    "\"{text}\" has an answer beside close or hang, which mean no answer"
                ));
            }
            Some(end) => end,
            None => End::Answer {
                // Retry-After alone means unavailable.
                status: status.unwrap_or(match retry_after {
                    Some(_) => StatusCode::SERVICE_UNAVAILABLE,
                    None => StatusCode::OK,
                }),
                retry_after,
            },
        };
        Ok(Self {
            delay: delay.unwrap_or_default(),
            end,
        })
    }

    /// Describes the act: `answered 503 after 2s`.
    pub(super) fn words(&self) -> String {
        let mut words = match &self.end {
            End::Answer { status, .. } => format!("answered {}", status.as_u16()),
            End::Close => "closed without an answer".into(),
            End::Hang => "not answered".into(),
        };
        if !self.delay.is_zero() {
            words += &format!(" after {}", humantime::format_duration(self.delay));
        }
        if let End::Answer {
            retry_after: Some(seconds),
            ..
        } = self.end
        {
            words += &format!(", Retry-After {seconds}");
        }
        words
    }
}

fn read_status(text: &str) -> Result<StatusCode, String> {
    let status = text
        .parse()
        .ok()
        .filter(|status| (200..=599).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status
        .ok_or_else(|| format!("\"{text}\" is no answer: give {EXAMPLES}; a status is 200 to 599"))
}

/// Reads a duration; a bare number is in seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let millis = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1_000),
        Err(_) => Unit::Milliseconds.read(text)?,
    };
    Some(Duration::from_millis(millis))
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| format!("\"{text}\" is longer than a day"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: &str, path: &str, words: &str) {
        let rule = Rule::read(rule).unwrap();
        assert_eq!(Act::of(path, &[rule]).words(), words);
    }

    #[test]
    fn the_path_decides_the_answer() {
        check("/down=503", "/down", "answered 503");
        check("/down=503", "/down/1", "answered 200");
        check("/down*=503", "/down/1", "answered 503");
        check("*=404", "/", "answered 404");
        check("/slow=delay:2s", "/slow", "answered 200 after 2s");
        check("/slow=delay:2", "/slow", "answered 200 after 2s");
        check("/a=b=204", "/a=b", "answered 204");
        check(
            "/busy=429,retry-after:5",
            "/busy",
            "answered 429, Retry-After 5",
        );
        check(
            "/busy=retry-after:1m",
            "/busy",
            "answered 503, Retry-After 60",
        );
        check(
            "/gone=close,delay:10ms",
            "/gone",
            "closed without an answer after 10ms",
        );
        check("/hang=hang", "/hang", "not answered");
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = ["/a=404", "/a*=500"].map(|rule| Rule::read(rule).unwrap());
        assert_eq!(Act::of("/a", &rules).words(), "answered 404");
        assert_eq!(Act::of("/ab", &rules).words(), "answered 500");
    }

    #[test]
    fn a_wrong_rule_is_refused_with_what_would_be_right() {
        for (rule, told) in [
            ("/down", "such as /down=503"),
            ("down=503", "\"down\" is not a path"),
            ("/a?b=503", "\"/a?b\" is not a path"),
            ("/down=", "\"\" is no answer: give 503, delay:2s"),
            ("/down=199", "\"199\" is no answer"),
            ("/down=600", "a status is 200 to 599"),
            ("/down=delay:x", "\"x\" is no duration"),
            ("/down=delay:25h", "\"25h\" is longer than a day"),
            ("/down=503,404", "\"404\" is one answer too many"),
            ("/down=503,close", "which mean no answer"),
            ("/down=hang,close", "\"close\" is one answer too many"),
        ] {
            let error = Rule::read(rule).unwrap_err();
            assert!(error.contains(told), "{rule}: {error}");
        }
    }
}
