//! Names of `[roles]`, `[outcomes]`, `[[streams]]` and `[[targets]]`: each one is legal, unique, and means one thing.

use std::collections::BTreeMap;

use super::{
    CAUSES, CLASSES, Check, DELIVERED, ROLE_WORDS, headers::check_secret_header, outcome_key,
};
use crate::{
    config::{Config, StreamSettings, TargetSettings},
    json::nearest::did_you_mean,
    model::target::Origin,
};

/// Bytes of a path prefix, at most.
const PREFIX_BYTES_MAX: usize = 512;

impl Check<'_> {
    pub(super) fn roles(&mut self, config: &Config) {
        let roles = config.roles.all();
        for (at, (word, name)) in roles.iter().enumerate() {
            for (other_word, other) in &roles[..at] {
                let merged = *other_word != "source" && config.oci_sample.is_some();
                if name == other && !merged {
                    let message = if *other_word == "source" {
                        format!(
                            "is {name}, the source stream: its failures would be dispatched again without end"
                        )
                    } else {
                        format!(
                            "roles.{word} and roles.{other_word} are both {name}: give each a stream of its own"
                        )
                    };
                    self.say(
                        [&format!("roles.{word}"), &format!("roles.{other_word}")],
                        message,
                    );
                }
            }
        }
    }

    pub(super) fn outcomes(&mut self, config: &Config) {
        let mut known: Vec<&str> = ROLE_WORDS.to_vec();
        let roles = config.roles.all();
        known.push(DELIVERED);
        known.extend(roles.iter().map(|(_, name)| name.as_str()));
        known.extend(config.streams.iter().map(|stream| stream.name.as_str()));
        for (key, value) in &config.outcomes {
            let path = format!("outcomes.{key}");
            if outcome_key(key) != Some(key) {
                let words = CLASSES.iter().chain(&CAUSES).copied();
                let message = format!(
                    "is not a status, class or cause: give 100 to 599, {}, or one of {}{}",
                    CLASSES.join(", "),
                    CAUSES.join(", "),
                    did_you_mean(key, words)
                );
                self.say([&path], message);
            }
            if value == config.roles.source.as_str() || value == "source" {
                let message =
                    "is the source stream: its failures would be dispatched again without end";
                self.say([&path], message);
            } else if key == "default" && value == DELIVERED {
                let message = "failures of every kind cannot count as delivered; name a stream";
                self.say([&path], message);
            } else if !known.contains(&value.as_str()) {
                let message = format!(
                    "\"{value}\" is neither delivered nor a role ({}) nor a stream of this configuration{}",
                    ROLE_WORDS.join(", "),
                    did_you_mean(
                        value,
                        known
                            .iter()
                            .copied()
                            .filter(|name| *name != config.roles.source.as_str())
                    )
                );
                self.say([&path], message);
            }
        }
    }

    pub(super) fn streams(&mut self, streams: &[StreamSettings]) {
        let mut names = BTreeMap::new();
        let mut ocids = BTreeMap::new();
        for (at, stream) in streams.iter().enumerate() {
            let path = |key: &str| format!("streams[{at}].{key}");
            if let Some(first) = names.insert(&stream.name, at) {
                let message = format!("{} is already the name of streams[{first}]", stream.name);
                self.say([&path("name")], message);
            }
            if let Some(ocid) = &stream.ocid {
                if ocid.is_empty() || ocid.len() > 255 {
                    self.say([&path("ocid")], "must have 1 to 255 bytes");
                } else if let Some(other) = streams
                    .iter()
                    .find(|other| other.name != stream.name && other.name.as_str() == ocid)
                {
                    let message = format!(
                        "is the name of another stream, {}: requests with it would reach that stream",
                        other.name
                    );
                    self.say([&path("ocid")], message);
                } else if let Some(first) = ocids.insert(ocid, at) {
                    let message = format!(
                        "is also the ocid of streams[{first}]: one id would mean two streams"
                    );
                    self.say([&path("ocid")], message);
                }
            }
        }
    }

    pub(super) fn targets(&mut self, targets: &[TargetSettings]) {
        let mut names = BTreeMap::new();
        let mut origins = BTreeMap::new();
        for (at, target) in targets.iter().enumerate() {
            let path = |key: &str| format!("targets[{at}].{key}");
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if !(1..=64).contains(&target.name.len()) || !target.name.bytes().all(legal) {
                let message = format!(
                    "\"{}\" must have 1 to 64 letters, digits, '-', '_' and '.'",
                    target.name
                );
                self.say([&path("name")], message);
            } else if let Some(first) = names.insert(&target.name, at) {
                let message = format!("{} is already the name of targets[{first}]", target.name);
                self.say([&path("name")], message);
            }
            match origin_of(&target.origin) {
                Err(why) => self.say([&path("origin")], format!("\"{}\" {why}", target.origin)),
                Ok(origin) => {
                    let prefix = target.path_prefix.as_deref();
                    let shown = format!("{origin}{}", prefix.unwrap_or_default());
                    let message =
                        |first| format!("{shown} is already the target of targets[{first}]");
                    if let Some(first) = origins.insert(shown.clone(), at) {
                        self.say([&path("origin")], message(first));
                    }
                }
            }
            if let Some(prefix) = &target.path_prefix
                && !is_path_prefix(prefix)
            {
                let message = format!(
                    "\"{prefix}\" is not a path prefix: give the beginning of a path as it is sent, with / before it and \
                     not behind it, such as /orders/v1"
                );
                self.say([&path("path_prefix")], message);
            }
            if let Some(name) = &target.secret_header
                && let Err(wrong) = check_secret_header(name)
            {
                self.say([&path("secret_header")], wrong);
            }
        }
    }
}

/// Returns whether a text is a path prefix: whole segments, percent-encoded as in the URL of a call.
fn is_path_prefix(text: &str) -> bool {
    let as_sent = url::Url::parse(&format!("http://a{text}"));
    let is_as_sent = as_sent
        .is_ok_and(|url| url.path() == text && url.query().is_none() && url.fragment().is_none());
    is_as_sent && text.starts_with('/') && !text.ends_with('/') && text.len() <= PREFIX_BYTES_MAX
}

/// Reads an origin: scheme, host and port, and nothing more.
pub(super) fn origin_of(text: &str) -> Result<Origin, String> {
    const RIGHT: &str = "give scheme, host and port, such as https://orders.example:8443";
    Origin::bare(text).map_err(|why| format!("is not an origin ({why}); {RIGHT}"))
}
