//! `syncgate records`: all partitions of a stream, one of them, one record.

use std::{net::TcpListener, process::Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, StubTarget, keyed, on_terminal, poll, syncgate};

const SOURCE: &str = "DataSyncStream";
const UNRECOVERABLE: &str = "UnrecoverableErrorStream";

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(gateway: &Gateway, arguments: &[&str]) -> Ended {
    let mut command = syncgate();
    command
        .arg("records")
        .args(arguments)
        .args(["--url", &gateway.url]);
    let ended = command.output().unwrap();
    Ended {
        code: ended.status.code(),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}

#[track_caller]
fn printed(gateway: &Gateway, arguments: &[&str]) -> String {
    let ended = run(gateway, arguments);
    assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{}", ended.out);
    ended.out
}

/// Rows without headings and the last line, which says how far they go.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<_> = text.lines().collect();
    let rows = lines[1..lines.len() - 1].iter();
    rows.map(|row| row.split_whitespace().collect()).collect()
}

/// A gateway whose streams have four partitions, with a record for each of so many keys.
async fn four_partitions(url: &str, keys: u32) -> Gateway {
    let gateway = Gateway::start();
    let request = gateway.request(Method::PATCH, "/v1/streams/DataSyncStream");
    gateway
        .send(request.json(&json!({"partitions": 4})))
        .await
        .ok();
    for n in 0..keys {
        let message = keyed(&format!("k{n}"), url, json!({"n": n}));
        gateway.sync(&message).await;
    }
    gateway.drained(SOURCE).await;
    gateway
}

#[tokio::test]
async fn all_partitions_are_shown_unless_one_is_named_and_the_end_only_where_all_was_read() {
    let target = StubTarget::with(|_| Act::status(404)).await;
    let gateway = four_partitions(&target.url("/x"), 20).await;
    let text = printed(&gateway, &[SOURCE]);
    let headings: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        headings,
        [
            "PARTITION",
            "OFFSET",
            "TIME",
            "KEY",
            "OPERATION",
            "TARGET",
            "STATE",
            "CAUSE",
            "MOVED",
            "TO"
        ]
    );
    let all = rows(&text);
    let keys: Vec<_> = all.iter().map(|row| row[3].to_owned()).collect();
    let expected: Vec<_> = (0..20).map(|n| format!("k{n}")).collect();
    assert_eq!(keys, expected, "by time, over all partitions");
    let mut partitions: Vec<_> = all.iter().map(|row| row[0]).collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert_eq!(partitions, ["0", "1", "2", "3"]);
    assert!(all.iter().all(|row| row[6] == "moved"), "{text}");
    assert!(
        text.ends_with("\n20 records of 4 partitions, up to the end\n"),
        "{text}"
    );
    // A part says that it is one, and where the rest is.
    let first = printed(&gateway, &[SOURCE, "--limit", "7"]);
    let (_, next) = first
        .trim_end()
        .split_once("7 records of 4 partitions, not up to the end: go on with syncgate records ")
        .unwrap();
    let mut words = next.split_whitespace();
    assert_eq!(words.next(), Some(SOURCE));
    assert_eq!(words.next(), Some("--from"));
    let next = words.next().unwrap();
    assert_eq!(words.take(2).collect::<Vec<_>>(), ["--limit", "7"]);
    let rest = printed(&gateway, &[SOURCE, "--from", next]);
    let both = [rows(&first), rows(&rest)].concat();
    assert_eq!(both, all);
    assert!(
        rest.ends_with("13 records of 4 partitions, up to the end\n"),
        "{rest}"
    );
    for partition in ["0", "1", "2", "3"] {
        let text = printed(&gateway, &[SOURCE, "--partition", partition]);
        let of: Vec<_> = all
            .iter()
            .filter(|row| row[0] == partition)
            .cloned()
            .collect();
        assert_eq!(rows(&text), of);
        let end = format!(
            "{} records of partition {partition} (earliest 0, tail {}), up to the end\n",
            of.len(),
            of.len()
        );
        assert!(text.ends_with(&end), "{text}");
    }
    let text = printed(&gateway, &[SOURCE, "--partition", "0", "--limit", "1"]);
    assert!(text.contains(" --from 1 --partition 0 --limit 1"), "{text}");
    // What no retry has settled is open, in every partition.
    let text = printed(&gateway, &[UNRECOVERABLE]);
    assert!(rows(&text).iter().all(|row| row[6] == "open"), "{text}");
    let open = printed(&gateway, &[UNRECOVERABLE, "--open"]);
    assert_eq!(rows(&open).len(), 20);
    assert!(rows(&open).iter().all(|row| row[6] == "retry"), "{open}");
    assert!(
        open.ends_with("20 open records of 4 partitions, up to the end\n"),
        "{open}"
    );
    let json: Value =
        serde_json::from_str(&printed(&gateway, &[SOURCE, "--output", "json"])).unwrap();
    assert_eq!(
        (json["items"].as_array().unwrap().len(), &json["next"]),
        (20, &Value::Null)
    );
    // An offset is one of a partition.
    let wrong = run(&gateway, &[SOURCE, "--from", "3"]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong
            .err
            .contains("DataSyncStream has 4: give --partition too"),
        "{}",
        wrong.err
    );
    let text = printed(
        &gateway,
        &["DefaultErrorStream", "--partition", "0", "--from", "0"],
    );
    assert!(
        text.ends_with("0 records of partition 0 (earliest 0, tail 0), up to the end\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_settled_record_says_how_and_where_its_copy_is() {
    let target = StubTarget::with(|call| match call.path.as_str() {
        "/refused" => Act::status(404),
        _ => Act::status(200),
    })
    .await;
    let gateway = Gateway::start();
    let path = "/v1/streams/DataSyncStream/partitions/0/records";
    let send = async |path: &str| {
        gateway.sync(&keyed("k", &target.url(path), json!(1))).await;
        gateway.drained(SOURCE).await;
    };
    send("/taken").await;
    send("/refused").await;
    let text = printed(&gateway, &[SOURCE]);
    let states: Vec<_> = rows(&text)
        .iter()
        .map(|row| format!("{} {}", row[6], row[8]))
        .collect();
    let moved = "moved UnrecoverableErrorStream/0/0";
    assert_eq!(states, ["delivered -", moved], "{text}");
    // A retry that delivers it settles the copy, and the first record stays as it was settled.
    target.now(|_| Act::status(200));
    gateway.retry(UNRECOVERABLE, -1, 10).await;
    let text = printed(&gateway, &[UNRECOVERABLE]);
    assert_eq!(rows(&text)[0][6], "delivered", "{text}");
    let answer = gateway.get(&format!("{path}?settlements=true")).await.ok();
    let [taken, refused] = [0, 1].map(|at| &answer["items"][at]["settlement"]);
    assert_eq!(
        (&taken["end"], &taken["attempts"], &taken["status"]),
        (&json!("delivered"), &json!(1), &json!(200)),
        "{answer}"
    );
    assert_eq!(
        refused["to"],
        json!({"stream": UNRECOVERABLE, "partition": "0", "offset": 0}),
        "{answer}"
    );
    // One record says it unasked, a page only if it is asked for, and both still know it after a restart.
    let plain = gateway.get(path).await.ok();
    assert!(plain["items"][0].get("settlement").is_none(), "{plain}");
    let one = gateway.get(&format!("{path}/1")).await.ok();
    assert_eq!(&one["settlement"], refused);
    let gateway = gateway.kill().start();
    let again = gateway.get(&format!("{path}?settlements=true")).await.ok();
    assert_eq!(again["items"], answer["items"]);
}

#[tokio::test]
async fn a_page_begins_at_a_time_as_people_write_it() {
    let gateway = Gateway::start();
    gateway
        .sync(&keyed("k", "http://127.0.0.1:9/x", json!(1)))
        .await;
    for partition in ["0", "*"] {
        let page = async |query: &str| {
            let path = format!("/v1/streams/DataSyncStream/partitions/{partition}/records?{query}");
            gateway.get(&path).await
        };
        for parameter in ["at", "from"] {
            for (time, len) in [
                ("2026-01-01", 1),
                ("1h%20ago", 1),
                ("10m", 1),
                ("2026-01-01T00:00:00+01:00", 1),
                ("2200-01-01", 0),
            ] {
                let answer = page(&format!("{parameter}={time}")).await.ok();
                let items = answer["items"].as_array().unwrap();
                assert_eq!(items.len(), len, "{partition} {parameter}={time}");
            }
            let wrong = page(&format!("{parameter}=yesterday")).await;
            let told = wrong.problem(400, "invalid_request");
            let detail = told["detail"].as_str().unwrap();
            assert!(detail.contains("2026-12-01"), "{detail}");
        }
    }
    let text = printed(&gateway, &[SOURCE, "--from", "10m"]);
    assert_eq!(rows(&text).len(), 1, "{text}");
}

#[tokio::test]
async fn an_offset_needs_no_partition_where_there_is_one_alone() {
    let gateway = Gateway::start();
    for n in 0..3 {
        gateway
            .sync(&keyed("k", "http://127.0.0.1:9/x", json!(n)))
            .await;
    }
    let text = printed(&gateway, &[SOURCE, "--from", "1"]);
    let offsets: Vec<_> = rows(&text).iter().map(|row| row[1].to_owned()).collect();
    assert_eq!(offsets, ["1", "2"]);
}

#[tokio::test]
async fn one_record_is_shown_with_all_that_is_known_about_it() {
    let target = StubTarget::with(|_| Act::status(404)).await;
    let gateway = Gateway::start();
    let body = format!(
        r#"{{"streamKey":"k1","streamMessage":{{"targetRestApi":"{}","targetRestApiOperation":"POST","targetRestApiPayload":{{"big":1e400,"n":1.10}}}}}}"#,
        target.url("/x")
    );
    gateway
        .send(gateway.request(Method::POST, "/stream/sync").body(body))
        .await
        .ok();
    gateway.drained(SOURCE).await;
    let ended = run(&gateway, &["UnrecoverableErrorStream/0/0"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let lines: Vec<_> = ended.out.lines().map(str::trim_end).collect();
    assert_eq!(lines[0], "UnrecoverableErrorStream/0/0");
    let fact = |name: &str| {
        let line = lines
            .iter()
            .find_map(|line| line.trim_start().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {}", ended.out))
            .trim()
            .to_owned()
    };
    assert_eq!(fact("state"), "open");
    assert_eq!(fact("waits for"), "a retry");
    assert_eq!(
        fact("cause  "),
        "status 404: the target answered 404 Not Found"
    );
    assert_eq!(fact("calls"), "1");
    assert_eq!(fact("came from"), "DataSyncStream/0/0");
    assert_eq!(fact("key"), "k1");
    let times = [fact("first call"), fact("last call"), fact("time")];
    assert!(
        times
            .iter()
            .all(|time| time.starts_with("20") && time.ends_with('Z')),
        "{times:?}"
    );
    assert_eq!(fact("first-attempt-at"), times[0]);
    assert_eq!(fact("origin-stream"), SOURCE);
    let behind = |heading: &str| {
        let at = lines.iter().position(|line| *line == heading);
        lines[at.unwrap_or_else(|| panic!("{heading}: {}", ended.out)) + 1..].to_vec()
    };
    assert_eq!(
        behind("answer of the target (its beginning)")[0],
        "  answer 404"
    );
    let url = format!(r#"    "targetRestApi": "{}","#, target.url("/x"));
    let message = behind("message");
    assert_eq!(
        message[..3],
        ["  {", &url, r#"    "targetRestApiOperation": "POST","#]
    );
    assert_eq!(
        message[4..6],
        [r#"      "big": 1e400,"#, r#"      "n": 1.10"#]
    );
    assert!(
        ended
            .err
            .contains("note: a strict JSON reader refuses this message"),
        "{}",
        ended.err
    );
    // The first record, which was moved there.
    let first = run(&gateway, &["DataSyncStream/0/0"]).out;
    for line in [
        "  state        moved",
        "  last status  404",
        "  moved to     UnrecoverableErrorStream/0/0",
        "  calls        1",
    ] {
        assert!(first.lines().any(|shown| shown == line), "{line}: {first}");
    }
    assert!(!first.contains("waits for"), "{first}");
    let json = run(&gateway, &["DataSyncStream/0/0", "--output", "json"]).out;
    assert!(
        json.contains(r#""big":1e400"#) && json.lines().count() == 1,
        "{json}"
    );
}

#[tokio::test]
async fn what_is_no_record_is_told_with_what_would_be_one() {
    let gateway = Gateway::start();
    let fails = |arguments: &[&str], code, words: &str| {
        let ended = run(&gateway, arguments);
        assert_eq!((ended.code, &*ended.out), (Some(code), ""), "{arguments:?}");
        assert!(ended.err.contains(words), "{words} is not in {}", ended.err);
    };
    let right = "give STREAM/PARTITION/OFFSET with two numbers, as in DataSyncStream/0/17";
    for wrong in [
        "DataSyncStream/0",
        "DataSyncStream/0/x",
        "DataSyncStream//0",
        "/0/0",
    ] {
        fails(&[wrong], 2, right);
    }
    fails(
        &["DataSyncStream/0/0", "--open"],
        2,
        "go with a stream alone",
    );
    fails(&["DataSyncStream/0/0"], 1, "no record has this offset yet");
    fails(
        &["DataSyncStream/7/0"],
        1,
        "the stream has partitions 0 to 0",
    );
    fails(&["DataSyncStrem/0/0"], 1, "did you mean `DataSyncStream`?");
    fails(&["DataSyncStrem"], 1, "did you mean `DataSyncStream`?");
    fails(&["DataSyncStream", "--limit", "0"], 2, "--limit");
    fails(
        &["DataSyncStream", "--from", "r1"],
        1,
        "this next is damaged",
    );
    let ocid = "ocid1.stream.oc1..xy";
    let made = json!({"name": "Orders", "partitions": 1, "ocid": ocid});
    gateway.post("/v1/streams", &made).await;
    assert!(printed(&gateway, &[ocid]).contains("0 records"));
    fails(
        &[&format!("{ocid}/0/0")],
        1,
        "no record has this offset yet",
    );
}

#[tokio::test]
async fn on_a_terminal_nothing_of_it_is_lost() {
    let target = StubTarget::with(|_| Act::status(404)).await;
    let gateway = four_partitions(&target.url("/x"), 6).await;
    for columns in [80, 200] {
        let on_terminal = |arguments: &[&str]| {
            let mut command = syncgate();
            command
                .arg("records")
                .args(arguments)
                .args(["--url", &gateway.url]);
            let (status, text) = on_terminal(columns, &mut command);
            assert!(status.success(), "{text}");
            text
        };
        let text = on_terminal(&[UNRECOVERABLE]);
        assert!(
            text.contains("PARTITION") && text.contains("STATE"),
            "{text}"
        );
        let lines_of_row = if columns == 80 { 2 } else { 1 };
        assert_eq!(text.lines().count(), 7 * lines_of_row + 1, "{text}");
        assert!(text.contains("s ago)") || text.contains("m ago)"), "{text}");
        assert!(
            text.contains("6 records of 4 partitions, up to the end"),
            "{text}"
        );
        assert!((0..6).all(|n| text.contains(&format!("k{n}"))), "{text}");
        let text = on_terminal(&["UnrecoverableErrorStream/0/0"]);
        assert!(
            text.contains("status 404: the target answered 404 Not Found"),
            "{text}"
        );
        assert!(
            text.contains(r#""targetRestApiOperation": "POST","#),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_reader_that_goes_ends_it_also_while_the_gateway_has_not_answered() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut child = syncgate()
        .args(["records", SOURCE, "--url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (_asked, _) = tokio::task::spawn_blocking(move || silent.accept())
        .await
        .unwrap()
        .unwrap();
    drop(child.stdout.take());
    let status = poll("its end", async || child.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}
