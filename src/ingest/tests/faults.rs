//! Faults of submissions: their codes and pointers.

use super::*;
use crate::json::faults::DEPTH_MAX;

#[track_caller]
fn check(bench: &Bench, body: &str, expected: &[(&str, FieldCode)]) {
    let read = bench.ingest.limits.get().read(body.as_bytes(), Form::Json);
    let found = read.err().map(faults).unwrap_or_default();
    let found: Vec<_> = found.iter().map(|(at, code)| (&**at, *code)).collect();
    assert_eq!(found, expected, "{body}");
}

#[tokio::test]
async fn each_fault_has_its_code_and_its_pointer() {
    use FieldCode::*;
    let bench = bench(1, |_| {}).await;
    check(&bench, GOOD, &[]);
    for (body, code) in [
        ("", WrongType),
        ("{", WrongType),
        ("\"x\"", WrongType),
        ("null", WrongType),
        ("{}x", WrongType),
    ] {
        check(&bench, body, &[("", code)]);
    }
    check(&bench, "{}", &[("/streamMessage", Required)]);
    check(&bench, &with(r#""key1""#, "null"), &[]);
    check(
        &bench,
        &with(r#""key1""#, "17"),
        &[("/streamKey", WrongType)],
    );
    check(&bench, &with("key1", &"k".repeat(256)), &[]);
    check(
        &bench,
        &with("key1", &"k".repeat(257)),
        &[("/streamKey", TooLong)],
    );
    check(
        &bench,
        &with(r#"{"streamKey""#, r#"{"x/~y":1,"streamKey""#),
        &[("/x~1~0y", UnknownMember)],
    );
    check(
        &bench,
        r#"{"streamMessage":[]}"#,
        &[("/streamMessage", WrongType)],
    );
    check(
        &bench,
        r#"{"streamMessage":null}"#,
        &[("/streamMessage", WrongType)],
    );
    check(
        &bench,
        r#"{"streamMessage":{}}"#,
        &[
            ("/streamMessage/targetRestApi", Required),
            ("/streamMessage/targetRestApiOperation", Required),
        ],
    );
    // Unknown members of the message are kept and ignored.
    check(&bench, &with(r#"{"vault"#, r#"{"more":[1,{}],"vault"#), &[]);
    let url = |text: &str| with("http://127.0.0.1:9/orders", text);
    let at = "/streamMessage/targetRestApi";
    check(&bench, &url("ftp://a/"), &[(at, SchemeNotAllowed)]);
    for bad in [
        "",
        "orders",
        "//a/b",
        "http://",
        r"http://a/\r\nHost: b",
        r"http://a/\u0000",
        "http://u:p@a/",
    ] {
        check(&bench, &url(bad), &[(at, UrlInvalid)]);
    }
    check(
        &bench,
        &url(&format!("http://a/{}", "x".repeat(9000))),
        &[(at, TooLong)],
    );
    check(
        &bench,
        &with(r#""http://127.0.0.1:9/orders""#, "7"),
        &[(at, WrongType)],
    );
    let at = "/streamMessage/targetRestApiOperation";
    for good in ["PUT", "PATCH", "DELETE", "GET"] {
        check(&bench, &with("POST", good), &[]);
    }
    for bad in ["post", "HEAD", "", "POST ", "CONNECT"] {
        check(&bench, &with("POST", bad), &[(at, MethodNotAllowed)]);
    }
    check(&bench, &with(r#""POST""#, "null"), &[(at, WrongType)]);
    let at = "/streamMessage/vaultSecretName";
    check(&bench, &with(r#""789""#, "null"), &[]);
    check(&bench, &with("789", ""), &[]);
    check(&bench, &with(r#""789""#, "789"), &[(at, WrongType)]);
    for bad in ["a b", "a/b", "ä", &"x".repeat(256)] {
        check(&bench, &with("789", bad), &[(at, SecretNameInvalid)]);
    }
    let headers = |text: &str| {
        with(
            r#"[{"key":"Content-Type","value":"application/json"}]"#,
            text,
        )
    };
    let at = "/streamMessage/targetRestApiHeaders";
    for good in [
        "[]",
        "null",
        r#"[{"key":"a","value":"b"},{"key":"a","value":"ü","x":1}]"#,
    ] {
        check(&bench, &headers(good), &[]);
    }
    check(&bench, &headers("{}"), &[(at, WrongType)]);
    let entry = |entry: &str| headers(&format!("[{{\"key\":\"ok\",\"value\":\"\"}},{entry}]"));
    let at = |member: &str| format!("/streamMessage/targetRestApiHeaders/1{member}");
    check(&bench, &entry("1"), &[(&at(""), WrongType)]);
    check(&bench, &entry(r#"["a","b"]"#), &[(&at(""), WrongType)]);
    check(
        &bench,
        &entry("{}"),
        &[(&at("/key"), Required), (&at("/value"), Required)],
    );
    check(
        &bench,
        &entry(r#"{"key":1,"value":2}"#),
        &[(&at("/key"), WrongType), (&at("/value"), WrongType)],
    );
    for bad in [r"a\r\nb", r"\u0000", "", "a b", "ä"] {
        check(
            &bench,
            &entry(&format!(r#"{{"key":"{bad}","value":""}}"#)),
            &[(&at("/key"), HeaderInvalid)],
        );
    }
    for bad in [r"a\r\nX: b", r"a\nb", r"\u0000", r"\u007f"] {
        check(
            &bench,
            &entry(&format!(r#"{{"key":"x","value":"{bad}"}}"#)),
            &[(&at("/value"), HeaderInvalid)],
        );
    }
    for bad in [
        "Host",
        "content-length",
        "Connection",
        "TE",
        "Upgrade",
        "transfer-encoding",
    ] {
        check(
            &bench,
            &entry(&format!(r#"{{"key":"{bad}","value":""}}"#)),
            &[(&at("/key"), HeaderHopByHop)],
        );
    }
    let long = format!(r#"{{"key":"x","value":"{}"}}"#, "v".repeat(16 << 10));
    check(
        &bench,
        &entry(&long),
        &[("/streamMessage/targetRestApiHeaders", TooLong)],
    );
    // A repeated member is ambiguous.
    check(
        &bench,
        r#"{"streamKey":"a","streamKey":"b","streamMessage":1}"#,
        &[("/streamKey", WrongType), ("/streamMessage", WrongType)],
    );
    check(
        &bench,
        &with(r#"{"vault"#, r#"{"targetRestApi":"http://evil/","vault"#),
        &[("/streamMessage/targetRestApi", WrongType)],
    );
}

#[tokio::test]
async fn all_faults_come_at_once_and_none_quotes_a_value() {
    let bench = bench(1, |_| {}).await;
    let body = r#"{"streamKey":[],"TOPSECRET":1,"streamMessage":{"vaultSecretName":"TOP SECRET","targetRestApi":"TOPSECRET","targetRestApiOperation":"TOPSECRET","targetRestApiHeaders":[{"key":"TOP SECRET","value":"TOPSECRET\n"}]}}"#;
    let Err(Error::Invalid(errors)) = bench.json(body).await else {
        panic!();
    };
    assert_eq!(errors.len(), 7);
    assert!(
        errors.iter().all(|error| !error.detail.contains("SECRET")),
        "{errors:?}"
    );
}

#[tokio::test]
async fn bytes_that_are_not_utf8_and_json_that_is_too_deep_are_refused() {
    let bench = bench(1, |_| {}).await;
    let mut body = GOOD.as_bytes().to_vec();
    body[20] = 0xff;
    assert_eq!(
        faults(bench.json(body).await.unwrap_err()),
        [(String::new(), FieldCode::NotUtf8)]
    );
    // The message, its envelope, and this number of arrays in the payload.
    let nested = |depth: usize| {
        let payload = "[".repeat(depth) + &"]".repeat(depth);
        with(r#"{"orderid":"18jan","n": 1.10}"#, &payload)
    };
    bench.json(nested(DEPTH_MAX - 2)).await.unwrap();
    bench
        .json(format!("[{}]", nested(DEPTH_MAX - 2)))
        .await
        .unwrap();
    for body in [
        nested(DEPTH_MAX - 1),
        nested(10_000),
        "[".repeat(10_000),
        format!("[{}]", nested(DEPTH_MAX - 1)),
    ] {
        assert_eq!(
            faults(bench.json(body).await.unwrap_err()),
            [(String::new(), FieldCode::TooLong)]
        );
    }
    let lines = format!("{GOOD}\n{}", nested(10_000));
    let refused = bench.send(Form::Lines, None, lines).await.unwrap_err();
    assert_eq!(faults(refused), [(String::new(), FieldCode::TooLong)]);
}

#[tokio::test]
async fn one_bad_message_refuses_its_whole_batch() {
    let bench = bench(1, |_| {}).await;
    let bad = with(r#""targetRestApi":"http://127.0.0.1:9/orders","#, "");
    let expected = [(
        "/2/streamMessage/targetRestApi".to_owned(),
        FieldCode::Required,
    )];
    let array = format!("[{GOOD},{GOOD},{bad}]");
    assert_eq!(faults(bench.json(array).await.unwrap_err()), expected);
    let lines = format!("{GOOD}\n\n{GOOD}\n{bad}\n{{");
    let refused = bench.send(Form::Lines, None, lines).await.unwrap_err();
    assert_eq!(
        faults(refused),
        [expected[0].clone(), ("/3".into(), FieldCode::WrongType)]
    );
    for empty in ["[]", " [ ] "] {
        assert_eq!(
            faults(bench.json(empty).await.unwrap_err()),
            [(String::new(), FieldCode::Required)]
        );
    }
    let refused = bench.send(Form::Lines, None, "\n \n").await.unwrap_err();
    assert_eq!(faults(refused), [(String::new(), FieldCode::Required)]);
    let many = vec![GOOD; 1001].join("\n");
    let refused = bench.send(Form::Lines, None, many).await.unwrap_err();
    assert_eq!(faults(refused), [(String::new(), FieldCode::TooLong)]);
    let all_bad = format!("[{}]", vec!["1"; 1000].join(","));
    assert_eq!(faults(bench.json(all_bad).await.unwrap_err()).len(), 100);
    assert!(bench.records(0).await.is_empty());
    bench
        .send(Form::Lines, None, vec![GOOD; 1000].join("\n"))
        .await
        .unwrap();
}
