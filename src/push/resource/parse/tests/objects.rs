use super::*;

#[test]
fn entries_of_one_object_share_keys_and_columns() {
    let first = r#"{"object":"A.B","url":"http://h/{k}","keys":["k","l"],"columns":{"k":{"type":"string"},"q":{"type":"integer"}}}"#;
    let entry =
        |members: &str| format!(r#"{first},{{"object":"A.B","url":"http://h/x"{members}}}"#);
    check_objects(&entry(""), &[]);
    check_objects(
        &entry(r#","keys":["l","k"],"columns":{"q":{"type":"integer"},"k":{"type":"string"}}"#),
        &[],
    );
    check_objects(&entry(r#","keys":["k"]"#), &[("/1/keys", WrongType)]);
    check_objects(&entry(r#","keys":[]"#), &[("/1/keys", WrongType)]);
    check_objects(
        &entry(r#","columns":{"q":{"type":"number"},"k":{"type":"string"}}"#),
        &[("/1/columns", WrongType)],
    );
    check_objects(&entry(r#","columns":{}"#), &[("/1/columns", WrongType)]);
    let body = format!(
        r#""x-syncgate":{{"view":"operations","objects":[{{"object":"A.B","url":"http://h/x"}},{first}]}}"#
    );
    let resource = parse(&with(&body));
    let View::Operations(entries) = &resource.view else {
        panic!("{resource:?}");
    };
    assert_eq!((entries[0].keys.len(), entries[0].columns.len()), (2, 2));
    // Written once: a thousand entries of a wide object are not to make a thousand copies of its columns.
    let written = resource.to_json();
    assert_eq!(
        (
            written.matches("\"keys\"").count(),
            written.matches("\"columns\"").count()
        ),
        (1, 1)
    );
    assert_eq!(parse(&resource.to_json()), resource);
}

#[test]
fn an_impossible_object_is_refused() {
    check_objects("", &[("", WrongType)]);
    check(
        r#""x-syncgate":{"view":"operations"}"#,
        &[("/x-syncgate/objects", Required)],
    );
    check(
        r#""x-syncgate":{"view":"rows"}"#,
        &[("/x-syncgate/view", WrongType)],
    );
    check(r#""x-syncgate":[]"#, &[("/x-syncgate", WrongType)]);
    check(r#""x-syncgate":{}"#, &[]);
    let one = r#"{"object":"A.B","url":"http://h"}"#;
    for view in ["", r#""view":"append","#] {
        let body = format!(r#""x-syncgate":{{{view}"objects":[{one}]}}"#);
        check(&body, &[("/x-syncgate/objects", WrongType)]);
    }
    check_objects(&[one; 1024].join(","), &[]);
    check_objects(&[one; 1025].join(","), &[("", TooLong)]);
    check_objects("{}", &[("/0/object", Required), ("/0/url", Required)]);
    check_objects(
        r#"{"object":"B","url":"/x","keys":["k","k",""],"columns":{"c":{},"d":{"type":"date"},"e":1,"f":{"type":"array","null":true}},"x":1}"#,
        &[
            ("/0/x", UnknownMember),
            ("/0/object", WrongType),
            ("/0/url", WrongType),
            ("/0/keys/1", WrongType),
            ("/0/keys/2", WrongType),
            ("/0/columns/c/type", Required),
            ("/0/columns/d/type", WrongType),
            ("/0/columns/e", WrongType),
            ("/0/columns/f/null", UnknownMember),
        ],
    );
    let columns = |len: usize| {
        let columns: Vec<_> = (0..len)
            .map(|n| format!(r#""c{n}":{{"type":"object"}}"#))
            .collect();
        format!(
            r#"{{"object":"A.B","url":"http://h","columns":{{{}}}}}"#,
            columns.join(",")
        )
    };
    check_objects(&columns(1024), &[]);
    check_objects(&columns(1025), &[("/0/columns", TooLong)]);
    let keys = |len: usize| {
        let keys: Vec<_> = (0..len).map(|n| format!("\"k{n}\"")).collect();
        format!(
            r#"{{"object":"A.B","url":"http://h","keys":[{}]}}"#,
            keys.join(",")
        )
    };
    check_objects(&keys(32), &[]);
    check_objects(&keys(33), &[("/0/keys", TooLong)]);
}

#[test]
fn the_append_table_is_no_object_of_a_view() {
    let one = |name: &str| format!(r#"{{"object":"{name}","url":"http://h"}}"#);
    let body = format!(
        r#""x-syncgate":{{"view":"operations","objects":[{},{}]}}"#,
        one("A.B"),
        one("S.T")
    );
    let resource = parse(&with(&body));
    let at = |name: &str| {
        let checked = resource.check_append_table(&name.parse().unwrap());
        checked.map_err(|fault| fault.pointer)
    };
    assert_eq!(at("S.T"), Err("/x-syncgate/objects/1/object".into()));
    assert_eq!(at("s.t"), Ok(()));
    let plain = parse(&with(""));
    assert_eq!(plain.check_append_table(&"S.T".parse().unwrap()), Ok(()));
}
