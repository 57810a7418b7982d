//! The reference file against the structs, precedence, and every kind of error.

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
        "info,[request{id=1,path=2}]=trace",
    ] {
        let text = format!("[logging]\nlevel = \"{level}\"");
        assert_eq!(load_text(&text, &[]).unwrap().config.logging.level, level);
    }
}

#[test]
fn what_is_there_twice_hides_no_other_error() {
    check_errors(
        "[server]\ngrace_ms = \"soon\"\n[log]\nx = 1\n[server]\nlistn = \"a\"\n[log]\nstreams_max = 1\nstreams_max = 0\n\
         [[targets]]\nname = \"a\"\nname = 3\n[dispatch.x]\n[dispatch]\n[dispatch]\n",
        &[],
        &[
            "t.toml, line 2: server.grace_ms: \"soon\" is no duration",
            "t.toml, line 4: log.x: unknown key",
            "t.toml, line 5: server: is there twice: a table or a key may stand in the file once",
            "t.toml, line 6: server.listn: unknown key; did you mean \"listen\"?",
            "t.toml, line 7: log: is there twice",
            "t.toml, line 9: streams_max: is there twice",
            "t.toml, line 10: targets[0].origin: is missing",
            "t.toml, line 12: name: is there twice",
            "t.toml, line 13: dispatch.x: unknown key",
            "t.toml, line 15: dispatch: is there twice",
        ],
    );
    // A file that is broken otherwise says only that.
    let broken = load_text("[server]\ngrace_ms = \n[log]\nx = 1\n[log]\n", &[]);
    let said = broken.unwrap_err().to_string();
    assert!(said.contains("log: is there twice"), "{said}");
    assert!(!said.contains("log.x"), "{said}");
}

#[test]
fn every_error_is_told_at_once_with_line_and_nearest_name() {
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
            "t.toml, line 12: sync.operations: \"POTS\" is none of POST, PUT, PATCH, DELETE, GET; did you mean \"POST\"?",
            "t.toml, line 14: roles.source: a stream name has 2 to 64 characters",
            "t.toml, line 16: outcomes.404: \"unrecoverabel\" is neither delivered nor a role (unavailable, internal, unrecoverable, default) nor a stream of this configuration; did you mean \"unrecoverable\"?",
            "t.toml, line 18: outcomes.4x: is no status, class or cause: give 100 to 599, 1xx, 2xx, 3xx, 4xx, 5xx, or one of dns",
            "t.toml, line 19: outcomes.600: is no status",
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

#[test]
fn values_must_fit_together() {
    for (text, expected) in [
        (
            "[server]\nlisten = \"0.0.0.0:9002\"",
            "t.toml, line 2: server.listen: 0.0.0.0:9002 is not a loopback address: there is no TLS yet",
        ),
        (
            "[server]\nhosts = [\"http://a\"]",
            "t.toml, line 2: server.hosts: \"http://a\" is no host name",
        ),
        (
            "[server]\ncors_origins = [\"a.example\"]",
            "t.toml, line 2: server.cors_origins: \"a.example\" is no origin",
        ),
        (
            "[log]\nsegment_bytes = 1048576",
            "t.toml, line 2: log.segment_bytes: sync.batch_bytes_max is 8388608, but may not exceed half of",
        ),
        (
            "[log]\nsegment_bytes = 2",
            "t.toml, line 2: log.segment_bytes: is 2, but must be 1048576 to 1073741824",
        ),
        (
            "[sync]\nbatch_bytes_max = 1048575",
            "t.toml, line 2: sync.batch_bytes_max: sync.record_bytes_max is 1048576, but may not exceed sync.batch_bytes_max (1048575)",
        ),
        (
            "[sync]\nkey_bytes_max = 65536",
            "t.toml, line 2: sync.key_bytes_max: is 65536, but must be 1 to 65535",
        ),
        (
            "[sync]\nbatch_bytes_max = 32505857",
            "t.toml, line 2: sync.batch_bytes_max: is 32505857, but must be 1024 to 32505856",
        ),
        (
            "[sync]\ntoken_header = \"a b\"",
            "t.toml, line 2: sync.token_header: \"a b\" is no header name",
        ),
        (
            "[sync]\ntoken_header = \"Host\"",
            "t.toml, line 2: sync.token_header: \"Host\" has a meaning of its own",
        ),
        (
            "[sync]\ntoken_header = \"X-Request-Id\"",
            "t.toml, line 2: sync.token_header: \"X-Request-Id\" has a meaning of its own",
        ),
        (
            "[sync]\ntoken_header = \"Sec-WebSocket-Key\"",
            "t.toml, line 2: sync.token_header: \"Sec-WebSocket-Key\" has a meaning of its own",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"http://a\"\nsecret_header = \"Idempotency-Key\"",
            "t.toml, line 4: targets[0].secret_header: \"Idempotency-Key\" has a meaning of its own; take Authorization",
        ),
        (
            "[sync]\noperations = []",
            "t.toml, line 2: sync.operations: is empty",
        ),
        (
            "[dispatch]\nconnect_timeout_ms = 60001",
            "t.toml, line 2: dispatch.connect_timeout_ms: dispatch.connect_timeout_ms is 60001, but may not exceed dispatch.attempt_timeout_ms (60000)",
        ),
        (
            "[dispatch]\nqueue_bytes_max = 1048576",
            "t.toml, line 2: dispatch.queue_bytes_max: dispatch.queue_bytes_max is 1048576, but must hold the greatest record",
        ),
        (
            "[dispatch]\nca_file = \"/nowhere/x.pem\"",
            "t.toml, line 2: dispatch.ca_file: /nowhere/x.pem cannot be read: No such file",
        ),
        (
            "[logging]\nlevel = \"loud\"",
            "t.toml, line 2: logging.level: \"loud\" is no level; give error, warn, info, debug or trace, or a list",
        ),
        (
            "[logging]\nlevel = \"infos, syncgate::dispatch=debug\"",
            "t.toml, line 2: logging.level: \"infos\" is no level; did you mean \"info\"?",
        ),
        (
            "[server]\ngrace_ms = \"30\"",
            "t.toml, line 2: server.grace_ms: \"30\" has no unit: give milliseconds, such as 30000, or \"30s\" or \"500ms\"",
        ),
        (
            "[log]\ncache_bytes = \" 1_000.5 \"",
            "t.toml, line 2: log.cache_bytes: \" 1_000.5 \" has no unit: give bytes, such as 67108864, or \"64MiB\"",
        ),
        (
            "[[targets]]\norigin = \"http://a\"",
            "t.toml, line 1: targets[0].name: is missing; each [[targets]] needs it, such as name = \"orders\"",
        ),
        (
            "[[targets]]\nname = \"a\"",
            "t.toml, line 1: targets[0].origin: is missing; each [[targets]] needs it, such as origin = \"https://",
        ),
        (
            "[logging]\nlevel = \"info,=\"",
            "t.toml, line 2: logging.level: \"info,=\" is no filter",
        ),
        (
            "[roles]\ninternal = \"DataSyncStream\"",
            "t.toml, line 2: roles.internal: is DataSyncStream, the source stream",
        ),
        (
            "[roles]\ninternal = \"DefaultErrorStream\"",
            "t.toml, line 2: roles.internal: roles.default and roles.internal are both DefaultErrorStream",
        ),
        (
            "[outcomes]\n404 = \"DataSyncStream\"",
            "t.toml, line 2: outcomes.404: is the source stream",
        ),
        (
            "streams = 3",
            "t.toml, line 1: streams: must be a list of tables: [[streams]]",
        ),
        (
            "server = 3",
            "t.toml, line 1: server: must be a table: [server]",
        ),
        (
            "[[streams]]\npartitions = 1",
            "t.toml, line 1: streams[0].name: is missing",
        ),
        (
            "[[streams]]\nname = \"Ab\"\n[[streams]]\nname = \"Ab\"",
            "t.toml, line 4: streams[1].name: Ab is there already, as streams[0]",
        ),
        (
            "[[streams]]\nname = \"Ab\"\npartitions = 257",
            "t.toml, line 3: streams[0].partitions: is 257, but must be 1 to 256",
        ),
        (
            "[[streams]]\nname = \"Ab\"\npartition = 2",
            "t.toml, line 3: streams[0].partition: unknown key; did you mean \"partitions\"?",
        ),
        (
            "[[streams]]\nname = \"Ab\"\nocid = \"x.y\"\n[[streams]]\nname = \"Ac\"\nocid = \"x.y\"",
            "t.toml, line 6: streams[1].ocid: is that of streams[0] too",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"https://a/b\"",
            "t.toml, line 3: targets[0].origin: \"https://a/b\" is no origin (there is more than scheme, host and port)",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"https://a\"\n[[targets]]\nname = \"a\"\norigin = \"https://b\"",
            "t.toml, line 5: targets[1].name: a is there already",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"https://a\"\n[[targets]]\nname = \"b\"\norigin = \"https://A:443/\"",
            "t.toml, line 6: targets[1].origin: https://a:443 is there already",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"https://a\"\nattempts_max = \"x\"",
            "t.toml, line 4: targets[0].attempts_max: invalid type",
        ),
        ("x = [", "t.toml, line 1: "),
    ] {
        check_errors(text, &[], &[expected]);
    }
    let missing = load_file("/nowhere/x.toml".into()).unwrap_err().to_string();
    assert!(
        missing.starts_with("/nowhere/x.toml: cannot be read: No such file"),
        "{missing}"
    );
}

/// A proposal is a name that somebody may have meant, and no other; a number has both of its bounds.
#[test]
fn what_is_proposed_is_near_and_what_is_right_is_said_whole() {
    let target = "[[targets]]\nname = \"a\"\norigin = \"http://a\"\n";
    for (text, expected) in [
        (
            &*format!("{target}rate = 5"),
            "t.toml, line 4: targets[0].rate: unknown key; did you mean \"rate_per_second\"?",
        ),
        (
            &format!("{target}retries = 5"),
            "t.toml, line 4: targets[0].retries: unknown key\n",
        ),
        (
            &format!("{target}attempts_max = -1"),
            "t.toml, line 4: targets[0].attempts_max: invalid value: integer `-1`, expected a whole number, 1 to 1000\n",
        ),
        (
            "[dispatch]\nretry_after_max_ms = 5",
            "t.toml, line 2: dispatch.retry_after_max_ms: unknown key; did you mean \"retry_after_ms_max\"?",
        ),
        (
            "[dispatch]\ndeferred_ms_max = -1",
            "t.toml, line 2: dispatch.deferred_ms_max: invalid value: integer `-1`, expected a whole number, 0 to 86400000; \
             the default is 3600000\n",
        ),
        (
            "[[streams]]\nname = \"Ab\"\npartitions = 70000",
            "t.toml, line 3: streams[0].partitions: invalid value: integer `70000`, expected a whole number, 1 to 256\n",
        ),
    ] {
        let said = load_text(text, &[]).unwrap_err().to_string() + "\n";
        let (_, said) = said.split_at(said.find("t.toml").unwrap());
        assert!(said.starts_with(expected), "{said}");
    }
}

/// What was wrong comes first; the entries behind it are judged under their own numbers.
#[test]
fn a_wrong_entry_leaves_the_others_their_numbers_and_lines() {
    check_errors(
        "[[targets]]\nname = \"a\"\norigin = \"http://127.0.0.1:1\"\nrate_per_second = -5\n\
         [[targets]]\nname = \"b\"\norigin = \"http://127.0.0.1:2\"\npath_prefix = \"orders\"\nrate_per_second = 0\n",
        &[],
        &[
            "t.toml, line 4: targets[0].rate_per_second: invalid value: integer `-5`",
            "t.toml, line 8: targets[1].path_prefix: \"orders\" is no path prefix",
            "t.toml, line 9: targets[1].rate_per_second: is 0, but must be 1 to 100000",
        ],
    );
    // An unknown key, missing keys, and a second target of the same origin that is none if the typing error was not there.
    check_errors(
        "[[targets]]\nname = \"a\"\norigin = \"http://a\"\npath_prefx = \"/a\"\n[[targets]]\npath_prefix = \"/b\"\n\
         [[targets]]\npath_prefix = \"/b\"\n[[targets]]\nname = \"a\"\norigin = \"http://a\"\n",
        &[],
        &[
            "t.toml, line 4: targets[0].path_prefx: unknown key; did you mean \"path_prefix\"?",
            "t.toml, line 5: targets[1].name: is missing",
            "t.toml, line 5: targets[1].origin: is missing",
            "t.toml, line 7: targets[2].name: is missing",
            "t.toml, line 7: targets[2].origin: is missing",
            "t.toml, line 10: targets[3].name: a is there already, as targets[0]",
        ],
    );
    // The name of a wrong stream is known to what refers to it.
    check_errors(
        "streams = [7, {}, {name = \"Ab\", partition = 1}, {name = \"Ac\", partitions = 0},\n{name = \"Ac\"}]\n\
         [outcomes]\n404 = \"Ab\"\n",
        &[],
        &[
            "t.toml, line 1: streams[0]: must be a table",
            "t.toml, line 1: streams[1].name: is missing",
            "t.toml, line 1: streams[2].partition: unknown key; did you mean \"partitions\"?",
            "t.toml, line 1: streams[3].partitions: is 0, but must be 1 to 256",
            "t.toml, line 2: streams[4].name: Ac is there already, as streams[3]",
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
fn compat_is_the_samples_manners_and_what_is_said_wins() {
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
