//! Authentication (Basic, RFC 7617) and authorisation (a least role for each route).
//!
//! Before the router, [`Door`] makes a [`Caller`] of each request. Below the guarded paths a request without good
//! credentials ends there, whether or not a route exists. After the router, `router.rs` compares the caller's role with the
//! least role of the route. In open mode every caller is administrator, and `Authorization` is ignored.

pub(super) mod cors;
pub(super) mod guard;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use data_encoding::BASE64;
use http::{header, request};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    Settings,
    access::guard::one,
    admin::METRICS,
    problem::{Code, Problem},
};
use crate::users::{Refused, Role, User, UserName, Users};

/// Paths for users only, with all paths below them. `/stream/sync` is not one, because its `Authorization` belongs to the
/// target.
const GUARDED: [&str; 5] = [
    "/services/v2",
    "/v1",
    "/stream/retry",
    // Unless `metrics.public` is true.
    METRICS,
    "/asyncapi.yaml",
];

/// Interval of the log lines about failed logins. Each line has their number.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// The callers that may use a route, as the table of routes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Public,
    /// A source of messages.
    Source,
    User,
    Operator,
    Administrator,
}

impl Who {
    /// Returns the least role; `None` if none is needed.
    fn role(self) -> Option<Role> {
        match self {
            Self::Public | Self::Source => None,
            Self::User => Some(Role::User),
            Self::Operator => Some(Role::Operator),
            Self::Administrator => Some(Role::Administrator),
        }
    }
}

/// The caller of a request. Handlers find it in the extensions of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// `None` if the path needs no credentials, and in open mode.
    pub(super) name: Option<UserName>,
    /// `None` if the caller may use public routes only.
    pub(super) role: Option<Role>,
}

/// Address of the client, or of the last proxy before the gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Caller {
    fn unnamed(role: Option<Role>) -> Self {
        Self { name: None, role }
    }

    /// Returns the name of the user, or the address of a caller who has none.
    pub(super) fn or_address(&self, Peer(address): Peer) -> Arc<str> {
        match &self.name {
            Some(name) => name.as_str().into(),
            None => address.to_string().into(),
        }
    }

    /// Refuses a caller whose role is too low.
    pub(super) fn check(&self, who: Who) -> Result<(), Problem> {
        let Some(least) = who.role() else {
            return Ok(());
        };
        if self.role >= Some(least) {
            return Ok(());
        }
        match &self.name {
            None => Err(missing()),
            Some(_) => Err(Problem::new(
                Code::Forbidden,
                format!("this needs the role {}", least.word()),
            )),
        }
    }
}

fn missing() -> Problem {
    Problem::new(
        Code::CredentialsMissing,
        "send the name and the password of a user by Basic authentication",
    )
}

/// Authenticates requests.
#[derive(Debug)]
pub(super) struct Door {
    users: Option<Users>,
    failed: Counter,
    untold: Mutex<Untold>,
}

/// Failed logins since the last log line.
#[derive(Debug, Default)]
struct Untold {
    len: u64,
    told_at: Option<Instant>,
}

impl Door {
    pub(super) fn new(users: Option<Users>, failed: Counter) -> Self {
        Self {
            users,
            failed,
            untold: Mutex::default(),
        }
    }

    /// Returns whether there are users; without them every caller is administrator.
    pub(super) fn has_users(&self) -> bool {
        self.users.is_some()
    }

    /// Returns the caller of a request.
    ///
    /// # Errors
    /// For a guarded path: `CredentialsMissing`, `CredentialsWrong`, or `QueueFull` if too many passwords are being
    /// checked.
    pub(super) async fn caller(
        &self,
        settings: &Settings,
        request: &request::Parts,
    ) -> Result<Caller, Problem> {
        let Some(users) = &self.users else {
            return Ok(Caller::unnamed(Some(Role::Administrator)));
        };
        let path = request.uri.path();
        if !is_guarded(path) {
            return Ok(Caller::unnamed(None));
        }
        if path == METRICS && settings.metrics_public {
            return Ok(Caller::unnamed(Some(Role::User)));
        }
        let shown = match one(&request.headers, &header::AUTHORIZATION) {
            Ok(None) => return Err(missing()),
            Ok(Some(value)) => basic(value.as_bytes()),
            Err(()) => None,
        };
        let verified = match shown {
            Some(shown) => {
                let (name, password) = shown.split_once(':').unwrap_or((&shown, ""));
                users.verify(name, password).await
            }
            None => Err(Refused::Wrong(None)),
        };
        match verified {
            Ok(User { name, role }) => Ok(Caller {
                name: Some(name),
                role: Some(role),
            }),
            Err(refused) => {
                if let Refused::Wrong(user) = &refused {
                    self.note_failure(user.as_ref());
                }
                Err(refused.into())
            }
        }
    }

    /// Counts a failed login, and logs the number once for each interval. The line names known users only, because an
    /// unknown name may be a password in the wrong field.
    fn note_failure(&self, user: Option<&UserName>) {
        self.failed.inc();
        let mut untold = self.untold.lock().unwrap_or_else(|held| held.into_inner());
        untold.len += 1;
        let now = Instant::now();
        let heard = |at: Instant| now.duration_since(at) < TELL_INTERVAL;
        if untold.told_at.is_some_and(heard) {
            return;
        }
        let user = user.map_or("(unknown)", UserName::as_str);
        tracing::warn!(user, logins = untold.len, "login failed");
        *untold = Untold {
            len: 0,
            told_at: Some(now),
        };
    }
}

fn is_guarded(path: &str) -> bool {
    GUARDED.iter().any(|guarded| is_below(path, guarded))
}

/// Returns whether a path is `root` or below it.
pub(super) fn is_below(path: &str, root: &str) -> bool {
    let below = path.strip_prefix(root);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// Returns `name:password` of an `Authorization` value; `None` if it has none.
fn basic(value: &[u8]) -> Option<Zeroizing<String>> {
    let value = std::str::from_utf8(value).ok()?;
    let (scheme, shown) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then_some(())?;
    let bytes = BASE64.decode(shown.trim_matches(' ').as_bytes()).ok()?;
    let bytes = Zeroizing::new(bytes);
    // Full capacity at once: a string that grows leaves copies of the password in freed memory.
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    match std::str::from_utf8(&bytes) {
        Ok(shown) => text.push_str(shown),
        // Older clients send Latin-1, in which each byte is the code point of its character.
        Err(_) => text.extend(bytes.iter().copied().map(char::from)),
    }
    text.contains(':').then_some(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<&str>) {
        let shown = basic(value.as_bytes());
        assert_eq!(shown.as_ref().map(|text| &***text), expected, "{value}");
    }

    #[test]
    fn only_basic_credentials_are_read_from_the_header() {
        // The example of RFC 7617, 2, and the one of 2.1.
        check(
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            Some("Aladdin:open sesame"),
        );
        check("Basic dGVzdDoxMjPCow==", Some("test:123\u{a3}"));
        check(
            "bASIC  QWxhZGRpbjpvcGVuIHNlc2FtZQ== ",
            Some("Aladdin:open sesame"),
        );
        // The same password in Latin-1.
        check("Basic dGVzdDoxMjOj", Some("test:123\u{a3}"));
        check("Basic /zr/", Some("\u{ff}:\u{ff}"));
        check("Basic YTpiOmM=", Some("a:b:c"));
        check("Basic Og==", Some(":"));
        for wrong in [
            "",
            "Basic",
            "Basic ",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            // Not base64; base64 that is cut; no colon, in UTF-8 and in Latin-1.
            "Basic a:b",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ",
            "Basic QWxhZGRpbg==",
            "Basic //8=",
        ] {
            check(wrong, None);
        }
        assert!(basic(b"Basic \xff").is_none());
    }

    #[test]
    fn a_path_is_guarded_with_all_paths_below_it() {
        for path in [
            "/v1",
            "/v1/",
            "/v1/x/y",
            "/services/v2/stream/s1",
            "/stream/retry",
            "/metrics",
        ] {
            assert!(is_guarded(path), "{path}");
        }
        for path in [
            "/",
            "/v10",
            "/services",
            "/services/v2x",
            "/stream/sync",
            "/stream/retries",
            "/healthz",
            "/readyz",
        ] {
            assert!(!is_guarded(path), "{path}");
        }
    }
}
