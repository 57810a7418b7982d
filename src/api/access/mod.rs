//! Who calls, and who may: users by Basic authentication (RFC 7617), and the least role for each route.
//!
//! Two steps. Before the router a caller is made of every request; under the guarded paths one without good credentials
//! ends there, whether or not there is a route. After it the role is compared with what the route asks for
//! (`router.rs`). In open mode everyone is administrator and `Authorization` is not looked at.

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

/// Paths that are for users, with all below them. `/stream/sync` is not among them: its `Authorization` belongs to the
/// target.
const GUARDED: [&str; 5] = [
    "/services/v2",
    "/v1",
    "/stream/retry",
    // Unless `metrics.public` is true.
    METRICS,
    "/asyncapi.yaml",
];

/// Failed logins are told to the log this often at most, with their number.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Who may use a route, as the table of routes says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Public,
    /// Whoever sends messages.
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

/// Who calls. Handlers find it in the extensions of their request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// `None` for somebody who was not asked.
    pub(super) name: Option<UserName>,
    /// `None` for somebody who may only use what is public.
    pub(super) role: Option<Role>,
}

/// The address that a request comes from; that of a proxy, if one is in between.
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

/// Makes callers of requests.
#[derive(Debug)]
pub(super) struct Door {
    users: Option<Users>,
    failed: Counter,
    untold: Mutex<Untold>,
}

/// Failed logins that the log has not heard of.
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

    /// Returns whether there are users; if not, everyone is administrator.
    pub(super) fn has_users(&self) -> bool {
        self.users.is_some()
    }

    /// Returns who sends a request.
    ///
    /// # Errors
    /// The path is guarded, and the request shows no user: problem `CredentialsMissing`, `CredentialsWrong`, or that
    /// there is no time to look.
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

    /// Counts a failed login and tells the log, unless that has just heard of one. A name is told only if it is a user's:
    /// any other one may be a password in the wrong place.
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

/// Returns name, colon and password of a header's value; `None` if it holds no such thing.
fn basic(value: &[u8]) -> Option<Zeroizing<String>> {
    let value = std::str::from_utf8(value).ok()?;
    let (scheme, shown) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then_some(())?;
    let bytes = BASE64.decode(shown.trim_matches(' ').as_bytes()).ok()?;
    let bytes = Zeroizing::new(bytes);
    // A text that grew would leave its shorter copies in memory.
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    match std::str::from_utf8(&bytes) {
        Ok(shown) => text.push_str(shown),
        // Older clients send Latin-1, each byte of which is the number of its character.
        Err(_) => text.extend(bytes.iter().copied().map(char::from)),
    }
    text.contains(':').then_some(text)
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
    fn name_and_password_are_read_off_the_header_and_nothing_else_is() {
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
            // No base64, base64 without its end, no colon, in UTF-8 and in Latin-1.
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
    fn a_path_is_guarded_with_all_that_lies_below_it() {
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
