//! Users: the first administrator comes from the environment, and nobody else gets in.

use std::process::Output;

use data_encoding::BASE64;
use reqwest::Method;
use serde_json::json;

use crate::{
    flow::walk,
    testkit::{Answer, Gateway, Place, StubTarget, keyed, message, poll, syncgate},
};

const USER: &str = "ada";
const PASSWORD: &str = "correct h0rse: b\u{e4}ttery";
const OTHER: &str = "another passw0rd";
/// Parts of [`PASSWORD`] and [`OTHER`] that nothing may show.
const TRACES: [&str; 3] = ["h0rse", "passw0rd", "b\u{e4}ttery"];

fn with_users() -> Place {
    Place::new().administrator(USER, PASSWORD)
}

impl Place {
    fn administrator(self, user: &str, password: &str) -> Self {
        self.env("SYNCGATE_ADMIN_USER", user)
            .env("SYNCGATE_ADMIN_PASSWORD", password)
    }
}

impl Gateway {
    async fn get_as(&self, user: &str, password: &str, path: &str) -> Answer {
        let request = self.request(Method::GET, path);
        self.send(request.basic_auth(user, Some(password))).await
    }

    /// Checks that this password, and no other of the test's, lets in.
    async fn lets_in(&self, password: &str) {
        self.get_as(USER, password, "/v1/streams").await.ok();
        for wrong in [PASSWORD, OTHER] {
            if wrong != password {
                let answer = self.get_as(USER, wrong, "/v1/streams").await;
                answer.problem(401, "unauthenticated");
            }
        }
        let answer = self.get("/v1/streams").await;
        answer.problem(401, "unauthenticated");
    }
}

#[track_caller]
fn shows_no_password(what: &str, bytes: &[u8]) {
    for trace in TRACES {
        let found = bytes
            .windows(trace.len())
            .any(|part| part == trace.as_bytes());
        assert!(!found, "{what} shows {trace}");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn what_is_guarded_needs_the_password_and_what_is_public_does_not() {
    let gateway = with_users().start();
    for (method, path, found) in [
        (Method::GET, "/v1/streams", 200),
        (Method::GET, "/v1/ledger", 200),
        (Method::POST, "/v1/reload", 200),
        (Method::GET, "/v1/nowhere", 404),
        (Method::GET, "/services/v2/nowhere", 404),
        (Method::POST, "/stream/retry", 400),
        (Method::GET, "/metrics", 200),
    ] {
        let request = || gateway.request(method.clone(), path).body("{}");
        let answer = gateway.send(request()).await;
        let asks = "Basic realm=\"syncgate\", charset=\"UTF-8\"";
        assert_eq!(answer.headers["www-authenticate"], asks, "{path}");
        answer.problem(401, "unauthenticated");
        for (user, password) in [(USER, OTHER), ("bob", PASSWORD), (USER, "")] {
            let answer = gateway
                .send(request().basic_auth(user, Some(password)))
                .await;
            answer.problem(401, "unauthenticated");
        }
        let answer = gateway
            .send(request().basic_auth(USER, Some(PASSWORD)))
            .await;
        assert_eq!(answer.status, found, "{method} {path}: {}", answer.body);
    }
    gateway.get("/healthz").await.ok();
    gateway.get("/readyz").await.ok();
    let metrics = gateway.get_as(USER, PASSWORD, "/metrics").await.ok();
    let failed = "syncgate_failed_logins_total 21";
    assert!(metrics.as_str().unwrap().contains(failed), "{metrics}");
}

#[tokio::test]
async fn credentials_in_latin_1_are_those_of_the_same_characters() {
    let gateway = with_users().start();
    let ask = async |password: &str| {
        let text = format!("{USER}:{password}");
        let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
        assert!(String::from_utf8(bytes.clone()).is_err());
        let shown = format!("Basic {}", BASE64.encode(&bytes));
        let request = gateway.request(Method::GET, "/v1/streams");
        gateway.send(request.header("authorization", shown)).await
    };
    ask(PASSWORD).await.ok();
    let wrong = PASSWORD.replace('\u{e4}', "\u{e5}");
    ask(&wrong).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_source_needs_no_password_and_its_header_is_the_token_of_the_target() {
    let target = StubTarget::start().await;
    let gateway = with_users().start();
    gateway.sync(&message(&target.url("/x"), json!(1))).await;
    assert_eq!(target.next_call().await.header("authorization"), None);
    let request = gateway.request(Method::POST, "/stream/sync");
    let request = request.basic_auth("of the target", Some("x"));
    let answer = gateway.send(request.json(&message(&target.url("/x"), json!(2))));
    assert_eq!(answer.await.ok()["status"], "success");
    let call = target.next_call().await;
    assert_eq!(
        call.header("authorization"),
        Some("Basic b2YgdGhlIHRhcmdldDp4")
    );
}

#[tokio::test]
async fn the_user_outlives_a_crash_and_the_variables_win_over_what_is_stored() {
    let gateway = with_users().start();
    gateway.lets_in(PASSWORD).await;
    let place = gateway.kill();
    assert_eq!(place.log().matches("administrator made").count(), 1);
    // The same again changes nothing.
    let place = place.start().stop().await;
    assert_eq!(place.log().matches("administrator made").count(), 1);
    assert!(
        !place
            .log()
            .contains("password of the administrator changed")
    );

    let gateway = place.without_variables().start();
    gateway.lets_in(PASSWORD).await;
    let gateway = gateway.stop().await.administrator(USER, OTHER).start();
    gateway.lets_in(OTHER).await;
    let place = gateway.kill();
    let changed = "password of the administrator changed";
    assert_eq!(place.log().matches(changed).count(), 1, "{}", place.log());
    let gateway = place.without_variables().start();
    gateway.lets_in(OTHER).await;
    // Another name is another user, and the first one is told of.
    let place = gateway.stop().await.administrator("bob", PASSWORD);
    let gateway = place.start();
    gateway.lets_in(OTHER).await;
    gateway.get_as("bob", PASSWORD, "/v1/streams").await.ok();
    let log = gateway.place().log();
    assert!(
        log.contains("users stay that SYNCGATE_ADMIN_USER does not name"),
        "{log}"
    );
}

#[tokio::test]
async fn variables_that_are_wrong_refuse_the_start_by_name_and_show_nothing() {
    const BOTH: [&str; 2] = ["SYNCGATE_ADMIN_USER", "SYNCGATE_ADMIN_PASSWORD"];
    for (user, password, expected) in [
        (
            Some(USER),
            None,
            "SYNCGATE_ADMIN_USER: is set, SYNCGATE_ADMIN_PASSWORD is not; set both",
        ),
        (
            None,
            Some(PASSWORD),
            "SYNCGATE_ADMIN_PASSWORD: is set, SYNCGATE_ADMIN_USER is not; set both",
        ),
        (
            Some(""),
            Some(PASSWORD),
            "SYNCGATE_ADMIN_USER: is empty; give",
        ),
        (
            Some("a:b"),
            Some(PASSWORD),
            "SYNCGATE_ADMIN_USER: has a colon",
        ),
        (
            Some("a\tb"),
            Some(PASSWORD),
            "SYNCGATE_ADMIN_USER: has a control character",
        ),
        (
            Some(&*"x".repeat(129)),
            Some(PASSWORD),
            "SYNCGATE_ADMIN_USER: is longer than 128 bytes",
        ),
        (
            Some(USER),
            Some(""),
            "SYNCGATE_ADMIN_PASSWORD: is empty; give",
        ),
        (
            Some(USER),
            Some("h0rse"),
            "SYNCGATE_ADMIN_PASSWORD: is too short; give a password of 12 to 128",
        ),
        (
            Some(USER),
            Some(&*"h0rse".repeat(26)),
            "SYNCGATE_ADMIN_PASSWORD: is too long; give",
        ),
        (
            Some(USER),
            Some("correct h0rse\n"),
            "SYNCGATE_ADMIN_PASSWORD: has a control character",
        ),
    ] {
        let mut place = Place::new();
        let mut check = syncgate();
        check.arg("check");
        for (name, value) in BOTH.iter().zip([user, password]) {
            if let Some(value) = value {
                place = place.env(name, value);
                check.env(name, value);
            }
        }
        for output in [place.start_refused().await, check.output().unwrap()] {
            let said = said(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(expected), "{said}");
            shows_no_password("the refusal", said.as_bytes());
        }
        assert!(
            !place.data().exists(),
            "a start that was refused has made files"
        );
    }
}

#[test]
fn users_do_not_open_the_gateway_to_the_network() {
    let ended = syncgate()
        .args(["serve", "--listen", "0.0.0.0:0"])
        .env("SYNCGATE_ADMIN_USER", USER)
        .env("SYNCGATE_ADMIN_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    assert!(
        said(&ended).contains("is not a loopback address"),
        "{}",
        said(&ended)
    );
}

#[tokio::test]
async fn the_password_is_in_no_log_line_answer_metric_or_file() {
    let target = StubTarget::start().await;
    let place = with_users().configured("[logging]\nlevel = \"trace\"\n");
    let gateway = place.start();
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    target.next_call().await;
    gateway.lets_in(PASSWORD).await;
    // Who mixes the two up finds the password in no log either.
    let swapped = gateway.get_as(PASSWORD, USER, "/v1/streams").await;
    shows_no_password(
        "a refusal",
        swapped
            .problem(401, "unauthenticated")
            .to_string()
            .as_bytes(),
    );
    for path in ["/metrics", "/v1/streams", "/v1/ledger", "/v1/nowhere"] {
        let answer = gateway.get_as(USER, PASSWORD, path).await;
        shows_no_password(path, format!("{answer:?}").as_bytes());
    }
    let gateway = gateway.stop().await.administrator(USER, OTHER).start();
    gateway.lets_in(OTHER).await;
    poll("failed logins in the log", async || {
        let log = gateway.place().log();
        let told = |user: &str| {
            log.lines()
                .any(|line| line.contains("login failed") && line.contains(user))
        };
        told("user=\"ada\"").then_some(())
    })
    .await;
    let place = gateway.stop().await;
    // The level lets through what is said of each refusal.
    assert!(place.log().contains("request refused"), "{}", place.log());
    shows_no_password("the log", place.log().as_bytes());
    let files = walk(&place.data());
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        shows_no_password(&file.display().to_string(), &bytes);
    }
}

#[tokio::test]
async fn commands_ask_as_the_user_of_the_environment_or_of_the_address() {
    let target = StubTarget::start().await;
    let gateway = with_users().start();
    let host = gateway.url.strip_prefix("http://").unwrap().to_owned();
    let run = async |arguments: &[&str], url: &str, login: Option<(&str, &str)>| {
        let mut command = syncgate();
        command.args(arguments).args(["--url", url]);
        if let Some((user, password)) = login {
            command
                .env("SYNCGATE_USER", user)
                .env("SYNCGATE_PASSWORD", password);
        }
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        shows_no_password(&format!("{arguments:?}"), said(&ended).as_bytes());
        (ended.status.code(), said(&ended))
    };
    let with = |user: &str, password: &str| format!("http://{user}:{password}@{host}");
    let right = with(USER, "correct%20h0rse%3A%20b%C3%A4ttery");
    for arguments in [
        &["streams", "ls"][..],
        &["records", "DataSyncStream"],
        &["retry", "ServerUnavailableStream"],
        &["verify"],
        &["reload"],
    ] {
        let (code, said) = run(arguments, &gateway.url, None).await;
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        let how = "error: send the name and the password";
        assert!(said.contains(how), "{arguments:?}: {said}");
        assert!(said.contains("answered 401 unauthenticated"), "{said}");
        assert!(
            said.contains("set SYNCGATE_USER and SYNCGATE_PASSWORD, or"),
            "{said}"
        );
        let (code, said) = run(arguments, &gateway.url, Some((USER, PASSWORD))).await;
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        let (code, said) = run(arguments, &right, Some((USER, OTHER))).await;
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
    }
    let (code, said) = run(&["streams", "ls"], &gateway.url, Some((USER, OTHER))).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the name or the password is wrong"), "{said}");
    // These ask nobody's password, and give it to nobody.
    let (code, said) = run(&["healthcheck"], &gateway.url, None).await;
    assert_eq!(code, Some(0), "{said}");
    let file = gateway.place().path().join("message.json");
    std::fs::write(&file, message(&target.url("/x"), json!(1)).to_string()).unwrap();
    let sync = ["sync", file.to_str().unwrap()];
    let (code, said) = run(&sync, &right, Some((USER, PASSWORD))).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(target.next_call().await.header("authorization"), None);
    // What cannot be asked is told without the password.
    for url in [
        with(USER, "h0rse").replace("http:", "ftp:"),
        format!("http://{USER}:h0rse@["),
    ] {
        let (code, said) = run(&["streams", "ls"], &url, None).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("no address of a gateway"), "{said}");
    }
    let (code, said) = run(&["streams", "ls"], "http://ada:h0rse@127.0.0.1:1", None).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("no gateway answers at http://127.0.0.1:1"),
        "{said}"
    );
}
