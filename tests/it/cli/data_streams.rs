//! `syncgate data-streams` and `syncgate cursors`.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::testkit::{Gateway, Place, keyed, on_terminal, on_terminal_typing, syncgate};

/// A command for a gateway.
fn command(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = syncgate();
    command.args(arguments).args(["--url", &gateway.url]);
    command.env("NO_COLOR", "1");
    command
}

/// Runs a command in a pipe: its exit code, what it printed and what it said.
fn run(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(gateway, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[track_caller]
fn ok(gateway: &Gateway, arguments: &[&str]) -> String {
    let (code, out, said) = run(gateway, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    out
}

#[track_caller]
fn json_of(gateway: &Gateway, arguments: &[&str]) -> Value {
    let out = ok(gateway, &[arguments, &["--output", "json"]].concat());
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[track_caller]
fn refused(gateway: &Gateway, arguments: &[&str], code: i32, what: &str) {
    let (found, out, said) = run(gateway, arguments);
    assert_eq!((found, &*out), (Some(code), ""), "{arguments:?}: {said}");
    assert!(said.contains(what), "{arguments:?}: {said}");
}

#[track_caller]
fn fits(text: &str, columns: usize) {
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(columns), "{widest:?}: {text}");
}

async fn order(gateway: &Gateway, operation: &str, path: &str, payload: Value) {
    let url = format!("https://127.0.0.1:9{path}");
    let mut message = keyed("k", &url, payload);
    message["streamMessage"]["targetRestApiOperation"] = operation.into();
    gateway.sync(&message).await;
}

/// The commands of the examples in a help text, each on one line.
fn examples(help: &str) -> Vec<String> {
    let joined = help.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let examples = lines.filter(|line| line.starts_with("syncgate data-streams create "));
    examples.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_filtered_data_stream_is_made_from_the_help_alone() {
    let gateway = Gateway::start();
    let help = ["data-streams", "create", "--help"];
    for columns in [80, 200] {
        let (status, text) = on_terminal(columns, syncgate().args(help).env("NO_COLOR", "1"));
        assert!(status.success(), "{text}");
        fits(&text, columns.into());
        assert_eq!(examples(&text).len(), 3, "{text}");
    }
    let help = ok_without_gateway(&help);
    let examples = examples(&help);
    for example in &examples {
        in_a_shell(&gateway, example);
    }
    let listed = json_of(&gateway, &["data-streams", "ls"]);
    let names = listed["items"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|item| item["name"].as_str().unwrap()).collect();
    // The last one was tried only.
    assert_eq!(names, ["large", "orders"]);
    // What becomes of a call, which rules there are, and that columns are not chosen.
    for told in [
        "POST is\n  INSERT, PUT is UPSERT, PATCH is UPDATE, DELETE is DELETE",
        "INSERT (POST), UPSERT (PUT), UPDATE (PATCH)",
        "no option leaves out a column",
        "metaFields.NAME=BOOLEAN",
        "PARTITION, OFFSET, KEY, TS, DATA (the\n  message) and HEADERS",
        "A record whose column has another type",
    ] {
        assert!(help.contains(told), "{told}: {help}");
    }

    // What the filter of the first example lets through.
    for (operation, path, payload) in [
        ("POST", "/orders", json!({"qty": 1, "id": "o1"})),
        ("DELETE", "/orders/o1", json!({})),
        ("POST", "/customers", json!({"qty": 100})),
        ("PUT", "/orders/o2", json!({"qty": 2})),
    ] {
        order(&gateway, operation, path, payload).await;
    }
    let tail = |name, count| {
        let all = [
            "tail", name, "--begin", "earliest", "--count", count, "--output", "json",
        ];
        let out = ok(&gateway, &all);
        let lines = out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.collect::<Vec<_>>()
    };
    let shown: Vec<_> = tail("orders", "2")
        .iter()
        .map(|record| {
            [
                &record["qual_table"],
                &record["op_type"],
                &record["after"]["qty"],
            ]
            .map(Value::clone)
        })
        .collect();
    let shop = json!("SHOP.ORDERS");
    assert_eq!(
        shown,
        [
            [shop.clone(), json!("INSERT"), json!(1)],
            [shop, json!("UPSERT"), json!(2)]
        ]
    );
    // And of the second.
    let events = tail("large", "1");
    assert_eq!(
        events[0]["data"]["DATA"]["targetRestApi"],
        "https://127.0.0.1:9/customers"
    );
}

/// Runs a command as a shell reads it, and returns what it printed.
#[track_caller]
fn in_a_shell(gateway: &Gateway, command: &str) -> String {
    let binary = syncgate().get_program().to_owned();
    let ended = Command::new("sh")
        .args(["-c", &command.replacen("syncgate", "\"$BINARY\"", 1)])
        .env("BINARY", binary)
        .env("SYNCGATE_URL", &gateway.url)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{command}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

#[track_caller]
fn ok_without_gateway(arguments: &[&str]) -> String {
    let ended = syncgate().args(arguments).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

const CREATE: [&str; 15] = [
    "data-streams",
    "create",
    "orders",
    "--stream",
    "DataSyncStream",
    "--description",
    "for the warehouse",
    "--object",
    "SHOP.ORDERS=https://*/orders/{id}",
    "--column",
    "SHOP.ORDERS.qty=number",
    "--rule",
    "include object=SHOP.ORDERS and type=INSERT,UPSERT",
    "--rule",
    "exclude column:DATA/targetRestApiPayload/qty>=1.10",
];

#[tokio::test]
async fn a_data_stream_is_made_shown_listed_and_removed() {
    let gateway = Gateway::start();
    let tried = ok(&gateway, &[&CREATE[..], &["--dry-run"]].concat());
    let config: Value = serde_json::from_str(&tried).unwrap();
    assert_eq!(config["rules"].as_array().unwrap().len(), 2);
    assert_eq!(
        json_of(&gateway, &[&CREATE[..], &["--dry-run"]].concat()),
        config
    );
    refused(
        &gateway,
        &["data-streams", "show", "orders"],
        1,
        "404 not_found",
    );

    let made = ok(&gateway, &CREATE);
    let socket = gateway.url.replace("http://", "ws://");
    let path = "/services/v2/stream/orders";
    let expected = format!(
        "\
name        orders
stream      DataSyncStream
description for the warehouse
view        operations
object      SHOP.ORDERS from https://*/orders/{{id}}, key id
rule        include object=SHOP.ORDERS and type=INSERT,UPSERT
rule        exclude column:DATA/targetRestApiPayload/qty>=1.10
encoding    model op
quality     exactlyOnce
subscribe   {socket}{path}
document    {url}{path}/yaml
next        syncgate tail orders --begin earliest --url {url}
",
        url = gateway.url
    );
    assert_eq!(made, expected);
    for columns in [80, 200] {
        let show = ["data-streams", "show", "orders"];
        let (status, text) = on_terminal(columns, &mut command(&gateway, &show));
        assert_eq!((status.code(), &*text), (Some(0), &*expected));
        fits(&text, columns.into());
        let (status, text) = on_terminal(columns, &mut command(&gateway, &["data-streams", "ls"]));
        assert_eq!(status.code(), Some(0));
        fits(&text, columns.into());
        for part in ["orders", "DataSyncStream", "idle", "operations"] {
            assert!(text.contains(part), "{text}");
        }
    }
    let shown = json_of(&gateway, &["data-streams", "show", "orders"]);
    assert_eq!(shown["address"], format!("{socket}{path}"));
    assert_eq!(shown["config"]["rules"][0]["action"], "include");
    // What is there, and what is wrong with the configuration, the gateway says.
    refused(&gateway, &CREATE, 1, "409 exists");
    let strange = ["data-streams", "create", "s2", "--stream", "Nowhere"];
    refused(&gateway, &strange, 1, "--stream: this names no stream");
    let wrong = [
        "data-streams",
        "create",
        "s2",
        "--stream",
        "DataSyncStream",
        "--rule",
        "include type=READ",
    ];
    refused(&gateway, &wrong, 1, "--rule 'include type=READ': ");

    let remove = ["data-streams", "rm", "orders"];
    refused(
        &gateway,
        &["data-streams", "rm", "nobody"],
        1,
        "404 not_found",
    );
    refused(&gateway, &remove, 2, "give --yes");
    let cursor = ["cursors", "set", "orders", "c1", "--begin", "now"];
    ok(&gateway, &cursor);
    for (typed, columns) in [("n\n", 80), ("\u{4}", 200)] {
        let (status, text) = on_terminal_typing(typed, columns, &mut command(&gateway, &remove));
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(
            text.contains("Remove data stream orders with its 1 cursor?"),
            "{text}"
        );
        assert!(text.contains("nothing was changed"), "{text}");
    }
    ok(&gateway, &["data-streams", "show", "orders"]);
    let (status, text) = on_terminal_typing("y\n", 80, &mut command(&gateway, &remove));
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.ends_with("orders removed\n"), "{text}");
    refused(
        &gateway,
        &["data-streams", "show", "orders"],
        1,
        "404 not_found",
    );
    ok(&gateway, &CREATE);
    let removed = json_of(&gateway, &[&remove[..], &["--yes"]].concat());
    assert_eq!(removed, json!({"removed": "orders"}));
    assert_eq!(
        json_of(&gateway, &["data-streams", "ls"]),
        json!({"items": []})
    );
}

/// Runs a command as a shell reads it, without the variables that say which gateway is meant.
#[track_caller]
fn in_a_bare_shell(command: &str) -> Output {
    let mut ended = Command::new("sh");
    ended.args(["-c", &command.replacen("syncgate", "\"$BINARY\"", 1)]);
    ended.env("BINARY", syncgate().get_program());
    ended.env_remove("SYNCGATE_URL").output().unwrap()
}

#[tokio::test]
async fn a_next_command_finds_the_same_gateway_and_shows_no_password() {
    let gateway = Gateway::start();
    order(&gateway, "POST", "/orders", json!({"n": 1})).await;
    let create = ["data-streams", "create", "s1", "--stream", "DataSyncStream"];
    let next_of = |shown: &str| {
        let next = shown.lines().find_map(|line| line.strip_prefix("next"));
        next.unwrap_or_else(|| panic!("{shown}")).trim().to_owned()
    };
    let next = next_of(&ok(&gateway, &create));
    let tailed = in_a_bare_shell(&format!("{next} --count 2"));
    assert!(tailed.status.success(), "{next}: {tailed:?}");
    let tailed = String::from_utf8(tailed.stdout).unwrap();
    assert_eq!(tailed.lines().count(), 2, "{tailed}");

    // An address with a user and a password.
    let host = gateway.url.strip_prefix("http://").unwrap();
    let show = ["data-streams", "show", "s1", "--url"];
    let with_login = format!("{}ada:horse@{host}", "http://");
    let ended = syncgate().args(show).arg(&with_login).output().unwrap();
    let shown = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(
        next_of(&shown),
        format!("syncgate tail s1 --begin earliest --url {}", gateway.url)
    );
    assert!(!shown.contains("horse"), "{shown}");
    // The address of the variable is found again.
    let shown = in_a_shell(&gateway, "syncgate data-streams show s1");
    assert_eq!(next_of(&shown), "syncgate tail s1 --begin earliest");
    // One that is spelled otherwise is the same.
    let shown = in_a_shell(
        &gateway,
        &format!("syncgate data-streams show s1 --url {host}/"),
    );
    assert_eq!(next_of(&shown), "syncgate tail s1 --begin earliest");
}

#[tokio::test]
async fn a_name_that_nothing_has_leads_to_the_command_that_lists_names() {
    let gateway = Gateway::start();
    let url = &gateway.url;
    ok(
        &gateway,
        &["data-streams", "create", "orders", "--stream", "a1"],
    );
    for (arguments, told) in [
        (
            &["data-streams", "show", "nobody"][..],
            format!(
                "error: no data stream is called `nobody`; list them with: syncgate data-streams ls --url {url}\n"
            ),
        ),
        (
            &["data-streams", "rm", "ordres"],
            "error: no data stream is called `ordres`; did you mean `orders`?\n".into(),
        ),
        (
            &["cursors", "rm", "orders", "c1"],
            format!(
                "error: no cursor is called `c1`; list them with: syncgate cursors ls orders --url {url}\n"
            ),
        ),
        (
            &["streams", "show", "nobody"],
            format!(
                "error: no stream is called `nobody`; list them with: syncgate streams ls --url {url}\n"
            ),
        ),
    ] {
        let (code, out, said) = run(&gateway, arguments);
        assert_eq!((code, &*out), (Some(1), ""), "{said}");
        assert!(said.starts_with(&told), "{arguments:?}: {said}");
        assert!(!said.contains("GET /"), "{said}");
        // Each sentence is there once.
        let sentence = told.trim_start_matches("error: ").trim_end();
        assert_eq!(said.matches(sentence).count(), 1, "{said}");
    }
    let (_, _, said) = run(
        &gateway,
        &["cursors", "set", "orders", "c1", "--begin", "never"],
    );
    assert_eq!(said.matches("begin is earliest, now").count(), 1, "{said}");
    assert!(said.starts_with("error: --begin: begin is "), "{said}");
}

#[tokio::test]
async fn a_rule_for_an_object_that_is_not_there_is_warned_of() {
    let gateway = Gateway::start();
    let create = |name, rule| {
        let object = "SHOP.ORDERS=https://*/orders";
        let arguments = [
            "data-streams",
            "create",
            name,
            "--stream",
            "DataSyncStream",
            "--object",
            object,
            "--rule",
            rule,
        ];
        let (code, _, said) = run(&gateway, &arguments);
        assert_eq!(code, Some(0), "{said}");
        said
    };
    assert_eq!(create("s1", "include object=SHOP.ORDERS"), "");
    assert_eq!(
        create("s2", "include object=SHOP.ORDER"),
        "warning: rule 1 names SHOP.ORDER, which fits no object of this data stream; did you mean SHOP.ORDERS? \
         It has SHOP.ORDERS, SYNCGATE.DataSyncStream\n"
    );
    let said = create("s3", "include object=S.NOPE");
    assert!(
        said.contains(
            "fits no object of this data stream: it has SHOP.ORDERS, SYNCGATE.DataSyncStream"
        ),
        "{said}"
    );
}

#[tokio::test]
async fn a_record_that_breaks_a_declared_column_is_counted_where_the_data_stream_is_shown() {
    let gateway = Gateway::start();
    let create = [
        "data-streams",
        "create",
        "orders",
        "--stream",
        "DataSyncStream",
        "--object",
        "SHOP.ORDERS=https://*/orders",
        "--column",
        "SHOP.ORDERS.qty=number",
        "--rule",
        "include object=SHOP.ORDERS",
    ];
    ok(&gateway, &create);
    order(&gateway, "POST", "/orders", json!({"qty": "seven"})).await;
    order(&gateway, "POST", "/orders", json!({"qty": 7})).await;
    let show = ["data-streams", "show", "orders"];
    assert_eq!(run(&gateway, &show).2, "");
    for _ in 0..2 {
        let tail = [
            "tail", "orders", "--begin", "earliest", "--count", "1", "--output", "json",
        ];
        let record: Value = serde_json::from_str(&ok(&gateway, &tail)).unwrap();
        assert_eq!(record["after"]["qty"], 7);
    }
    let told = "warning: 1 record breaks a declared column and comes as a row of SYNCGATE.DataSyncStream; \
                the last one: in 0.0 SHOP.ORDERS.qty is no number\n";
    assert_eq!(run(&gateway, &show).2, told);
}

#[tokio::test]
async fn the_rest_of_a_configuration_comes_from_a_file_to_the_digit() {
    let gateway = Gateway::start();
    let file = gateway.place().path().join("config.json");
    let filter =
        r#"{"columnValues":[{"column":"DATA","pointer":"/n","operator":"GE","value":1e400}]}"#;
    let config = format!(
        r#"{{"source":{{"trail":"a1"}},"bufferSize":131072,"rules":[{{"name":"far","action":"include","filter":{filter}}}]}}"#
    );
    std::fs::write(&file, &config).unwrap();
    let file = file.to_str().unwrap();
    let create = [
        "data-streams",
        "create",
        "far",
        "--file",
        file,
        "--stream",
        "DataSyncStream",
    ];
    let shown = ok(&gateway, &create);
    for line in [
        "stream      DataSyncStream\n",
        "rule        include column:DATA/n>=1e400 (far)\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let raw = ok(
        &gateway,
        &["data-streams", "show", "far", "--output", "json"],
    );
    assert!(
        raw.contains("\"value\":1e400") && raw.contains("\"bufferSize\":131072"),
        "{raw}"
    );
    let raw = ok(&gateway, &["data-streams", "ls", "--output", "json"]);
    assert!(raw.contains("\"value\":1e400"), "{raw}");
    refused(&gateway, &["data-streams", "create", "x"], 2, "--stream");
    refused(
        &gateway,
        &["data-streams", "create", "x", "--file", "/nowhere"],
        2,
        "--file /nowhere: No such file",
    );
}

#[tokio::test]
async fn cursors_are_listed_moved_and_removed() {
    let gateway = Gateway::start();
    ok(
        &gateway,
        &["data-streams", "create", "s1", "--stream", "a1"],
    );
    for n in 0..3 {
        order(&gateway, "POST", "/orders", json!({ "n": n })).await;
    }
    refused(&gateway, &["cursors", "ls", "nobody"], 1, "404 not_found");
    assert_eq!(
        json_of(&gateway, &["cursors", "ls", "s1"]),
        json!({"items": []})
    );
    let set = |begin| ["cursors", "set", "s1", "warehouse", "--begin", begin];
    refused(
        &gateway,
        &["cursors", "set", "s1", "warehouse"],
        2,
        "--begin",
    );
    refused(
        &gateway,
        &set("never"),
        1,
        "--begin: begin is earliest, now, a time",
    );
    assert_eq!(
        ok(&gateway, &set("earliest")),
        "warehouse of s1: 3 records to come\n"
    );
    assert_eq!(json_of(&gateway, &set("now"))["recordsBehind"], 0);
    assert_eq!(
        json_of(&gateway, &set("2026-01-02T03:04:05Z"))["recordsBehind"],
        3
    );
    assert_eq!(json_of(&gateway, &set("1h ago"))["recordsBehind"], 3);
    assert_eq!(json_of(&gateway, &set("10m"))["recordsBehind"], 3);
    for columns in [80, 200] {
        let (status, text) = on_terminal(columns, &mut command(&gateway, &["cursors", "ls", "s1"]));
        assert_eq!(status.code(), Some(0));
        fits(&text, columns.into());
        assert!(
            text.contains("CURSOR") && text.contains("warehouse"),
            "{text}"
        );
    }
    let remove = ["cursors", "rm", "s1", "warehouse"];
    refused(
        &gateway,
        &["cursors", "rm", "s1", "nobody"],
        1,
        "404 not_found",
    );
    refused(&gateway, &remove, 2, "give --yes");
    let (status, text) = on_terminal_typing("\n", 80, &mut command(&gateway, &remove));
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        text.contains("Remove cursor warehouse of s1, with 3 records to come?"),
        "{text}"
    );
    let (status, text) = on_terminal_typing("yes\n", 80, &mut command(&gateway, &remove));
    assert_eq!(status.code(), Some(0), "{text}");
    ok(&gateway, &set("earliest"));
    let removed = json_of(&gateway, &[&remove[..], &["--yes"]].concat());
    assert_eq!(removed, json!({"removed": "warehouse"}));
    assert_eq!(
        json_of(&gateway, &["cursors", "ls", "s1"]),
        json!({"items": []})
    );
}

#[tokio::test]
async fn addresses_are_those_by_which_clients_reach_the_gateway() {
    // An address for other machines needs users.
    let config = "[server]\npublic_url = \"https://sync.example\"\n";
    let place = Place::with_config(config)
        .env("SYNCGATE_ADMIN_USER", "ada")
        .env("SYNCGATE_ADMIN_PASSWORD", "correct-horse-battery");
    let gateway = place.start();
    let create = ["data-streams", "create", "s1", "--stream", "a1"];
    let out = syncgate()
        .args(create)
        .args(["--output", "json", "--url", &gateway.url])
        .env("SYNCGATE_USER", "ada")
        .env("SYNCGATE_PASSWORD", "correct-horse-battery")
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(made["address"], "wss://sync.example/services/v2/stream/s1");
    assert_eq!(
        made["document"],
        "https://sync.example/services/v2/stream/s1/yaml"
    );
}
