//! The first administrator: two environment variables, and no settings, because no file may hold a password.

use super::{ConfigError, SettingPlace};
use crate::users::{Administrator, Password, UserName};

const USER: &str = "SYNCGATE_ADMIN_USER";
const PASSWORD: &str = "SYNCGATE_ADMIN_PASSWORD";

/// Both variables.
pub(super) const VARIABLES: [&str; 2] = [USER, PASSWORD];

/// Reads both variables. Its errors do not show their values.
pub(super) fn read(environment: &[(String, String)]) -> (Option<Administrator>, Vec<ConfigError>) {
    let value = |of: &str| {
        let variable = environment.iter().find(|(name, _)| name == of);
        variable.map(|(_, value)| value.as_str())
    };
    let mut wrong = Vec::new();
    let mut say = |variable: &str, message: String| {
        wrong.push(ConfigError {
            key: String::new(),
            place: SettingPlace::Environment(variable.into()),
            message,
        });
    };
    let lone = |other| format!("is set, {other} is not; set both of them, or neither");
    let administrator = match (value(USER), value(PASSWORD)) {
        (None, None) => None,
        (Some(_), None) => {
            say(USER, lone(PASSWORD));
            None
        }
        (None, Some(_)) => {
            say(PASSWORD, lone(USER));
            None
        }
        (Some(name), Some(password)) => {
            let name = checked(name, UserName::new);
            let password = checked(password, Password::new);
            match (name, password) {
                (Ok(name), Ok(password)) => Some(Administrator { name, password }),
                (name, password) => {
                    if let Err(why) = name {
                        say(USER, why);
                    }
                    if let Err(why) = password {
                        say(PASSWORD, why);
                    }
                    None
                }
            }
        }
    };
    (administrator, wrong)
}

/// Refuses text with U+FFFD: the variable was not UTF-8, and the text would differ from what was meant.
fn checked<T, E: ToString>(text: &str, check: impl Fn(&str) -> Result<T, E>) -> Result<T, String> {
    match text.contains(char::REPLACEMENT_CHARACTER) {
        true => Err("is not UTF-8; write it in UTF-8".into()),
        false => check(text).map_err(|why| why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` are the beginnings of the errors, in order.
    #[track_caller]
    fn check(user: Option<&str>, password: Option<&str>, expected: &[&str]) {
        let variables = [(USER, user), (PASSWORD, password)];
        let set = variables
            .iter()
            .filter_map(|(name, value)| value.map(|value| ((*name).to_owned(), value.to_owned())));
        let (administrator, wrong) = read(&set.collect::<Vec<_>>());
        let said: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}, not {expected}");
        }
        let made = user.is_some() && password.is_some() && expected.is_empty();
        assert_eq!(administrator.is_some(), made);
    }

    #[test]
    fn both_variables_make_an_administrator_and_one_alone_is_refused() {
        check(None, None, &[]);
        check(Some("ada"), Some("correct horse"), &[]);
        check(
            Some("ada"),
            None,
            &["SYNCGATE_ADMIN_USER: is set, SYNCGATE_ADMIN_PASSWORD is not; set both"],
        );
        check(
            None,
            Some("correct horse"),
            &["SYNCGATE_ADMIN_PASSWORD: is set, SYNCGATE_ADMIN_USER is not; set both"],
        );
    }

    #[test]
    fn every_fault_is_reported_and_no_value_shown() {
        check(
            Some(""),
            Some(""),
            &[
                "SYNCGATE_ADMIN_USER: is empty; give a name of 1 to 128 bytes",
                "SYNCGATE_ADMIN_PASSWORD: is empty; give a password of 12 to 128 characters",
            ],
        );
        check(
            Some("a:b"),
            Some("horse"),
            &[
                "SYNCGATE_ADMIN_USER: has a colon",
                "SYNCGATE_ADMIN_PASSWORD: is too short; give a password of 12 to 128 characters",
            ],
        );
        check(
            Some("ad\u{fffd}"),
            Some("correct h\u{fffd}rse"),
            &[
                "SYNCGATE_ADMIN_USER: is not UTF-8",
                "SYNCGATE_ADMIN_PASSWORD: is not UTF-8",
            ],
        );
        let set = [(USER, "ada:x"), (PASSWORD, "hunter2")];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (_, wrong) = read(&set);
        let said = format!("{wrong:?}");
        assert!(!said.contains("ada") && !said.contains("hunter"), "{said}");
    }
}
