//! Every `curl` of the README is run, in order, against one gateway, and answers as the README says. Those of the chapter
//! on users have a gateway of their own, which is started with the variables that stand there.
//!
//! A block of ```` ```sh ```` that begins with `curl`, followed by a block of ```` ```json ```` (or ```` ```text ````), is an
//! example. In the answer `"…"` stands for any text, `…` as a number's place (`"…#"`) for any number. An object has all
//! members of the answer, or says with a member `"…": "…"` that some are left out.

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, Place, StubTarget};

struct Example {
    line: usize,
    /// It stands in the chapter on users.
    of_users: bool,
    command: String,
    answer: Option<String>,
}

fn examples(readme: &str) -> Vec<Example> {
    let (mut all, mut lines): (Vec<Example>, _) =
        (Vec::new(), readme.lines().enumerate().peekable());
    let mut of_users = false;
    while let Some((number, line)) = lines.next() {
        if let Some(chapter) = line.strip_prefix("## ") {
            of_users = chapter == "Users";
        }
        let kind = line.trim();
        if !matches!(kind, "```sh" | "```json" | "```text") {
            continue;
        }
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| line.trim() != "```")
            .collect();
        let body = body.join("\n");
        match kind {
            "```sh" if body.starts_with("curl") => all.push(Example {
                line: number + 1,
                of_users,
                command: body,
                answer: None,
            }),
            "```json" | "```text" => {
                if let Some(last) = all.last_mut()
                    && last.answer.is_none()
                {
                    last.answer = Some(body);
                }
            }
            _ => {}
        }
    }
    all
}

/// Splits as a shell does: blanks, single and double quotes, a backslash at the end of a line.
pub(crate) fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    let command = command.replace("\\\n", " ");
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, any) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (None, c) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

pub(crate) async fn run(gateway: &Gateway, command: &str) -> (u16, String) {
    let mut words = words(command).into_iter().skip(1);
    let (mut method, mut headers, mut body, mut url) = (None, Vec::new(), None::<String>, None);
    let mut login = None;
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .unwrap_or_else(|| panic!("{word} of {command} has no value"))
        };
        match word.as_str() {
            "-X" => method = Some(value()),
            "-H" => headers.push(value()),
            "-u" => login = Some(value()),
            "-d" | "--data-binary" => body = Some(value()),
            "-s" | "-S" | "-i" | "-sS" => {}
            "-G" => method = Some("GET".into()),
            other if other.starts_with("http") => url = Some(other.to_owned()),
            other => panic!("{other} of {command} is not known to this test"),
        }
    }
    let method = method.unwrap_or_else(|| {
        if body.is_some() {
            "POST".into()
        } else {
            "GET".into()
        }
    });
    let url = url.unwrap_or_else(|| panic!("no URL in {command}"));
    let path = url
        .split_once("//")
        .unwrap()
        .1
        .split_once('/')
        .map_or(String::new(), |(_, path)| path.to_owned());
    let mut request = gateway.request(
        Method::from_bytes(method.as_bytes()).unwrap(),
        &format!("/{path}"),
    );
    for header in headers {
        let (name, value) = header.split_once(':').unwrap();
        request = request.header(name.trim(), value.trim());
    }
    if let Some((user, password)) = login.as_ref().and_then(|login| login.split_once(':')) {
        request = request.basic_auth(user, Some(password));
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// A member of an object that stands for members that are left out.
const REST: &str = "…";

/// Returns where `actual` is not what `expected` says.
pub(crate) fn difference(expected: &Value, actual: &Value, at: &str) -> Option<String> {
    match (expected, actual) {
        (Value::String(any), Value::String(_)) if any == "…" => None,
        (Value::String(any), Value::Number(_)) if any == "…#" => None,
        (Value::String(pattern), Value::String(text)) if pattern.contains('…') => {
            let mut rest = text.as_str();
            for part in pattern.split('…') {
                match rest.find(part) {
                    Some(found) => rest = &rest[found + part.len()..],
                    None => return Some(format!("{at}: {text:?} does not fit {pattern:?}")),
                }
            }
            None
        }
        (Value::Object(expected), Value::Object(actual)) => {
            let is_whole = !expected.contains_key(REST);
            let left_out = actual.keys().filter(|name| !expected.contains_key(*name));
            let left_out: Vec<_> = left_out.collect();
            if is_whole != left_out.is_empty() {
                return Some(format!(
                    "{at}: the README leaves out {left_out:?}; \"…\" says so: {}",
                    !is_whole
                ));
            }
            let named = expected.iter().filter(|(name, _)| *name != REST);
            named.into_iter().find_map(|(name, expected)| {
                let at = format!("{at}/{name}");
                match actual.get(name) {
                    Some(actual) => difference(expected, actual, &at),
                    None => Some(format!("{at} is missing")),
                }
            })
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if expected.last() != Some(&Value::String("…".into())) && expected.len() != actual.len()
            {
                return Some(format!(
                    "{at}: {} items, the text has {}",
                    actual.len(),
                    expected.len()
                ));
            }
            expected
                .iter()
                .zip(actual)
                .enumerate()
                .find_map(|(n, (expected, actual))| match expected {
                    Value::String(rest) if rest == "…" => None,
                    expected => difference(expected, actual, &format!("{at}/{n}")),
                })
        }
        (expected, actual) if expected == actual => None,
        (expected, actual) => Some(format!("{at}: {actual}, the text has {expected}")),
    }
}

#[tokio::test]
async fn every_example_answers_as_the_readme_says() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let target = StubTarget::with(|call| match call.path.as_str() {
        "/latest/down" => Act::Bare(503),
        "/latest/refused" => Act::Bare(404),
        _ => Act::Bare(200),
    })
    .await;
    let gateway = Gateway::start();
    let exports = readme.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        Some((name, value.trim_matches('\'')))
    });
    let with_users = exports.fold(Place::new(), |place, (name, value)| place.env(name, value));
    let with_users = with_users.start();
    let examples = examples(&readme);
    assert!(
        examples.len() >= 15,
        "only {} examples were found",
        examples.len()
    );
    let mut differences = Vec::new();
    for Example {
        line,
        of_users,
        command,
        answer,
    } in examples
    {
        // A reader takes longer than the dispatch of what the last example has posted.
        gateway.drained("DataSyncStream").await;
        // The README's target listens on a fixed port.
        let command = command.replace("http://127.0.0.1:9003", &target.url(""));
        let asked = if of_users { &with_users } else { &gateway };
        let (status, body) = run(asked, &command).await;
        let answer = answer.unwrap_or_else(|| panic!("README.md:{line} shows no answer"));
        assert!(status < 500, "README.md:{line}: {status} {body}");
        match serde_json::from_str::<Value>(
            &answer.replace("http://127.0.0.1:9003", &target.url("")),
        ) {
            Ok(expected) => {
                let actual = serde_json::from_str(&body)
                    .unwrap_or_else(|_| panic!("README.md:{line}: {status} {body}"));
                if let Some(difference) = difference(&expected, &actual, "") {
                    differences.push(format!("README.md:{line}: {difference}: {status} {body}"));
                }
            }
            Err(_) => {
                for part in answer.split('…').map(str::trim) {
                    assert!(
                        body.contains(part),
                        "README.md:{line}: {part:?} is not in {body}"
                    );
                }
            }
        }
        gateway.drained("DataSyncStream").await;
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn an_answer_is_shown_whole_or_says_that_it_is_not() {
    let actual = json!({"a": 1, "b": {"c": 2, "d": 3}});
    for (shown, is_right) in [
        (json!({"a": 1, "b": {"c": 2, "d": 3}}), true),
        (json!({"a": 1, "b": {"c": 2, "…": "…"}}), true),
        (json!({"b": {"d": 3, "…": "…"}, "…": "…"}), true),
        (json!({"a": 1, "b": {"c": 2}}), false),
        (json!({"a": 1}), false),
        // Nothing is left out.
        (json!({"a": 1, "b": {"c": 2, "d": 3}, "…": "…"}), false),
        (json!({"a": 1, "b": {"c": 2, "e": 3, "…": "…"}}), false),
        (json!({"a": 2, "…": "…"}), false),
    ] {
        let found = difference(&shown, &actual, "");
        assert_eq!(found.is_none(), is_right, "{shown}: {found:?}");
    }
}
