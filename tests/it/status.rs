//! `syncgate status`: one look says what is wrong, and the command that it prints puts it right.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, ExitStatus, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{
    Act, Gateway, StubTarget, keyed, message, on_terminal, on_terminal_of, poll, syncgate, within,
};

const UNAVAILABLE: &str = "ServerUnavailableStream";
const UNRECOVERABLE: &str = "UnrecoverableErrorStream";

fn status(gateway: &Gateway) -> Command {
    let mut command = syncgate();
    command.args(["status", "--url", &gateway.url]);
    // Colours have no width, and are no words.
    command.env("NO_COLOR", "1");
    command
}

/// Runs the command on a terminal of so many columns.
async fn look(gateway: &Gateway, columns: u16) -> (ExitStatus, String) {
    let mut command = status(gateway);
    let looking = tokio::task::spawn_blocking(move || on_terminal(columns, &mut command));
    within("a look", looking).await.unwrap()
}

/// The same on a terminal of so many lines.
async fn look_on(gateway: &Gateway, columns: u16, lines: u16) -> String {
    let mut command = status(gateway);
    let looking = tokio::task::spawn_blocking(move || on_terminal_of(columns, lines, &mut command));
    within("a look", looking).await.unwrap().1
}

/// Looks until all is well: a report may be half a second old.
async fn until_well(gateway: &Gateway) -> String {
    poll("all to be well", async || {
        let (ended, page) = look(gateway, 80).await;
        ended.success().then_some(page)
    })
    .await
}

#[track_caller]
fn check_fits(page: &str, columns: usize) {
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(columns), "{widest:?}\n{page}");
    // The last line is the prompt's.
    assert!(page.lines().count() < 50, "{page}");
}

/// Returns the first command that a page prints, from its lines.
#[track_caller]
fn command(page: &str) -> String {
    let mut lines = page
        .lines()
        .skip_while(|line| !line.starts_with("   syncgate "));
    let mut command = String::new();
    loop {
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no command in\n{page}"));
        match line.strip_suffix('\\') {
            Some(begun) => command += begun,
            None => return command + line,
        }
    }
}

/// Runs a command as a person does that copies it into a shell.
async fn in_a_shell(command: String) -> (ExitStatus, String) {
    let program = syncgate();
    let program = std::path::Path::new(program.get_program());
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let ran = tokio::task::spawn_blocking(move || {
        let ran = Command::new("sh")
            .arg("-c")
            .arg(command)
            .env("PATH", path)
            .output();
        let ran = ran.expect("a shell");
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status, String::from_utf8(said).expect("text"))
    });
    within("a command", ran).await.unwrap()
}

/// As an engineer on call sees it at night: four partitions, 56 open records, one of three targets is down.
#[tokio::test]
async fn one_look_says_which_target_is_down_and_the_command_that_it_prints_delivers_everything() {
    let down = StubTarget::with(|_| Act::Bare(503)).await;
    let (one, other) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Gateway::start();
    let grow = gateway.request(Method::PATCH, "/v1/streams/DataSyncStream");
    gateway
        .send(grow.json(&json!({"partitions": 4})))
        .await
        .ok();
    let lost = (0..56).map(|n| {
        keyed(
            &format!("k{n}"),
            &down.url("/orders?token=very-secret"),
            json!(n),
        )
    });
    let good = (0..20).map(|n| keyed(&format!("k{n}"), &one.url("/"), json!(n)));
    let more = (0..20).map(|n| message(&other.url("/"), json!(n)));
    let messages: Vec<Value> = lost.chain(good).chain(more).collect();
    gateway.sync_all(&messages).await;
    poll("56 records in the error stream", async || {
        (gateway.count(UNAVAILABLE, "open").await == 56).then_some(())
    })
    .await;
    gateway.drained("DataSyncStream").await;

    let target = format!("http://127.0.0.1:{}", down.port());
    // A report may be half a second old.
    let page = poll("56 records on the page", async || {
        let (ended, page) = look(&gateway, 80).await;
        assert_eq!(ended.code(), Some(1), "{page}");
        page.contains("56 records").then_some(page)
    })
    .await;
    check_fits(&page, 80);
    assert!(page.starts_with("1 problem\n"), "{page}");
    let problem: Vec<_> = page
        .lines()
        .skip(3)
        .take_while(|line| !line.is_empty())
        .collect();
    let problem = problem
        .join(" ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for part in [
        &*format!("1 {target} "),
        "(503)",
        "56 records wait in ServerUnavailableStream.",
        "Once it answers, deliver them:",
        "syncgate retry ServerUnavailableStream --loop",
        "since 20",
        "the target answered 503 Service Unavailable",
    ] {
        assert!(
            problem.contains(part),
            "{part:?} is not in {problem:?}\n{page}"
        );
    }
    assert!(!page.contains("secret"), "{page}");
    let rows = |target: u16| {
        let target = format!("http://127.0.0.1:{target} ");
        let rows = page.lines().filter(|line| line.starts_with(&target));
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    for (port, state) in [(one.port(), " closed "), (other.port(), " closed ")] {
        let rows = rows(port);
        assert!(
            rows.len() == 1 && rows[0].contains(state),
            "{rows:?}\n{page}"
        );
    }
    assert!(!rows(down.port())[0].contains("closed"), "{page}");
    let open = page
        .lines()
        .find(|line| line.starts_with(UNAVAILABLE))
        .unwrap();
    let open: Vec<_> = open.split_whitespace().collect();
    assert_eq!(open[..4], [UNAVAILABLE, &target, "503", "56"], "{page}");

    // In a pipe nothing is cut, and the same is there as JSON.
    let (ended, piped) = in_a_shell(format!("syncgate status --url {}", gateway.url)).await;
    assert_eq!(ended.code(), Some(1));
    assert!(
        piped.contains(&format!(
            "(503): 56 records wait in {UNAVAILABLE}. Once it answers, deliver them:\n"
        )),
        "{piped}"
    );
    let ask = format!("syncgate status --output json --url {}", gateway.url);
    let json = poll("a whole count", async || {
        let (_, json) = in_a_shell(ask.clone()).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        (json["openRecords"]["complete"] == true).then_some(json)
    })
    .await;
    assert_eq!(
        (&json["verdict"], &json["problems"][0]["code"]),
        (&json!("problems"), &json!("target_open")),
        "{json}"
    );
    assert_eq!(
        (&json["open"][0]["count"], &json["openRecords"]["count"]),
        (&json!(56), &json!(56))
    );
    let (ended, wide) = look(&gateway, 200).await;
    assert_eq!(ended.code(), Some(1));
    check_fits(&wide, 200);
    assert!(
        wide.lines().count() < page.lines().count(),
        "{wide}\n{page}"
    );

    // It is up again, and the command is the one that was printed.
    down.now(|_| Act::Bare(200));
    let next = command(&page);
    let (ended, said) = in_a_shell(next.clone()).await;
    assert!(ended.success(), "{next}\n{said}");
    let well = until_well(&gateway).await;
    assert!(well.starts_with("all is well\n"), "{well}");
    assert_eq!(gateway.count(UNAVAILABLE, "open").await, 0);
    let delivered = down
        .answered()
        .iter()
        .filter(|(_, status)| *status == 200)
        .count();
    assert_eq!(delivered, 56);
}

#[tokio::test]
async fn a_fresh_gateway_is_well_in_one_line_and_on_one_screen() {
    let gateway = Gateway::start();
    for columns in [80, 200] {
        let (ended, page) = look(&gateway, columns).await;
        assert!(ended.success(), "{page}");
        assert!(page.starts_with("all is well\nsyncgate "), "{page}");
        check_fits(&page, columns.into());
        for fact in [
            "disk     ",
            "journal  running, ",
            "ledger   balanced",
            "readers  dispatch 0 behind",
        ] {
            assert!(
                page.lines().any(|line| line.starts_with(fact)),
                "{fact}: {page}"
            );
        }
    }
    let answer = gateway.get("/v1/status").await.ok();
    assert_eq!(
        (&answer["verdict"], &answer["problems"]),
        (&json!("well"), &json!([]))
    );
    assert!(answer["disk"]["freeBytes"].as_u64() > Some(0), "{answer}");
    assert!(answer["journal"]["bytes"].as_u64() > Some(0), "{answer}");
    let data = std::path::absolute(gateway.place().data()).unwrap();
    assert_eq!(answer["disk"]["dir"], data.to_str().unwrap());
    assert_eq!(
        answer["readers"][0],
        json!({
            "kind": "dispatch", "stream": "DataSyncStream", "partition": "0", "lag": 0, "oldest": null
        })
    );
    // No gateway at all is no page.
    let nobody = "syncgate status --url http://127.0.0.1:1".to_owned();
    let (ended, said) = in_a_shell(nobody).await;
    assert_eq!(ended.code(), Some(1));
    assert!(said.starts_with("error: no gateway answers"), "{said}");
}

/// Breakers are in memory; open records are in the log.
#[tokio::test]
async fn what_is_open_is_shown_after_a_restart_with_the_command_that_says_why() {
    let target = StubTarget::by_path().await;
    let gateway = Gateway::start();
    gateway
        .sync(&message(&target.url("/status/404"), json!(1)))
        .await;
    gateway.record(UNRECOVERABLE, 1).await;
    let gateway = gateway.stop().await.start();
    let (ended, page) = look(&gateway, 80).await;
    assert_eq!(ended.code(), Some(1), "{page}");
    check_fits(&page, 80);
    for part in [
        "1 record waits in UnrecoverableErrorStream",
        "would fail again",
        "the target answered 404",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let (ended, said) = in_a_shell(command(&page)).await;
    assert!(ended.success(), "{said}");
    assert!(said.contains("404"), "{said}");
    let purge = json!({"reason": "it is known"});
    gateway
        .post(&format!("/v1/streams/{UNRECOVERABLE}/purge"), &purge)
        .await
        .ok();
    until_well(&gateway).await;
}

#[tokio::test]
async fn a_page_stays_one_screen_whatever_is_wrong() {
    let name = |at: usize| format!("A{at}-{}", "long".repeat(14));
    let config = |at: usize| {
        let streams = (0..12).map(|at| format!("[[streams]]\nname = \"{}\"\n", name(at)));
        format!(
            "{}[outcomes]\n404 = \"{}\"\n",
            streams.collect::<String>(),
            name(at)
        )
    };
    let gateway = Gateway::with_config(&config(0));
    for at in 0..12 {
        gateway.reload(&config(at)).await.ok();
        let target = StubTarget::by_path().await;
        let lost = message(&target.url("/status/404"), json!(1));
        gateway.sync(&lost).await;
        gateway.record(&name(at), 1).await;
    }
    let page = poll("twelve problems", async || {
        let (_, page) = look(&gateway, 80).await;
        page.starts_with("12 problems, the worst first\n")
            .then_some(page)
    })
    .await;
    check_fits(&page, 80);
    // A command is whole, however long it is.
    let (ended, said) = in_a_shell(command(&page)).await;
    assert!(ended.success() && said.contains("404"), "{said}");
    // Tables get the lines that problems leave, and the last line says how to see what is missing.
    let commands = |page: &str| page.matches("\n   syncgate ").count();
    let tables = |page: &str| page.contains("\nTARGET ") || page.contains("\nOPEN IN ");
    for (lines, problems) in [(24, 1), (40, 3), (50, 5)] {
        let page = look_on(&gateway, 80, lines).await;
        assert!(page.lines().count() < usize::from(lines), "{lines}: {page}");
        assert!(commands(&page) >= problems, "{lines}: {page}");
        let rest = format!("\nand {} more problems\n", 12 - commands(&page));
        assert!(page.contains(&rest), "{lines}: {page}");
        let hint = "(cut to this terminal; all of it: syncgate status --url http";
        let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(hint), "{lines}: {page}");
    }
    // In a longer terminal the tables have what is left.
    let long = look_on(&gateway, 200, 90).await;
    assert_eq!(commands(&long), 12, "{long}");
    assert!(long.lines().count() < 90 && tables(&long), "{long}");
    // In a pipe all is there, and nothing says otherwise.
    let (_, piped) = in_a_shell(format!("syncgate status --url {}", gateway.url)).await;
    assert_eq!((commands(&piped), tables(&piped)), (12, true), "{piped}");
    let whole = |line: &&str| line.starts_with("http://") && line.contains("closed");
    assert_eq!(piped.lines().filter(whole).count(), 12, "{piped}");
    assert!(
        !piped.contains("more") && !piped.contains("cut to"),
        "{piped}"
    );
}

/// A retry of a group has passed some records that another one delivered since: they are settled.
#[tokio::test]
async fn a_group_is_not_behind_over_records_that_have_an_end() {
    let target = StubTarget::with(|_| Act::Bare(404)).await;
    let gateway = Gateway::start();
    let lost: Vec<_> = (0..5)
        .map(|n| message(&target.url("/x"), json!(n)))
        .collect();
    gateway.sync_all(&lost).await;
    gateway.record(UNRECOVERABLE, 5).await;
    let first = json!({
        "streamOCIDToRetry": UNRECOVERABLE, "noOfMessagesToProcess": 1, "readPartition": "0", "group": "cron"
    });
    target.now(|_| Act::Bare(200));
    gateway.post("/stream/retry", &first).await.ok();
    let (_, page) = look(&gateway, 200).await;
    assert!(
        page.contains("group cron of UnrecoverableErrorStream 4 behind"),
        "{page}"
    );
    gateway.retry(UNRECOVERABLE, -1, 100).await;
    let well = until_well(&gateway).await;
    assert!(!well.contains(" 4 behind"), "{well}");
    let stream = gateway
        .get(&format!("/v1/streams/{UNRECOVERABLE}"))
        .await
        .ok();
    let reader = json!([{"kind": "retry", "name": "cron", "lag": 0}]);
    assert_eq!(stream["readers"], reader);
    // It is called as in `retry --group cron` everywhere.
    let url = &gateway.url;
    let (_, shown) = in_a_shell(format!("syncgate streams show {UNRECOVERABLE} --url {url}")).await;
    assert!(shown.contains("\ngroup cron "), "{shown}");
    assert!(
        !shown.contains("ROUTED") && !shown.contains("retry"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_retry_that_runs_is_shown_and_the_next_step_is_to_wait_for_it() {
    let target = StubTarget::with(|_| Act::Bare(404)).await;
    let gateway = Gateway::start();
    let lost: Vec<_> = (0..3)
        .map(|n| keyed("k", &target.url("/x"), json!(n)))
        .collect();
    gateway.sync_all(&lost).await;
    gateway.record(UNRECOVERABLE, 3).await;
    target.now(|_| Act::Hang);
    let retry = gateway.retry(UNRECOVERABLE, -1, 100);
    let looks = async {
        let page = poll("a retry on the page", async || {
            let (ended, page) = look(&gateway, 80).await;
            assert_eq!(ended.code(), Some(1), "{page}");
            page.contains("\nretry ").then_some(page)
        })
        .await;
        check_fits(&page, 80);
        let line = page
            .lines()
            .find(|line| line.starts_with("retry "))
            .unwrap();
        let begins = "retry    of UnrecoverableErrorStream, 0 of 3 records done, since ";
        assert!(
            line.starts_with(begins) && line.contains(" by 127."),
            "{page}"
        );
        assert!(page.contains("A retry of them runs; wait"), "{page}");
        let next = command(&page);
        assert!(next.trim().starts_with("syncgate status --watch"), "{page}");
        let status = gateway.get("/v1/status").await.ok();
        let running = &status["retries"][0];
        assert_eq!(
            (&running["stream"], &running["total"]),
            (&json!(UNRECOVERABLE), &json!(3))
        );
    };
    tokio::select! {
        _ = retry => unreachable!("its target does not answer"),
        () = looks => {}
    }
}

#[tokio::test]
async fn the_columns_are_explained() {
    for (command, columns) in [
        (
            "status",
            &["PENDING", "FAILED", "OLDEST", "LAST CAUSE", "FIRST"][..],
        ),
        (
            "streams show",
            &["EARLIEST", "MOVED", "DISCARDED", "EXPIRED", "LAG"],
        ),
    ] {
        let (ended, help) = in_a_shell(format!("syncgate {command} --help")).await;
        assert!(ended.success(), "{help}");
        for column in columns {
            assert!(help.contains(column), "{column}: {help}");
        }
    }
}

#[tokio::test]
async fn a_watch_in_a_pipe_prints_one_report_behind_the_other_until_its_reader_has_gone() {
    let gateway = Gateway::start();
    let mut command = status(&gateway);
    command
        .args(["--watch", "--output", "json"])
        .stdout(Stdio::piped());
    let mut watch = command.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let read = tokio::task::spawn_blocking(move || {
        for _ in 0..2 {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(line["verdict"], "well");
        }
    });
    within("two reports", read).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || watch.wait().unwrap());
    assert!(
        within("the end of the watch", ended)
            .await
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn a_watch_goes_on_while_the_gateway_is_away() {
    let gateway = Gateway::start();
    let mut command = status(&gateway);
    command
        .arg("--watch")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut watch = command.spawn().unwrap();
    // The pipes stay open: a watch whose reader has gone ends.
    let first_line = |pipe: Box<dyn Read + Send>| {
        let mut lines = BufReader::new(pipe).lines();
        let read = move || (lines.next().unwrap().unwrap(), lines);
        within("a line", tokio::task::spawn_blocking(read))
    };
    let out = first_line(Box::new(watch.stdout.take().unwrap()));
    let (page, _out) = out.await.unwrap();
    assert_eq!(page, "all is well");
    let _place = gateway.kill();
    let err = first_line(Box::new(watch.stderr.take().unwrap()));
    let (said, _err) = err.await.unwrap();
    let away = "warning: no gateway answers at http://127.0.0.1:";
    assert!(said.starts_with(away), "{said}");
    assert_eq!(watch.try_wait().unwrap(), None);
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[tokio::test]
async fn a_watch_on_a_terminal_draws_over_the_last_page_until_ctrl_c() {
    let gateway = Gateway::start();
    let pid = gateway.place().path().join("pid");
    let script = format!(
        "echo $$ > {}; exec {} status --watch --url {}",
        pid.display(),
        syncgate().get_program().to_str().unwrap(),
        gateway.url
    );
    let watch = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("sh");
        on_terminal(80, command.arg("-c").arg(script).env("NO_COLOR", "1"))
    });
    // The third look is after the second page was drawn.
    poll("three looks", async || {
        let metrics = gateway.get("/metrics").await.ok();
        let count = "syncgate_http_request_seconds_count{route=\"/v1/status\"} ";
        let mut lines = metrics.as_str().unwrap().lines();
        let looks: u64 = lines
            .find_map(|line| line.strip_prefix(count))?
            .parse()
            .ok()?;
        (looks >= 3).then_some(())
    })
    .await;
    let number = std::fs::read_to_string(&pid).unwrap();
    let sent = Command::new("kill").args(["-INT", number.trim()]).status();
    assert!(sent.unwrap().success());
    let (ended, drawn) = within("the end of the watch", watch).await.unwrap();
    assert!(ended.success(), "{ended} {drawn:?}");
    assert!(
        drawn.starts_with("\u{1b}[2J\u{1b}[Hall is well\u{1b}[K\n"),
        "{drawn:?}"
    );
    assert!(drawn.matches("\u{1b}[H").count() >= 2, "{drawn:?}");
}
