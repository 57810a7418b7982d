//! `syncgate config`, `check` and `serve`: quantities with units, the file of the environment, where each value was said; and
//! what is made of the command line itself.

use std::process::Command;

use serde_json::Value;

use crate::testkit::{Place, syncgate};

fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[track_caller]
fn printed(command: &mut Command) -> String {
    let (code, out, err) = ended(command);
    assert_eq!(code, Some(0), "{out}{err}");
    out
}

#[test]
fn every_setting_is_shown_with_its_origin() {
    let place = Place::with_config(
        "[server]\ngrace_ms = \"5s\"\n[log]\ncache_bytes = \"32MiB\"\n[[streams]]\nname = \"Orders\"\nretention_hours = \"7d\"\n\
         [secrets]\nmaster_key_command = [\"get-key\", \"--token=t0ps3cret\"]\n",
    );
    let show = || {
        let mut command = syncgate();
        command.args(["config", "show", "--listen", "127.0.0.1:1"]);
        command.arg("--config").arg(place.config_file());
        command.env("SYNCGATE_RETENTION__SOURCE_HOURS", "36h");
        command.env("SYNCGATE_ADMIN_USER", "ada");
        command.env("SYNCGATE_ADMIN_PASSWORD", "correct horse battery");
        command
    };
    let out = printed(show().args(["--output", "json"]));
    assert!(
        !out.contains("t0ps3cret") && !out.contains("horse"),
        "{out}"
    );
    let report: Value = serde_json::from_str(&out).unwrap();
    let setting = |key: &str| {
        let all = report["settings"].as_array().unwrap();
        let found = all.iter().find(|setting| setting["key"] == key);
        found
            .unwrap_or_else(|| panic!("no {key}: {report}"))
            .clone()
    };
    let file = place.config_file().display().to_string();
    for (key, value, kind, name, line) in [
        (
            "server.listen",
            "\"127.0.0.1:1\"",
            "argument",
            Some("--listen"),
            None,
        ),
        ("server.grace_ms", "5000", "file", Some(&*file), Some(2)),
        ("log.cache_bytes", "33554432", "file", Some(&*file), Some(4)),
        (
            "streams[0].retention_hours",
            "168",
            "file",
            Some(&*file),
            Some(7),
        ),
        (
            "retention.source_hours",
            "36",
            "variable",
            Some("SYNCGATE_RETENTION__SOURCE_HOURS"),
            None,
        ),
        ("dispatch.attempts_max", "1", "default", None, None),
        (
            "secrets.master_key_command",
            "[\"get-key\",\"***\"]",
            "file",
            Some(&*file),
            Some(9),
        ),
    ] {
        let setting = setting(key);
        let origin = &setting["origin"];
        assert_eq!(setting["value"].to_string(), value, "{setting}");
        assert_eq!(
            (
                origin["kind"].as_str(),
                origin["name"].as_str(),
                origin["line"].as_u64()
            ),
            (Some(kind), name, line),
            "{setting}"
        );
    }
    let text = printed(&mut show());
    let line = text
        .lines()
        .find(|line| line.starts_with("log.cache_bytes "))
        .unwrap();
    assert!(
        line.contains("33554432 (32MiB)") && line.ends_with("syncgate.toml, line 4"),
        "{line}"
    );
}

#[test]
fn the_reference_is_printed_and_is_a_configuration() {
    let text = printed(syncgate().args(["config", "default"]));
    let file =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/syncgate.toml"));
    assert_eq!(text, file.unwrap());
    let place = Place::with_config(&text);
    printed(
        syncgate()
            .arg("check")
            .arg("--config")
            .arg(place.config_file()),
    );
    let json = printed(syncgate().args(["config", "default", "--output", "json"]));
    let defaults: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(defaults["server"]["listen"], "127.0.0.1:9002", "{defaults}");
}

#[test]
fn a_wrong_quantity_names_setting_value_and_examples() {
    let place = Place::with_config("[server]\ngrace_ms = \"soon\"\n[log]\ncache_bytes = \"30s\"\n");
    let mut check = syncgate();
    check.arg("check").arg("--config").arg(place.config_file());
    check.env("SYNCGATE_RETENTION__ERROR_HOURS", "90m");
    let (code, _, said) = ended(&mut check);
    assert_eq!(code, Some(2), "{said}");
    for part in [
        "line 2: server.grace_ms: \"soon\" is no duration: give milliseconds, such as 30000, or \"30s\" or \"500ms\"; the default is 20000",
        "line 4: log.cache_bytes: \"30s\" is no size: give bytes, such as 67108864, or \"64MiB\"; the default is 16777216",
        "SYNCGATE_RETENTION__ERROR_HOURS: retention.error_hours: \"90m\" is not a whole number of hours; the default is 720",
    ] {
        assert!(said.contains(part), "{part}\nnot in\n{said}");
    }
}

#[tokio::test]
async fn the_file_of_the_environment_counts_where_no_argument_names_one() {
    let place = Place::with_config("[server]\ngrace_ms = 7000\n");
    let other = Place::with_config("[server]\ngrace_ms = 9000\n");
    let grace = |command: &mut Command| {
        let json = printed(command.args(["--output", "json"]));
        let report: Value = serde_json::from_str(&json).unwrap();
        let all = report["settings"].as_array().unwrap().clone();
        let found = all
            .into_iter()
            .find(|setting| setting["key"] == "server.grace_ms");
        found.unwrap()["value"].as_u64()
    };
    let show = || {
        let mut command = syncgate();
        command
            .args(["config", "show"])
            .env("SYNCGATE_CONFIG", place.config_file());
        command
    };
    assert_eq!(grace(&mut show()), Some(7_000));
    assert_eq!(
        grace(show().arg("--config").arg(other.config_file())),
        Some(9_000)
    );
    for command in [&["check"][..], &["config", "show"], &["serve"], &[]] {
        for (file, what) in [
            (
                "",
                "SYNCGATE_CONFIG: is empty; give a value, or unset the variable",
            ),
            ("/nowhere/x.toml", "/nowhere/x.toml: cannot be read"),
        ] {
            let (code, out, said) = ended(syncgate().args(command).env("SYNCGATE_CONFIG", file));
            assert_eq!(code, Some(2), "{command:?}: {out}{said}");
            assert!(said.contains(what), "{command:?}: {said}");
        }
    }
    // `serve` runs with what stands there.
    let gateway = Place::new().env(
        "SYNCGATE_CONFIG",
        &place.config_file().display().to_string(),
    );
    let refused = gateway
        .env("SYNCGATE_SERVER__GRACE_MS", "no")
        .start_refused()
        .await;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("server.grace_ms"),
        "{refused:?}"
    );
}

#[test]
fn a_word_that_is_nearly_a_command_or_an_option_is_told_so() {
    for (arguments, near) in [
        (&["recods", "DataSyncStream"][..], "'records'"),
        (&["streams", "prge"], "'purge'"),
        (&["streams", "ls", "--urll", "x"], "'--url'"),
        (&["config", "shw"], "'show'"),
        (&["completions", "bsh"], "'bash'"),
    ] {
        let (code, _, said) = ended(syncgate().args(arguments));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("similar") && said.contains(near), "{said}");
    }
}

#[test]
fn shells_complete_and_manuals_have_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(syncgate().args(["completions", shell]));
        assert!(
            script.contains("healthcheck") && script.contains("discard-pending"),
            "{shell}"
        );
    }
    let place = Place::new();
    let dir = place.path().join("man");
    let said = printed(syncgate().arg("man").arg("--dir").arg(&dir));
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(
        said.starts_with(&format!("{} pages written", files.len())),
        "{said}"
    );
    let page = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert!(
        page("syncgate.1").contains("syncgate\\-records"),
        "{}",
        page("syncgate.1")
    );
    assert!(page("syncgate-streams-purge.1").contains("discard\\-pending"));
    assert!(page("syncgate-config-show.1").contains("listen"));
    let all = printed(syncgate().arg("man"));
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(all.contains(&text), "{file:?}");
    }
}
