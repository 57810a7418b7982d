use std::path::PathBuf;

use super::*;
use crate::config::{
    Overrides, Sources,
    schema::{Shape, shape},
};

/// A file that is rewritten, and the settings that run.
struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
    running: Loaded,
}

impl File {
    fn new(text: &str, environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        let sources = Sources {
            file: Some(path.clone()),
            environment: environment.iter().map(owned).collect(),
            overrides: Overrides {
                data: Some("of-the-argument".into()),
                listen: None,
            },
        };
        let running = load(sources).unwrap();
        Self {
            _dir: dir,
            path,
            running,
        }
    }

    fn reload(&mut self, text: &str) -> Result<(Vec<String>, Vec<String>), String> {
        std::fs::write(&self.path, text).unwrap();
        let reloaded = self.running.reload().map_err(|wrong| wrong.to_string())?;
        self.running = reloaded.loaded;
        let list = |keys: BTreeSet<String>| keys.into_iter().collect();
        Ok((list(reloaded.applied), list(reloaded.needs_restart)))
    }

    #[track_caller]
    fn check(&mut self, text: &str, applied: &[&str], needs_restart: &[&str]) {
        let (did, did_not) = self.reload(text).unwrap();
        assert_eq!(did, applied, "{text}");
        assert_eq!(did_not, needs_restart, "{text}");
    }
}

/// Every key at a value that is not its default.
const OTHER: &str = r#"
[server]
listen = "127.0.0.1:9003"
hosts = ["gate.example"]
connections_max = 7
request_timeout_ms = 777
answers_bytes_max = 7777777
grace_ms = 7
cors_origins = ["https://console.example"]
public_url = "https://sync.example"
[data]
dir = "other"
[log]
segment_bytes = 134217728
cache_bytes = 65536
queue_bytes_max = 67108864
queue_len_max = 7
dedup_len_max = 7
dedup_age_hours = 7
disk_free_bytes_min = 7
streams_max = 7
[sync]
answer = "text"
token_header = "x-target-token"
lenient = true
operations = ["PUT"]
record_bytes_max = 524288
key_bytes_max = 7
headers_bytes_max = 7
batch_bytes_max = 2097152
batch_len_max = 7
[dispatch]
in_flight_max = 7
rate_per_second = 7
attempts_max = 7
backoff_ms = 7
backoff_ms_max = 7777
retry_after_ms_max = 7
deferred_ms_max = 7
connect_timeout_ms = 7
dns_ms = 7
response_timeout_ms = 7
attempt_timeout_ms = 70000
queue_len_max = 7
queue_bytes_max = 4194304
queues_bytes_max = 16777216
targets_max = 7
idle_connections_max = 7
idle_timeout_ms = 7
private_addresses = true
loopback_addresses = true
ca_file = "src/dispatch/tests/tls/authority.pem"
[retry]
records_max = 7
time_budget_ms = 7
in_flight_max = 7
retries_max = 7
failing_calls_max = 7
[push]
trails = { a2 = "OtherStream" }
namespace = "OTHER"
node = "n1"
event_type_prefix = "com.example"
masked_headers = ["x-other"]
idle_array_ms = 7
clients_max = 7
cursor_unused_days = 7
create_status = 200
[retention]
source_hours = 7
source_bytes = 7
error_hours = 7
error_bytes = 7
interval_seconds = 7
[secrets]
master_key_file = "k"
master_key_env = "K"
master_key_command = ["k"]
[logging]
level = "warn"
format = "json"
[metrics]
public = true
[roles]
source = "OtherSource"
unavailable = "OtherUnavailable"
internal = "OtherInternal"
unrecoverable = "OtherUnrecoverable"
default = "OtherDefault"
[outcomes]
401 = "internal"
[[streams]]
name = "OtherStream"
partitions = 7
ocid = "ocid1.o"
retention_hours = 7
retention_bytes = 7
[[targets]]
name = "other"
origin = "http://other"
in_flight_max = 7
path_prefix = "/other"
rate_per_second = 7
attempts_max = 7
connect_timeout_ms = 7
response_timeout_ms = 7
attempt_timeout_ms = 7
body_always = true
secret_header = "X-Key"
[oci_sample]
compat = true
data_stream_ocid = "ocid1.a"
unrecoverable_error_stream_ocid = "ocid1.b"
serviceUnavailable_error_stream_ocid = "ocid1.c"
internalserver_error_stream_ocid = "ocid1.d"
default_error_stream_ocid = "ocid1.e"
vault_ocid = "ocid1.f"
vault_key_ocid = "ocid1.g"
vault_compartment_ocid = "ocid1.h"
stream_compartment_ocid = "ocid1.i"
"#;

/// Section, key, and a file in which that key alone has its other value.
fn each_key() -> Vec<(String, String)> {
    let other: Table = OTHER.parse().unwrap();
    let Some(Shape::Table(sections)) = shape(&[]) else {
        panic!("the root is a table")
    };
    let mut all = Vec::new();
    for section in sections {
        let (keys, list) = match shape(&[section]).unwrap() {
            Shape::Table(keys) => (keys, false),
            Shape::Tables(keys) => (keys, true),
            Shape::Map => (&["401"][..], false),
            Shape::Leaf => panic!("{section} is no section"),
        };
        for key in keys {
            let values = match list {
                true => &other[*section][0],
                false => &other[*section],
            };
            let value = values.get(key);
            let value = value.unwrap_or_else(|| panic!("{section}.{key} has no other value"));
            let mut text = match list {
                true => format!("[[{section}]]\n"),
                false => format!("[{section}]\n"),
            };
            // The required keys of an element, except the tested key.
            for (must, filler) in [("name", "Entry"), ("origin", "http://entry")] {
                if list && *key != must && keys.contains(&must) {
                    text += &format!("{must} = \"{filler}\"\n");
                }
            }
            text += &format!("{key} = {value}\n");
            let path = match list {
                true => format!("{section}[0].{key}"),
                false => format!("{section}.{key}"),
            };
            all.push((path, text));
        }
    }
    all
}

#[test]
fn every_key_is_either_taken_or_named_as_one_that_needs_a_restart() {
    let entries =
        "[[streams]]\nname = \"Entry\"\n[[targets]]\nname = \"Entry\"\norigin = \"http://entry\"\n";
    let mut restarts = 0;
    for (key, text) in each_key() {
        // An element that exists already differs by one key; only its name identifies it.
        let is_name = key.ends_with("].name");
        let of_list = key.contains('[') && !is_name;
        let before = if of_list { entries } else { "" };
        let rest = match key.split_once('[') {
            Some(("streams", _)) if of_list => {
                "[[targets]]\nname = \"Entry\"\norigin = \"http://entry\"\n"
            }
            Some(("targets", _)) if of_list => "[[streams]]\nname = \"Entry\"\n",
            _ => "",
        };
        let text = format!("{text}{rest}");
        let mut file = File::new(before, &[]);
        let config = table(&file.running.config);
        let (applied, waits) = file.reload(&text).unwrap();
        let shown = match is_name {
            true => key.split('.').next().unwrap().to_owned(),
            false => key.clone(),
        };
        if key == "data.dir" {
            assert_eq!((applied, waits), (vec![], vec![]), "the argument wins");
            continue;
        }
        let waits_for_it = needs_restart(&key);
        if waits_for_it {
            restarts += 1;
            assert_eq!((applied, waits), (vec![], vec![shown]));
            assert_eq!(
                table(&file.running.config),
                config,
                "{key} keeps the start's value"
            );
        } else {
            assert_eq!((applied, waits), (vec![shown], vec![]));
            let fresh = File::new(&text, &[]).running.config;
            assert_eq!(file.running.config, fresh, "{key}");
        }
        // After a second reload the applied keys are the same, and the others still wait.
        let (applied, waits) = file.reload(&text).unwrap();
        assert_eq!(
            (applied.len(), waits.len()),
            (0, usize::from(waits_for_it)),
            "{key}"
        );
        let (_, waits) = file.reload(before).unwrap();
        assert!(waits.is_empty(), "{key} is as it was");
        assert_eq!(table(&file.running.config), config, "{key}");
    }
    assert!(restarts > 10, "{restarts}");
}

#[test]
fn targets_wait_as_a_whole_while_their_prefixes_differ() {
    let entry = |name: &str, more: &str| {
        format!("[[targets]]\nname = \"{name}\"\norigin = \"http://a\"\n{more}\n")
    };
    let whole = |in_flight: u8| entry("whole", &format!("in_flight_max = {in_flight}"));
    let part = entry("part", "path_prefix = \"/p\"");
    let mut file = File::new(&whole(1), &[]);
    let kept = |file: &File| {
        let targets = &file.running.config.targets;
        (targets.len(), targets[0].in_flight_max)
    };
    // Between two of a list, and with a key of another entry.
    let both = part.clone() + &whole(2);
    let waits = ["targets[0]", "targets[1].in_flight_max"];
    file.check(&both, &[], &waits);
    assert_eq!(kept(&file), (1, Some(1)));
    file.check(&both, &[], &waits);
    file.check(&whole(3), &["targets[0].in_flight_max"], &[]);
    assert_eq!(kept(&file), (1, Some(3)));

    let mut file = File::new(&both, &[]);
    let more = both.clone() + "[dispatch]\nattempts_max = 2\n";
    let more = more.replace("in_flight_max = 2", "in_flight_max = 4");
    let applied = ["dispatch.attempts_max", "targets[1].in_flight_max"];
    file.check(&more, &applied, &[]);
    let gone = whole(4) + "[dispatch]\nattempts_max = 3\n";
    file.check(&gone, &["dispatch.attempts_max"], &["targets[0]"]);
    assert_eq!(kept(&file).0, 2);
    let other = more.replace("http://a\"\npath", "http://b\"\npath");
    let waits = ["targets[0].origin"];
    file.check(&other, &["dispatch.attempts_max"], &waits);
}

#[test]
fn the_head_of_the_reference_file_lists_keys_that_need_a_restart() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/syncgate.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let head: String = text
        .lines()
        .take_while(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#'))
        .collect();
    let said = head.split_once("A restart is needed for ").unwrap().1;
    let said = said.split_once(". ").map_or(said, |(said, _)| said);
    let said: Vec<_> = said
        .trim_end_matches('.')
        .split(", ")
        .map(str::trim)
        .collect();
    assert_eq!(said, NEEDS_RESTART);
}

#[test]
fn environment_and_arguments_of_the_start_still_win() {
    let environment = [("SYNCGATE_SERVER__GRACE_MS", "5")];
    let mut file = File::new("[server]\ngrace_ms = 6", &environment);
    file.check("[server]\ngrace_ms = 7\n[data]\ndir = \"x\"", &[], &[]);
    assert_eq!(file.running.config.server.grace_ms, 5);
    let nothing = load(Sources {
        environment: vec![("SYNCGATE_SERVER__GRACE_MS".into(), "5".into())],
        ..Sources::default()
    });
    let reloaded = nothing.unwrap().reload().unwrap();
    assert!(reloaded.applied.is_empty() && reloaded.needs_restart.is_empty());
    assert_eq!(reloaded.loaded.config.server.grace_ms, 5);
}

#[test]
fn entries_are_compared_by_name_wherever_they_stand() {
    let entry = |name: &str, slots: u8| {
        format!(
            "[[targets]]\nname = \"{name}\"\norigin = \"http://{name}\"\nin_flight_max = {slots}\n"
        )
    };
    let mut file = File::new(&(entry("a", 1) + &entry("b", 1)), &[]);
    file.check(&(entry("b", 1) + &entry("a", 1)), &[], &[]);
    let text = entry("c", 1) + &entry("b", 2) + &entry("a", 1);
    let keys = ["targets[0]", "targets[1].in_flight_max"];
    file.check(&text, &keys, &[]);
    file.check(&entry("a", 1), &["targets[0]", "targets[1]"], &[]);
}

#[test]
fn applied_keys_must_fit_with_those_that_wait_for_a_restart() {
    let mut file = File::new("", &[]);
    let larger = "[log]\nsegment_bytes = 134217728\n[sync]\nbatch_bytes_max = 31457280\n";
    let text = format!("{larger}[logging]\nlevel = \"warn\"");
    assert_eq!(file.reload(&text).map(drop), Ok(()));
    file.check("", &["logging.level", "sync.batch_bytes_max"], &[]);
    let mut small = File::new("[log]\nsegment_bytes = 16777216", &[]);
    let wrong = small.reload(&text).unwrap_err();
    let said = "t.toml, line 4: sync.batch_bytes_max: sync.batch_bytes_max is 31457280, but may not exceed half of \
                    log.segment_bytes (8388608): a batch is one write; until a restart log.segment_bytes is as it was";
    assert!(wrong.contains(said), "{wrong}");
    assert_eq!(wrong.lines().count(), 1, "{wrong}");
    small.check("[log]\nsegment_bytes = 16777216", &[], &[]);
}

#[test]
fn a_table_may_name_only_streams_that_the_roles_of_the_start_have() {
    let mut file = File::new("", &[]);
    let text = "[roles]\ndefault = \"Other\"\n[outcomes]\n404 = \"Other\"";
    let wrong = file.reload(text).unwrap_err();
    assert!(
        wrong.contains("line 4: outcomes.404: \"Other\" is neither"),
        "{wrong}"
    );
    assert!(
        wrong.contains("until a restart roles.default is as it was"),
        "{wrong}"
    );
}

#[test]
fn a_bad_file_changes_nothing_and_names_everything() {
    let mut file = File::new("[logging]\nlevel = \"warn\"", &[]);
    let wrong = file
        .reload("[logging]\nlevel = \"error\"\n[server]\ngrace_ms = \"x\"\nlistn = 1")
        .unwrap_err();
    assert!(wrong.contains("line 4: server.grace_ms: "), "{wrong}");
    assert!(wrong.contains("line 5: server.listn: "), "{wrong}");
    file.check("[logging]\nlevel = \"error\"", &["logging.level"], &[]);
    std::fs::remove_file(&file.path).unwrap();
    let wrong = file.running.reload().unwrap_err();
    assert!(wrong.to_string().contains("cannot be read"), "{wrong}");
}

#[test]
fn variables_are_not_shown_by_debug() {
    let sources = Sources {
        environment: vec![("SYNCGATE_MASTER_KEY".into(), "very-secret".into())],
        ..Sources::default()
    };
    let shown = format!("{sources:?}");
    assert!(shown.contains("SYNCGATE_MASTER_KEY") && !shown.contains("very-secret"));
}
