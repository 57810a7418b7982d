//! Every command that works with a data directory finds the one that `serve` would work with, and an empty name is none.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::json;

use crate::testkit::{Gateway, Place, StubTarget, keyed, syncgate};

/// A stopped gateway with one record.
async fn lived() -> Place {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.drained("DataSyncStream").await;
    gateway.stop().await
}

/// One command of each kind, in an empty directory of its own, with what says where the data is.
fn run(arguments: &[&str], say: impl Fn(&mut Command)) -> (Output, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = syncgate();
    command.args(arguments).current_dir(dir.path());
    say(&mut command);
    let output = command.output().unwrap();
    let entries = fs::read_dir(dir.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    (output, names)
}

#[tokio::test]
async fn the_directory_of_the_configuration_is_found_as_serve_finds_it() {
    let place = lived().await;
    let data = place.data();
    let config = |dir: &Path| {
        let file = place.path().join("other.toml");
        let text = format!("[data]\ndir = {:?}\n", dir.display().to_string());
        fs::write(&file, text).unwrap();
        file
    };
    let here = config(&data);
    let commands: [(&[&str], &[&str]); 4] = [
        (&["doctor"], &[]),
        (&["verify", "--data"], &[]),
        (&["backup", "create", "copy"], &["copy"]),
        (&["doctor", "--restored"], &[]),
    ];
    let check = |what: &str, say: &dyn Fn(&mut Command)| {
        for (arguments, left) in commands {
            let (output, names) = run(arguments, say);
            assert!(output.status.success(), "{what}, {arguments:?}: {output:?}");
            assert_eq!(names, left, "{what}, {arguments:?}");
        }
    };
    check("--config", &|command| {
        command.arg("--config").arg(&here);
    });
    check("SYNCGATE_CONFIG", &|command| {
        command.env("SYNCGATE_CONFIG", &here);
    });
    check("SYNCGATE_DATA__DIR", &|command| {
        command.env("SYNCGATE_DATA__DIR", &data);
    });
    // The variable wins over the file, and the arguments over their variables.
    let nowhere = place.path().join("nowhere");
    let there = place.path().join("there.toml");
    let text = format!("[data]\ndir = {:?}\n", nowhere.display().to_string());
    fs::write(&there, text).unwrap();
    check("both", &|command| {
        command
            .env("SYNCGATE_CONFIG", &there)
            .env("SYNCGATE_DATA__DIR", &data);
    });
    check("--config and SYNCGATE_CONFIG", &|command| {
        command
            .env("SYNCGATE_CONFIG", &there)
            .arg("--config")
            .arg(&here);
    });
    for arguments in [&["doctor"][..], &["verify"], &["backup", "create", "copy"]] {
        let (output, _) = run(arguments, |command| {
            command
                .env("SYNCGATE_CONFIG", &there)
                .env("SYNCGATE_DATA__DIR", &nowhere)
                .arg("--data")
                .arg(&data);
        });
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    assert!(!nowhere.exists());
    // A copy goes where the configuration says, too, and `serve` starts with it.
    let restored = place.path().join("restored");
    let file = config(&restored);
    let (copied, _) = run(&["backup", "create"], |command| {
        command.arg(place.path().join("copy"));
        command.arg("--data").arg(&data);
    });
    assert!(copied.status.success(), "{copied:?}");
    let (output, _) = run(&["backup", "restore"], |command| {
        command.arg(place.path().join("copy"));
        command.env("SYNCGATE_CONFIG", &file);
    });
    assert!(output.status.success(), "{output:?}");
    assert!(restored.join("journal").is_dir());
    let file = file.to_str().unwrap().to_owned();
    let (checked, _) = run(&["check"], |command| {
        command.env("SYNCGATE_CONFIG", &file);
    });
    assert!(checked.status.success(), "{checked:?}");
    // It is the file of a start: what is wrong in it stops that.
    fs::write(&file, "[sever]\n").unwrap();
    for arguments in [
        &["check"][..],
        &["serve"],
        &["doctor"],
        &["verify", "--data"],
        &["backup", "create", "copy"],
    ] {
        let (output, names) = run(arguments, |command| {
            command.env("SYNCGATE_CONFIG", &file);
        });
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("did you mean \"server\"?"), "{said}");
        assert_eq!(names, [""; 0]);
    }
}

#[test]
fn an_empty_variable_is_refused_and_makes_nothing() {
    let commands: [&[&str]; 9] = [
        &["check"],
        &["serve"],
        &["doctor"],
        &["doctor", "--rebuild-index"],
        &["doctor", "--restored"],
        &["doctor", "--forget-secrets"],
        &["verify", "--data"],
        &["backup", "create", "copy"],
        &["backup", "restore", "copy"],
    ];
    for name in [
        "SYNCGATE_DATA__DIR",
        "SYNCGATE_CONFIG",
        "SYNCGATE_SECRETS__MASTER_KEY_FILE",
    ] {
        for arguments in commands {
            for value in ["", " "] {
                let (output, names) = run(arguments, |command| {
                    command.env(name, value);
                });
                let said = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
                assert!(said.contains(name) && said.contains("is empty"), "{said}");
                assert_eq!(names, [""; 0], "{arguments:?}");
            }
        }
    }
    for arguments in [
        &["serve", "--data", ""][..],
        &["doctor", "--data", ""],
        &["backup", "create", ""],
        &["backup", "restore", "", "--data", "x"],
        &["check", "--config", ""],
    ] {
        let (output, names) = run(arguments, |_| {});
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(names, [""; 0], "{arguments:?}");
    }
    for name in ["SYNCGATE_URL", "SYNCGATE_USER", "SYNCGATE_PASSWORD"] {
        let (output, _) = run(&["healthcheck"], |command| {
            command.env(name, "");
        });
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(name) && said.contains("is empty"), "{said}");
    }
}
