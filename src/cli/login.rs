//! The user and password of a command: from the gateway's address, else from the environment.
//!
//! The password has no argument of its own, because every user of a machine sees the arguments of every process.

use std::{ffi::OsString, fmt};

use percent_encoding::percent_decode_str;
use url::Url;
use zeroize::Zeroizing;

use super::Failure;

/// A user and its password.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, ***)", self.user)
    }
}

impl Login {
    /// Moves user and password out of an address, so that messages cannot show them. Missing parts come from SYNCGATE_USER and
    /// SYNCGATE_PASSWORD.
    ///
    /// # Errors
    /// If one of them is missing, or not UTF-8.
    pub(super) fn take(
        url: &mut Url,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, Failure> {
        let of_url = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(decoded);
        let of_variable = |name: &str| {
            variable(name).map(|value| match value.into_string() {
                Ok(value) if value.is_empty() => Err(Failure::usage(format!(
                    "{name} is empty; give a value, or unset the variable"
                ))),
                Ok(value) => Ok(value),
                Err(_) => Err(Failure::usage(format!("{name} is not UTF-8"))),
            })
        };
        let user = of_url(Some(url.username())).or_else(|| of_variable("SYNCGATE_USER"));
        let password = of_url(url.password()).or_else(|| of_variable("SYNCGATE_PASSWORD"));
        if (url.set_username(""), url.set_password(None)) != (Ok(()), Ok(())) {
            // Only addresses that no gateway has refuse this; `Client::new` says so.
            return Ok(None);
        }
        match (user.transpose()?, password.transpose()?) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => Ok(Some(Self {
                user,
                password: Zeroizing::new(password),
            })),
            (Some(_), None) => Err(Failure::usage(
                "there is a user and no password: set SYNCGATE_PASSWORD",
            )),
            (None, Some(_)) => Err(Failure::usage(
                "there is a password and no user: set SYNCGATE_USER",
            )),
        }
    }
}

fn decoded(text: &str) -> Result<String, Failure> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into)
        .map_err(|_| Failure::usage("user or password of --url is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        url: &str,
        environment: &[(&str, &str)],
        expected: Result<Option<(&str, &str)>, &str>,
    ) {
        let mut url: Url = url.parse().unwrap();
        let variable = |name: &str| {
            let found = environment.iter().find(|(of, _)| *of == name);
            found.map(|(_, value)| value.into())
        };
        let login = Login::take(&mut url, variable);
        match (&login, expected) {
            (Ok(login), Ok(expected)) => {
                let login = login.as_ref();
                let shown = login.map(|login| (&*login.user, login.password.as_str()));
                assert_eq!(shown, expected);
                assert_eq!(url.as_str(), "http://gate:9002/");
            }
            (Err(failure), Err(expected)) => {
                assert_eq!(failure.code, 2);
                assert!(failure.message.contains(expected), "{}", failure.message);
            }
            _ => panic!("{login:?}, not {expected:?}"),
        }
        assert!(
            !format!("{login:?} {url}").contains("horse"),
            "{login:?} {url}"
        );
    }

    #[test]
    fn user_and_password_come_from_the_address_or_the_environment() {
        let both = [("SYNCGATE_USER", "ada"), ("SYNCGATE_PASSWORD", "a horse")];
        let plain = "http://gate:9002";
        check(plain, &[], Ok(None));
        check(plain, &both, Ok(Some(("ada", "a horse"))));
        check(
            "http://bob:c%3Ahorse%40@gate:9002",
            &both,
            Ok(Some(("bob", "c:horse@"))),
        );
        check(
            "http://b%C3%B6b@gate:9002",
            &both,
            Ok(Some(("böb", "a horse"))),
        );
        check("http://bob@gate:9002", &[], Err("set SYNCGATE_PASSWORD"));
        check(plain, &both[..1], Err("set SYNCGATE_PASSWORD"));
        check(plain, &both[1..], Err("set SYNCGATE_USER"));
        let empty = [("SYNCGATE_USER", ""), both[1]];
        check(plain, &empty, Err("SYNCGATE_USER is empty"));
        check("http://bob:%ffhorse@gate:9002", &[], Err("not UTF-8"));
    }
}
