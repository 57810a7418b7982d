//! What is built into the binary and its tests: licences that are accepted, and crates that exist in two versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Licences that ask for no more than a notice.
const LICENCES: [&str; 10] = [
    "0BSD",
    "Apache-2.0",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

/// Crates with more than one version, and why.
const DUPLICATES: [(&str, &str); 10] = [
    ("block-buffer", "digest, twice"),
    (
        "chacha20",
        "chacha20poly1305 0.10 seals secrets; the tests' random numbers use a newer one",
    ),
    ("cpufeatures", "chacha20, twice"),
    ("crypto-common", "digest, twice"),
    (
        "digest",
        "argon2 0.5 is of the generation of chacha20poly1305; the handshake of WebSockets uses a newer sha1",
    ),
    (
        "getrandom",
        "ring and rand_core use 0.2; the newest one is for tests",
    ),
    ("parking_lot", "sled 0.34 uses an older one"),
    ("parking_lot_core", "parking_lot, twice"),
    (
        "rand_core",
        "password-hash uses 0.6; the newer one is for tests",
    ),
    (
        "syn",
        "macros of tracing use version 2; it is gone when the build is over",
    ),
];

/// Packages that are built on this machine, but for our own.
fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let asked = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
            &platform,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        asked.status.success(),
        "{}",
        String::from_utf8_lossy(&asked.stderr)
    );
    let all: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let nodes = all["resolve"]["nodes"].as_array().unwrap();
    let built: BTreeSet<&str> = nodes
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect();
    let packages = all["packages"].as_array().unwrap().iter();
    packages
        .filter(|package| package["id"].as_str().is_some_and(|id| built.contains(id)))
        .filter(|package| package["source"] != Value::Null)
        .cloned()
        .collect()
}

/// Returns whether an SPDX expression can be met by accepted licences alone.
fn is_accepted(expression: &str) -> bool {
    let one = |name: &str| LICENCES.contains(&name.trim_matches(['(', ')', ' ']));
    let any = |names: &str| names.replace('/', " OR ").split(" OR ").any(one);
    expression.split(" AND ").all(any)
}

#[test]
fn every_dependency_has_an_accepted_licence() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(is_accepted(expression), expected, "{expression}");
    }
    let packages = packages();
    assert!(packages.len() > 100, "{}", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_accepted))
        .map(|package| format!("{} ({})", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn a_crate_with_two_versions_stands_in_the_list_with_its_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let word = |name: &str| package[name].as_str().unwrap().to_owned();
        versions
            .entry(word("name"))
            .or_default()
            .insert(word("version"));
    }
    versions.retain(|_, versions| versions.len() > 1);
    let listed: BTreeSet<&str> = DUPLICATES.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = versions.keys().map(String::as_str).collect();
    assert_eq!(found, listed, "{versions:?}");
    assert!(DUPLICATES.iter().all(|(_, reason)| !reason.is_empty()));
}
