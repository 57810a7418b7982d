//! The same settings again while the gateway runs: what is new, what of it is taken, and what waits for a restart.
//!
//! The sources are read and checked exactly as at the start. What needs a restart keeps the value of the start, and what
//! is taken has to fit with that.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::{Table, Value};

use super::{
    Config, ConfigErrors, Loaded,
    load::{assemble, load},
};

/// Keys that count from the start to the end of the process, as a socket, a file or what lies in one hangs on them; all
/// others are taken by a reload. `*` stands for any text.
pub const NEEDS_RESTART: [&str; 10] = [
    "server.listen",
    "server.public_url",
    "push.*",
    "data.*",
    "log.*",
    "secrets.*",
    "logging.format",
    "roles.*",
    "oci_sample.*_stream_ocid",
    // All of `[[targets]]` with it: see `prefixes`.
    "targets*.path_prefix",
];

/// What came of a second look.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The settings that count from now on.
    pub loaded: Loaded,
    /// Keys that are taken, as they stand in a file: `dispatch.in_flight_max`, `outcomes.401`, `targets[0].origin`;
    /// `targets[0]` for an entry that is new or gone.
    pub applied: BTreeSet<String>,
    /// Keys that differ from what runs.
    pub needs_restart: BTreeSet<String>,
}

impl Loaded {
    /// Reads the sources again and tells what differs from these settings.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn reload(&self) -> Result<Reloaded, ConfigErrors> {
        let read = load(self.sources.clone())?;
        let (before, after) = (table(&self.said), table(&read.said));
        let targets_wait = prefixes(&before) != prefixes(&after);
        let waits =
            |key: &String| needs_restart(key) || targets_wait && key.starts_with("targets[");
        let (needs_restart, applied): (BTreeSet<_>, BTreeSet<_>) =
            changed(&before, &after).into_iter().partition(waits);
        let loaded = match needs_restart.is_empty() {
            true => read,
            false => keep(read, &needs_restart, &before)?,
        };
        Ok(Reloaded {
            loaded,
            applied,
            needs_restart,
        })
    }
}

/// Returns the path prefixes of targets, with what they are prefixes of. While dispatch runs they are what they were at the
/// start, and an entry that is without one by then would not be what the file says. So if any of them differs, the list of
/// targets waits as a whole.
fn prefixes(config: &Table) -> BTreeSet<(&str, &str)> {
    let targets = config.get("targets").and_then(Value::as_array);
    let targets = targets.into_iter().flatten();
    targets
        .filter_map(|target| {
            let prefix = target.get("path_prefix")?.as_str()?;
            Some((target.get("origin")?.as_str()?, prefix))
        })
        .collect()
}

pub(super) fn needs_restart(key: &str) -> bool {
    let fits = |pattern: &&str| match pattern.split_once('*') {
        Some((start, end)) => key.starts_with(start) && key.ends_with(end),
        None => key == *pattern,
    };
    NEEDS_RESTART.iter().any(fits)
}

/// Puts back what needs a restart, and looks whether the rest fits with it.
fn keep(read: Loaded, keys: &BTreeSet<String>, before: &Table) -> Result<Loaded, ConfigErrors> {
    let mut said = table(&read.said);
    for key in keys {
        if key.starts_with("targets[") {
            match before.get("targets") {
                Some(targets) => drop(said.insert("targets".into(), targets.clone())),
                None => drop(said.remove("targets")),
            }
            continue;
        }
        // No other one is in a list.
        let (section, key) = key.split_once('.').unwrap_or((key, ""));
        let value = before.get(section).and_then(|section| section.get(key));
        if let Some(Value::Table(section)) = said.get_mut(section) {
            match value {
                Some(value) => section.insert(key.into(), value.clone()),
                None => section.remove(key),
            };
        }
    }
    let said = Config::deserialize(Value::Table(said))
        .map_err(|error| ConfigErrors(vec![read.error("", error.message())]))?;
    let (loaded, mut wrong) = assemble(read.sources, said, read.places);
    if wrong.is_empty() {
        return Ok(loaded);
    }
    let kept: Vec<_> = keys.iter().map(String::as_str).collect();
    let kept = kept.join(", ");
    for error in &mut wrong {
        error.message += &format!(
            "; until a restart {kept} is as it was at the start: restart, or reload what fits with that first"
        );
    }
    Err(ConfigErrors(wrong))
}

/// Returns every section with its keys, but for those without a value.
fn table(config: &Config) -> Table {
    let mut config = config.clone();
    // Absent, it says what it says when it is empty.
    config.oci_sample.get_or_insert_default();
    Table::try_from(config).expect("what was read from TOML can be written as TOML")
}

fn changed(before: &Table, after: &Table) -> BTreeSet<String> {
    let mut changed = BTreeSet::new();
    for (section, after) in after {
        match (before.get(section), after) {
            (Some(Value::Table(before)), Value::Table(after)) => {
                changed_keys(section, before, after, &mut changed);
            }
            (Some(Value::Array(before)), Value::Array(after)) => {
                changed_elements(section, before, after, &mut changed);
            }
            _ => unreachable!("a section is a table or a list in every configuration"),
        }
    }
    changed
}

fn changed_keys(of: &str, before: &Table, after: &Table, changed: &mut BTreeSet<String>) {
    let keys = before.keys().chain(after.keys());
    let differs = |key: &&String| before.get(*key) != after.get(*key);
    changed.extend(keys.filter(differs).map(|key| format!("{of}.{key}")));
}

/// Elements are what they are by their name, wherever they stand.
fn changed_elements(of: &str, before: &[Value], after: &[Value], changed: &mut BTreeSet<String>) {
    let find = |list: &[Value], element: &Value| {
        let same = |other: &&Value| other.get("name") == element.get("name");
        list.iter().find(same).and_then(Value::as_table).cloned()
    };
    for (at, element) in before.iter().enumerate() {
        if find(after, element).is_none() {
            changed.insert(format!("{of}[{at}]"));
        }
    }
    for (at, element) in after.iter().enumerate() {
        match (find(before, element), element.as_table()) {
            (Some(before), Some(after)) => {
                changed_keys(&format!("{of}[{at}]"), &before, after, changed);
            }
            _ => {
                changed.insert(format!("{of}[{at}]"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{
        Overrides, Sources,
        schema::{Shape, shape},
    };

    /// A file that is written again and again, with what runs.
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
                // What an entry must have, the tested key itself apart.
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
        let entries = "[[streams]]\nname = \"Entry\"\n[[targets]]\nname = \"Entry\"\norigin = \"http://entry\"\n";
        let mut restarts = 0;
        for (key, text) in each_key() {
            // A list whose entry is there before differs by one key; a name is what an entry is.
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
            // Once more: what was taken is there, what was not still waits.
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
    fn the_reference_file_says_at_its_head_what_needs_a_restart() {
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
    fn what_is_taken_has_to_fit_with_what_waits_for_a_restart() {
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
}
