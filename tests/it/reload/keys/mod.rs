//! Every key that a reload takes has an effect that can be seen, one test each.
//!
//! A test starts the gateway with a value under which its wait would never end, or would end otherwise.

mod dispatch;
mod edge;
mod rest;

use std::{collections::BTreeSet, path::Path};

use syncgate::config::NEEDS_RESTART;

use crate::testkit::{Gateway, poll};

use super::told;

/// Lists which function observes which key; each is a test.
macro_rules! effects {
    ($($key:literal => $effect:ident),* $(,)?) => {
        /// Keys whose effect is observed.
        pub const OBSERVED: &[&str] = &[$($key),*];

        mod each {
            $(
                #[tokio::test]
                async fn $effect() {
                    super::$effect().await;
                }
            )*
        }
    };
}
use effects;

/// Has a file reloaded and checks that it changes this key and no other.
async fn take(gateway: &Gateway, key: &str, config: &str) {
    let answer = gateway.reload(config).await.ok();
    assert_eq!(answer, told(&[key], &[]), "{config}");
}

/// Waits until a metric is as wanted; `None` if it is not there.
async fn metric(gateway: &Gateway, sample: &str, wanted: Option<u64>) {
    poll(&format!("{sample} to be {wanted:?}"), async || {
        let text = gateway.get("/metrics").await.ok();
        let text = text.as_str().expect("a text");
        let value = text.lines().find_map(|line| line.strip_prefix(sample));
        let wanted = wanted.map(|wanted| format!("{wanted}.0"));
        (value.map(str::trim) == wanted.as_deref()).then_some(())
    })
    .await;
}

/// Their effect takes hours: it is observed by the tests of retention, whose clock can be set.
const IN_HOURS: [&str; 2] = ["retention.source_hours", "retention.error_hours"];

/// Section and key of everything that the reference file has.
fn reference() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/syncgate.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let (mut keys, mut section) = (BTreeSet::new(), "");
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']);
        } else if let Some((key, _)) = line.split_once(" = ")
            && !key.contains(' ')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

#[test]
fn every_key_that_needs_no_restart_is_observed() {
    let needs_restart = |key: &str| {
        NEEDS_RESTART
            .iter()
            .any(|pattern| match pattern.split_once('*') {
                Some((start, end)) => key.starts_with(start) && key.ends_with(end),
                None => key == *pattern,
            })
    };
    let mut taken = reference();
    assert!(taken.len() > 70, "{taken:?}");
    taken.retain(|key| !needs_restart(key) && !IN_HOURS.contains(&&**key));
    let observed = [edge::OBSERVED, dispatch::OBSERVED, rest::OBSERVED].concat();
    let observed: BTreeSet<String> = observed.into_iter().map(str::to_owned).collect();
    assert_eq!(observed, taken);
}
