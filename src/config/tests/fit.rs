//! Values that do not fit together, and what their errors propose.

use super::*;

#[test]
fn values_must_fit_together() {
    for (text, expected) in [
        (
            "[server]\nlisten = \"0.0.0.0:9002\"",
            "t.toml, line 2: server.listen: 0.0.0.0:9002 is not a loopback address: there is no TLS yet",
        ),
        (
            "[server]\nhosts = [\"http://a\"]",
            "t.toml, line 2: server.hosts: \"http://a\" is not a host name",
        ),
        (
            "[server]\ncors_origins = [\"a.example\"]",
            "t.toml, line 2: server.cors_origins: \"a.example\" is not an origin",
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
            "t.toml, line 2: sync.token_header: \"a b\" is not a header name",
        ),
        (
            "[sync]\ntoken_header = \"Host\"",
            "t.toml, line 2: sync.token_header: \"Host\" is reserved for HTTP, proxies or the gateway",
        ),
        (
            "[sync]\ntoken_header = \"X-Request-Id\"",
            "t.toml, line 2: sync.token_header: \"X-Request-Id\" is reserved for HTTP, proxies or the gateway",
        ),
        (
            "[sync]\ntoken_header = \"Sec-WebSocket-Key\"",
            "t.toml, line 2: sync.token_header: \"Sec-WebSocket-Key\" is reserved for HTTP, proxies or the gateway",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"http://a\"\nsecret_header = \"Idempotency-Key\"",
            "t.toml, line 4: targets[0].secret_header: \"Idempotency-Key\" is reserved for HTTP, proxies or the gateway; take Authorization",
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
            "t.toml, line 2: logging.level: \"loud\" is not a level; give error, warn, info, debug or trace, or a list",
        ),
        (
            "[logging]\nlevel = \"infos, syncgate::dispatch=debug\"",
            "t.toml, line 2: logging.level: \"infos\" is not a level; did you mean \"info\"?",
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
            "t.toml, line 2: logging.level: \"info,=\" is not a filter",
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
            "t.toml, line 4: streams[1].name: Ab is already the name of streams[0]",
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
            "t.toml, line 6: streams[1].ocid: is also the ocid of streams[0]: one id would mean two streams",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"https://a/b\"",
            "t.toml, line 3: targets[0].origin: \"https://a/b\" is not an origin (there is more than scheme, host and port)",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"https://a\"\n[[targets]]\nname = \"a\"\norigin = \"https://b\"",
            "t.toml, line 5: targets[1].name: a is already the name of targets[0]",
        ),
        (
            "[[targets]]\nname = \"a\"\norigin = \"https://a\"\n[[targets]]\nname = \"b\"\norigin = \"https://A:443/\"",
            "t.toml, line 6: targets[1].origin: https://a:443 is already the target of targets[0]",
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

/// A proposal is a name that is probably meant; the error of a number has both bounds.
#[test]
fn proposals_are_near_and_ranges_complete() {
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

/// The elements after a wrong one keep their indices and lines.
#[test]
fn a_wrong_entry_leaves_the_others_their_numbers_and_lines() {
    check_errors(
        "[[targets]]\nname = \"a\"\norigin = \"http://127.0.0.1:1\"\nrate_per_second = -5\n\
         [[targets]]\nname = \"b\"\norigin = \"http://127.0.0.1:2\"\npath_prefix = \"orders\"\nrate_per_second = 0\n",
        &[],
        &[
            "t.toml, line 4: targets[0].rate_per_second: invalid value: integer `-5`",
            "t.toml, line 8: targets[1].path_prefix: \"orders\" is not a path prefix",
            "t.toml, line 9: targets[1].rate_per_second: is 0, but must be 1 to 100000",
        ],
    );
    // An unknown key, missing keys, and a second target whose origin is repeated only because of the typing error.
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
            "t.toml, line 10: targets[3].name: a is already the name of targets[0]",
        ],
    );
    // The name of a wrong stream still counts as known for `[outcomes]`.
    check_errors(
        "streams = [7, {}, {name = \"Ab\", partition = 1}, {name = \"Ac\", partitions = 0},\n{name = \"Ac\"}]\n\
         [outcomes]\n404 = \"Ab\"\n",
        &[],
        &[
            "t.toml, line 1: streams[0]: must be a table",
            "t.toml, line 1: streams[1].name: is missing",
            "t.toml, line 1: streams[2].partition: unknown key; did you mean \"partitions\"?",
            "t.toml, line 1: streams[3].partitions: is 0, but must be 1 to 256",
            "t.toml, line 2: streams[4].name: Ac is already the name of streams[3]",
        ],
    );
}
