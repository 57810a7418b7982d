//! The reference file against the structs, precedence, and every kind of error.

mod fit;

use std::{fmt::Write as _, path::Path};

use super::{
    schema::{Shape, shape},
    *,
};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn load_file(path: PathBuf) -> Result<Loaded, ConfigErrors> {
    load(Sources {
        file: Some(path),
        ..Sources::default()
    })
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    std::fs::write(&file, text).unwrap();
    load(Sources {
        file: Some(file),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        overrides: Overrides::default(),
    })
}

/// `expected` are beginnings of the lines shown, without the directory.
#[track_caller]
fn check_errors(text: &str, environment: &[(&str, &str)], expected: &[&str]) {
    let errors = load_text(text, environment).unwrap_err();
    let mut shown = String::new();
    for error in errors.to_string().lines() {
        let short = error.find("t.toml").map_or(error, |at| &error[at..]);
        writeln!(shown, "{short}").unwrap();
    }
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{shown}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(expected),
            "{line}\nbegins not with\n{expected}"
        );
    }
}

#[test]
fn the_reference_file_is_the_defaults() {
    let text = std::fs::read_to_string(repository("config/syncgate.toml")).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default());
    let loaded = load_file(repository("config/syncgate.toml")).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn the_reference_file_names_every_key_and_no_other() {
    let text = std::fs::read_to_string(repository("config/syncgate.toml")).unwrap();
    let mut named: Vec<(String, String)> = Vec::new();
    let mut section = String::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && !key.contains(' ')
        {
            named.push((section.clone(), key.to_owned()));
        }
    }
    let Some(Shape::Table(sections)) = shape(&[]) else {
        panic!("the root is a table")
    };
    for section in sections {
        match shape(&[section]).unwrap() {
            Shape::Table(keys) | Shape::Tables(keys) => {
                let in_file: Vec<_> = named
                    .iter()
                    .filter(|(of, _)| of == section)
                    .map(|(_, key)| key.as_str())
                    .collect();
                assert_eq!(in_file, keys, "[{section}]");
            }
            Shape::Map => assert!(text.contains(&format!("[{section}]"))),
            Shape::Leaf => panic!("{section} is no section"),
        }
    }
    // Uncommented, the examples are legal too.
    let examples: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.split(' ').nth(1) == Some("=") => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let parsed = toml::from_str::<Config>(&examples).unwrap();
    assert_eq!((parsed.streams.len(), parsed.targets.len()), (1, 1));
    assert!(parsed.oci_sample.is_some());
}

#[test]
fn the_example_loads_without_a_warning() {
    let loaded = load_file(repository("config/example.toml")).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(loaded.config.roles.source.as_str(), "Orders");
    assert_eq!(loaded.config.outcomes["5xx"], "OrdersLater");
}

#[test]
fn arguments_win_over_environment_over_file_over_defaults() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\ngrace_ms = 1\nconnections_max = 1\n";
    let environment = [
        ("SYNCGATE_SERVER__LISTEN", "127.0.0.1:2"),
        ("SYNCGATE_SERVER__GRACE_MS", "2"),
        ("SYNCGATE_DATA__DIR", "from-env"),
        ("HOME", "/root"),
    ];
    let loaded = load_text(file, &environment).unwrap().config;
    assert_eq!(loaded.server.listen.port(), 2);
    assert_eq!(
        (loaded.server.grace_ms, loaded.server.connections_max),
        (2, 1)
    );
    assert_eq!(loaded.server.request_timeout_ms, 30_000);
    let loaded = load(Sources {
        file: None,
        environment: environment.map(|(n, v)| (n.into(), v.into())).into(),
        overrides: Overrides {
            data: Some("from-flag".into()),
            listen: Some(([127, 0, 0, 1], 3).into()),
        },
    });
    let loaded = loaded.unwrap().config;
    assert_eq!(loaded.server.listen.port(), 3);
    assert_eq!(loaded.data.dir, Path::new("from-flag"));
}

#[test]
fn variables_hold_every_kind_of_value() {
    let loaded = load_text(
        "[secrets]\nmaster_key_env = \"SYNCGATE_MASTER_KEY\"",
        &[
            ("SYNCGATE_SERVER__HOSTS", "a.example, b.example"),
            ("SYNCGATE_SYNC__OPERATIONS", "[\"PUT\"]"),
            ("SYNCGATE_SYNC__LENIENT", "true"),
            ("SYNCGATE_DATA__DIR", "7"),
            ("SYNCGATE_OUTCOMES__404", "default"),
            ("SYNCGATE_OUTCOMES__UNEXPECTEDERROR", "internal"),
            (
                "SYNCGATE_OCI_SAMPLE__SERVICEUNAVAILABLE_ERROR_STREAM_OCID",
                "ocid1.u",
            ),
            // Of other readers.
            ("SYNCGATE_MASTER_KEY", "k"),
            ("SYNCGATE_URL", "http://127.0.0.1:9002"),
            ("SYNCGATE_USER", "bob"),
            ("SYNCGATE_PASSWORD", "p"),
            ("SYNCGATE_SERVICE_HOST", "10.0.0.1"),
            ("SYNCGATE_PORT_9002_TCP_ADDR", "10.0.0.1"),
        ],
    );
    let config = loaded.unwrap().config;
    assert_eq!(config.server.hosts, ["a.example", "b.example"]);
    assert_eq!(config.sync.operations, ["PUT"]);
    assert!(config.sync.lenient);
    assert_eq!(config.data.dir, Path::new("7"));
    assert_eq!(config.outcomes["404"], "default");
    assert_eq!(config.outcomes["unexpectedError"], "internal");
    assert_eq!(config.streams[0].ocid.as_deref(), Some("ocid1.u"));
}

/// An empty directory would be the working directory, an empty file one that cannot be named.
#[test]
fn an_empty_value_is_refused_wherever_it_was_said() {
    check_errors(
        "[data]\ndir = \" \"\n[secrets]\nmaster_key_file = \"\"\n[logging]\nlevel = \"\"\n",
        &[],
        &[
            "t.toml, line 2: data.dir: is empty; name a directory",
            "t.toml, line 4: secrets.master_key_file: is empty; name a file",
            "t.toml, line 6: logging.level: is empty; give error, warn, info",
        ],
    );
    check_errors(
        "",
        &[
            ("SYNCGATE_CONFIG", ""),
            ("SYNCGATE_DATA__DIR", ""),
            ("SYNCGATE_SECRETS__MASTER_KEY_FILE", " "),
            ("SYNCGATE_SERVER__HOSTS", ""),
            ("SYNCGATE_PUSH__NODE", ""),
            ("SYNCGATE_OUTCOMES__404", ""),
            ("SYNCGATE_LOGGING__LEVEL", "inf\u{fffd}"),
            // Of commands.
            ("SYNCGATE_URL", ""),
        ],
        &[
            "SYNCGATE_CONFIG: is empty; give a value, or unset the variable",
            "SYNCGATE_DATA__DIR: data.dir: is empty; give a value, or unset the variable",
            "SYNCGATE_LOGGING__LEVEL: logging.level: is not UTF-8",
            "SYNCGATE_OUTCOMES__404: outcomes.404: is empty",
            "SYNCGATE_PUSH__NODE: push.node: is empty",
            "SYNCGATE_SECRETS__MASTER_KEY_FILE: secrets.master_key_file: is empty",
            "SYNCGATE_SERVER__HOSTS: server.hosts: is empty",
        ],
    );
    check_errors(
        "",
        &[("SYNCGATE_DATA__DIR", "\"\"")],
        &["SYNCGATE_DATA__DIR: data.dir: is empty; name a directory"],
    );
    let said = [
        ("SYNCGATE_SERVER__HOSTS", "[]"),
        ("SYNCGATE_PUSH__NODE", "\"\""),
    ];
    let loaded = load_text("[server]\nhosts = [\"a\"]\n[push]\nnode = \"n\"", &said).unwrap();
    assert_eq!(loaded.config.server.hosts, [""; 0]);
    assert_eq!(loaded.config.push.node, "");
}

#[test]
fn a_filter_of_log_lines_has_levels() {
    for level in [
        "info",
        "WARN",
        "off",
        "info,syncgate::dispatch=debug,",
        "info,hyper=off",
        "info,[request]=trace",
    ] {
        let text = format!("[logging]\nlevel = \"{level}\"");
        assert_eq!(load_text(&text, &[]).unwrap().config.logging.level, level);
    }
}

#[test]
fn a_repeated_key_hides_no_other_error() {
    check_errors(
        "[server]\ngrace_ms = \"soon\"\n[log]\nx = 1\n[server]\nlistn = \"a\"\n[log]\nstreams_max = 1\nstreams_max = 0\n\
         [[targets]]\nname = \"a\"\nname = 3\n[dispatch.x]\n[dispatch]\n[dispatch]\n",
        &[],
        &[
            "t.toml, line 2: server.grace_ms: \"soon\" is no duration",
            "t.toml, line 4: log.x: unknown key",
            "t.toml, line 5: server: is repeated: a table or a key may stand in the file once",
            "t.toml, line 6: server.listn: unknown key; did you mean \"listen\"?",
            "t.toml, line 7: log: is repeated",
            "t.toml, line 9: streams_max: is repeated",
            "t.toml, line 10: targets[0].origin: is missing",
            "t.toml, line 12: name: is repeated",
            "t.toml, line 13: dispatch.x: unknown key",
            "t.toml, line 15: dispatch: is repeated",
        ],
    );
    // A file that is broken otherwise says only that.
    let broken = load_text("[server]\ngrace_ms = \n[log]\nx = 1\n[log]\n", &[]);
    let said = broken.unwrap_err().to_string();
    assert!(said.contains("log: is repeated"), "{said}");
    assert!(!said.contains("log.x"), "{said}");
}

#[test]
fn every_error_is_reported_at_once_with_line_and_nearest_name() {
    check_errors(
        "[sever]\nlisten = 1\n[server]\nlistn = \"127.0.0.1:1\"\ngrace_ms = \"soon\"\nlisten = \"localhost\"\n\
         [dispatch]\nin_flight_max = 0\nattempts_max = -1\n[sync]\nanswer = \"jsn\"\noperations = [\"POTS\"]\n\
         [roles]\nsource = \"a b\"\n[outcomes]\n404 = \"unrecoverabel\"\n\n4x = \"default\"\n600 = \"default\"\n503 = 7\n",
        &[
            ("SYNCGATE_LISTEN", "127.0.0.1:1"),
            ("SYNCGATE_FOO", "1"),
            ("SYNCGATE_ADMIN_PASWORD", "correct horse"),
            ("SYNCGATE_ADMIN_USER", "ada"),
            ("SYNCGATE_SERVER__LISTE", "127.0.0.1:1"),
            ("SYNCGATE_RETRY__RETRIES_MAX", "many"),
        ],
        &[
            "t.toml, line 1: sever: unknown section; did you mean \"server\"?",
            "t.toml, line 4: server.listn: unknown key; did you mean \"listen\"?",
            "t.toml, line 5: server.grace_ms: \"soon\" is no duration: give milliseconds, such as 30000, or \"30s\" or \"500ms\"; the default is 20000",
            "t.toml, line 6: server.listen: invalid socket address syntax; the default is \"127.0.0.1:9002\"",
            "t.toml, line 8: dispatch.in_flight_max: is 0, but must be 1 to 10000",
            "t.toml, line 9: dispatch.attempts_max: invalid value: integer `-1`, expected a whole number, 1 to 1000; the default is",
            "t.toml, line 11: sync.answer: unknown variant `jsn`, expected `json` or `text`",
            "t.toml, line 12: sync.operations: \"POTS\" is not one of POST, PUT, PATCH, DELETE, GET; did you mean \"POST\"?",
            "t.toml, line 14: roles.source: a stream name has 2 to 64 characters",
            "t.toml, line 16: outcomes.404: \"unrecoverabel\" is neither delivered nor a role (unavailable, internal, unrecoverable, default) nor a stream of this configuration; did you mean \"unrecoverable\"?",
            "t.toml, line 18: outcomes.4x: is not a status, class or cause: give 100 to 599, 1xx, 2xx, 3xx, 4xx, 5xx, or one of dns",
            "t.toml, line 19: outcomes.600: is not a status",
            "t.toml, line 20: outcomes.503: invalid type: integer `7`, expected a string",
            "SYNCGATE_ADMIN_PASWORD: unknown variable; settings are SYNCGATE_SECTION__KEY; did you mean \"SYNCGATE_ADMIN_PASSWORD\"?",
            "SYNCGATE_ADMIN_USER: is set, SYNCGATE_ADMIN_PASSWORD is not",
            "SYNCGATE_FOO: unknown variable; settings are SYNCGATE_SECTION__KEY",
            "SYNCGATE_LISTEN: unknown variable; settings are SYNCGATE_SECTION__KEY; did you mean \"SYNCGATE_SERVER__LISTEN\"?",
            "SYNCGATE_RETRY__RETRIES_MAX: retry.retries_max: invalid type: string \"many\", expected a whole number",
            "SYNCGATE_SERVER__LISTE: unknown variable; settings are SYNCGATE_SECTION__KEY; did you mean \"SYNCGATE_SERVER__LISTEN\"?",
        ],
    );
}

const SAMPLE: &str = r#"
[oci_sample]
data_stream_ocid = "ocid1.data"
unrecoverable_error_stream_ocid = "ocid1.unrecoverable"
serviceUnavailable_error_stream_ocid = "ocid1.unavailable"
internalserver_error_stream_ocid = "ocid1.internal"
default_error_stream_ocid = "ocid1.unavailable"
vault_ocid = "ocid1.vault"
vault_key_ocid = "ocid1.key"
vault_compartment_ocid = "ocid1.compartment"
stream_compartment_ocid = "ocid1.compartment"
"#;

#[test]
fn the_nine_keys_of_the_sample_become_ids_and_merged_roles() {
    let loaded = load_text(SAMPLE, &[]).unwrap();
    let ids: Vec<_> = loaded
        .config
        .streams
        .iter()
        .map(|stream| (stream.name.as_str(), stream.ocid.as_deref().unwrap()))
        .collect();
    assert_eq!(
        ids,
        [
            ("DataSyncStream", "ocid1.data"),
            ("ServerUnavailableStream", "ocid1.unavailable"),
            ("InternalserverErrorStream", "ocid1.internal"),
            ("UnrecoverableErrorStream", "ocid1.unrecoverable"),
        ]
    );
    let roles = &loaded.config.roles;
    assert_eq!(roles.default, roles.unavailable);
    assert_eq!(loaded.warnings.len(), 4, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].starts_with("oci_sample.vault_ocid is ignored"));
    // Without `compat` nothing else changes.
    assert_eq!(loaded.config.sync, Sync::default());
    assert!(loaded.config.outcomes.is_empty());
}

#[test]
fn compat_is_the_samples_behaviour_and_explicit_settings_win() {
    let compat = SAMPLE.replace("[oci_sample]", "[oci_sample]\ncompat = true");
    let config = load_text(&compat, &[]).unwrap().config;
    assert_eq!(config.sync.answer, Answer::Text);
    assert!(config.sync.lenient);
    let own = format!("{compat}[sync]\nanswer = \"json\"\n");
    let config = load_text(&own, &[]).unwrap().config;
    assert_eq!(config.sync.answer, Answer::Json);
    assert!(config.sync.lenient);
}

#[test]
fn the_sample_cannot_send_failures_back_to_the_source() {
    check_errors(
        "[oci_sample]\ndata_stream_ocid = \"ocid1.a\"\ninternalserver_error_stream_ocid = \"ocid1.a\"",
        &[],
        &["t.toml, line 3: oci_sample.internalserver_error_stream_ocid: is the data stream's"],
    );
    check_errors(
        "[oci_sample]\ndata_stream_ocid = \"ocid1.a\"\n[[streams]]\nname = \"DataSyncStream\"\nocid = \"ocid1.b\"",
        &[],
        &["t.toml, line 2: oci_sample.data_stream_ocid: differs from streams[0].ocid"],
    );
}

#[test]
fn the_greatest_record_fits_into_the_log_with_its_cause() {
    let stored_max = check::ranges::RECORD_BYTES_MAX + check::RECORD_MARGIN_BYTES;
    assert!(stored_max <= crate::storage::local::COMMIT_BYTES_MAX as u64);
    let text = "[log]\nsegment_bytes = 1073741824\nqueue_bytes_max = 1073741824\n\
                [dispatch]\nqueue_bytes_max = 1073741824\n\
                [sync]\nrecord_bytes_max = 33554432\nbatch_bytes_max = 33554432";
    assert!(load_text(text, &[]).is_err());
}
