//! Documents that others wrote.

use super::*;

#[track_caller]
fn check(text: &str, expected: Result<(), &str>) {
    let found = check_document(text);
    match expected {
        Ok(()) => assert_eq!(found, Ok(()), "{text}"),
        Err(what) => assert!(
            found.as_ref().is_err_and(|found| found.contains(what)),
            "{text}: {found:?}"
        ),
    }
}

#[test]
fn a_document_from_outside_is_one_of_asyncapi_3_0_with_one_channel() {
    check("asyncapi: 3.0.0\nchannels: {a: {}}", Ok(()));
    check(
        "asyncapi: '3.0.12'\nchannels:\n  a:\n    b: {c: 1}\ninfo: [asyncapi, {channels: 1}]",
        Ok(()),
    );
    check(r#"{"asyncapi": "3.0.0", "channels": {"a": null}}"#, Ok(()));
    for version in [
        "2.6.0",
        "3.1.0",
        "3.0",
        "3.0.",
        "3.0.x",
        "3.0.0-rc",
        "[3.0.0]",
        "{3.0.0: 1}",
    ] {
        check(
            &format!("asyncapi: {version}\nchannels: {{a: {{}}}}"),
            Err("asyncapi must be"),
        );
    }
    for channels in ["{}", "{a: 1, b: 2}", "[a]", "a", ""] {
        check(
            &format!("asyncapi: 3.0.0\nchannels: {channels}"),
            Err("exactly one channel"),
        );
    }
    check("asyncapi: 3.0.0", Err("exactly one channel"));
    check(
        "x: {asyncapi: 3.0.0, channels: {a: 1}}",
        Err("asyncapi must be"),
    );
    check("channels: {a: 1}", Err("asyncapi must be"));
    check(
        "asyncapi: 3.0.0\nchannels: {a: 1}\n---\nx: 1",
        Err("one YAML document"),
    );
    for text in ["", "# nothing"] {
        check(text, Err("one YAML document"));
    }
    for text in ["a", "[a]", "- asyncapi: 3.0.0"] {
        assert!(check_document(text).is_err(), "{text}");
    }
    check("asyncapi: 3.0.0\nchannels: {a", Err("this is not YAML"));
    check(
        "asyncapi: 3.0.0\n\tchannels: {a: 1}",
        Err("this is not YAML"),
    );
}

#[test]
fn aliases_anchors_and_tags_are_refused() {
    let with = |rest: &str| format!("asyncapi: 3.0.0\nchannels: {{a: 1}}\n{rest}");
    check(&with("x: &a 1"), Err("an anchor in line 3"));
    check(&with("x: &a {b: 1}"), Err("anchor"));
    check(&with("x: &a [1]"), Err("anchor"));
    check(&with("x: &a 1\ny: *a"), Err("anchor"));
    check(&with("y: *a"), Err("line 3"));
    check(
        &with("x: !!python/object/apply:os.system [ls]"),
        Err("a tag"),
    );
    check(&with("x: !run ls"), Err("a tag"));
    check(&with("x: !!str 1"), Ok(()));
    check(&with("x: {a: 1, a: 2}"), Err("more than once in line 3"));
    check(&with("asyncapi: 2.0.0"), Err("more than once"));
    check(&with("? [a]\n: 1"), Err("no text"));
    let deep = |depth: usize| with(&format!("x: {}{}", "[".repeat(depth), "]".repeat(depth)));
    check(&deep(DEPTH - 1), Ok(()));
    check(&deep(DEPTH), Err("deep"));
}

const DEPTH: usize = crate::json::faults::DEPTH_MAX;

#[test]
fn every_string_is_read_as_it_was() {
    let long = "\u{ffff}".repeat(200);
    let texts = [
        "",
        " ",
        "a ",
        "yes",
        "No",
        "null",
        "1",
        "1.0",
        "-",
        "- a",
        "a: b",
        "#",
        "a #b",
        "\"\\",
        "'",
        "\0\n\t\u{85}\u{2028}\u{feff}",
        "ü€😀",
        "{",
        "*a",
        "&a",
        "!a",
        "%",
        "@",
        "`",
        "~",
        "3.0.0",
        "2026-01-01",
        "0x1",
        ".inf",
        "<<",
        "=",
        "?",
        &long,
    ];
    let members = texts.map(|text| {
        (
            text,
            Json::array([
                Json::from(text),
                Json::array([text]),
                Json::object([(text, text.into())]),
            ]),
        )
    });
    let written = yaml::text(&Json::object(members));
    let read = read(&written);
    assert_eq!(read.as_object().unwrap().len(), texts.len());
    for text in texts {
        let expected = serde_json::json!([text, [text], { text: text }]);
        assert_eq!(read[text], expected, "{written}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn our_own_documents_are_taken(resource in strategy::resources()) {
        let text = one("s1", &resource, Layout::Address);
        proptest::prop_assert_eq!(check_document(&text), Ok(()), "{}", text);
    }
}
