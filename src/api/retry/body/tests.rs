//! Accepted bodies, and the faults of others.

use super::{filter::ENTRIES_LEN_MAX, mapping::MAPPING_LEN_MAX, *};
use crate::{json::faults::FieldCode, runtime::clock::Timestamp};

static NO_TARGETS: BTreeMap<String, TargetId> = BTreeMap::new();

const BOUNDS: Bounds<'_> = Bounds {
    targets: &NO_TARGETS,
    records_max: 100_000,
    time_budget: Duration::from_millis(240_000),
};

/// The request of the OCI sample with one member replaced, or removed by an empty text.
fn with(name: &str, value: &str) -> String {
    let members = [
        ("streamOCIDToRetry", r#""ServerUnavailableStream""#),
        ("noOfMessagesToProcess", "5"),
        ("readAfterOffset", "405"),
        ("readPartition", r#""0""#),
        (
            "errormapping",
            r#"[{"responsecode":"404","stream":"A1"},{"responsecode":"unexpectedError","stream":"B1"}]"#,
        ),
    ];
    let known = members.iter().any(|(member, _)| *member == name);
    let mut all: Vec<_> = members.to_vec();
    if !known && !name.is_empty() {
        all.push((name, ""));
    }
    let members = all.iter().filter_map(|(member, default)| {
        let text = if *member == name { value } else { default };
        (!text.is_empty()).then(|| format!("\"{member}\":{text}"))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn parse(name: &str, value: &str) -> Result<Retry, Vec<(String, FieldCode)>> {
    let faults = |faults: Faults| faults.into_iter().map(|f| (f.pointer, f.code)).collect();
    Retry::parse(with(name, value).as_bytes(), BOUNDS).map_err(faults)
}

#[track_caller]
fn check(name: &str, value: &str, expected: impl Fn(&mut Retry)) {
    let mut retry = Retry {
        stream: "ServerUnavailableStream".into(),
        records_max: 5,
        after: Some(405),
        before: None,
        group: None,
        partition: ReadPartition::One(0),
        mapping: Some(vec![
            ("404".into(), "A1".into()),
            ("unexpectedError".into(), "B1".into()),
        ]),
        filter: Filter::default(),
        rate: None,
        dry_run: false,
        redeliver: false,
        time_budget: BOUNDS.time_budget,
    };
    expected(&mut retry);
    assert_eq!(parse(name, value), Ok(retry), "{name}: {value}");
}

#[track_caller]
fn check_refused(name: &str, value: &str, pointer: &str, code: FieldCode) {
    let expected = Err(vec![(pointer.to_owned(), code)]);
    assert_eq!(parse(name, value), expected, "{name}: {value}");
}

#[test]
fn requests_of_the_sample_are_accepted() {
    check("", "", |_| {});
    check("noOfMessagesToProcess", r#""5""#, |_| {});
    check("noOfMessagesToProcess", "100000", |retry| {
        retry.records_max = 100_000
    });
    check("readAfterOffset", r#""405""#, |_| {});
    check("readAfterOffset", "-1", |retry| retry.after = Some(-1));
    check("readAfterOffset", r#""-1""#, |retry| retry.after = Some(-1));
    check("readAfterOffset", "0", |retry| retry.after = Some(0));
    check("readAfterOffset", "4294967296000", |retry| {
        retry.after = Some(4_294_967_296_000)
    });
    check("readAfterOffset", "9223372036854775807", |retry| {
        retry.after = Some(i64::MAX)
    });
    for (value, before) in [
        ("0", 0),
        ("\"406\"", 406),
        ("9223372036854775807", i64::MAX as u64),
    ] {
        check("readBeforeOffset", value, |retry| {
            retry.before = Some(before)
        });
    }
    check("readPartition", "0", |_| {});
    check("readPartition", "255", |retry| {
        retry.partition = ReadPartition::One(255)
    });
    check("readPartition", r#""*""#, |retry| {
        retry.partition = ReadPartition::All
    });
    check("errormapping", "[]", |retry| {
        retry.mapping = Some(Vec::new())
    });
    for absent in ["", "null", " null "] {
        check("errormapping", absent, |retry| retry.mapping = None);
    }
    check(
        "errormapping",
        r#"[{"responsecode":404,"stream":"A1"}]"#,
        |retry| {
            retry.mapping.as_mut().unwrap().truncate(1);
        },
    );
    for (value, rate) in [("1", 1), ("100000", 100_000), ("\"25\"", 25)] {
        check("ratePerSecond", value, |retry| {
            retry.rate = NonZeroU32::new(rate)
        });
    }
    check("dryRun", "true", |retry| retry.dry_run = true);
    check("redeliver", "true", |retry| retry.redeliver = true);
    check("redeliver", "false", |_| {});
    check("timeBudgetMs", "240000", |_| {});
    check("timeBudgetMs", "1", |retry| {
        retry.time_budget = Duration::from_millis(1)
    });
}

#[test]
fn each_bad_input_has_its_answer() {
    use FieldCode::{Required, TooLong, UnknownMember, WrongType};
    for name in &MEMBERS[..4] {
        check_refused(name, "", &format!("/{name}"), Required);
        let pointer = format!("/{name}");
        check_refused(name, "null", &pointer, WrongType);
        check_refused(name, "{}", &pointer, WrongType);
    }
    for (name, values) in [
        ("streamOCIDToRetry", &["1", "[]"][..]),
        (
            "noOfMessagesToProcess",
            &[
                "0",
                "-5",
                "\"0\"",
                "\"x\"",
                "1.5",
                "1e3",
                "100001",
                "99999999999999999999",
                "true",
                "\"\"",
            ],
        ),
        (
            "readAfterOffset",
            &[
                "-2",
                "\"x\"",
                "\"\"",
                "1.0",
                "9223372036854775808",
                "[]",
                "\"- 1\"",
            ],
        ),
        (
            "readPartition",
            &["-1", "\"x\"", "65536", "\"\"", "0.5", "true"],
        ),
        ("errormapping", &["\"x\"", "1", "{}", "false"]),
        (
            "group",
            &[
                "\"\"", "1", "null", "\"1a\"", "\"-a\"", "\"a b\"", "\"a/b\"", "\"ä\"", "{}",
            ],
        ),
        (
            "ratePerSecond",
            &["0", "-1", "100001", "1.5", "null", "\"x\"", "4294967297"],
        ),
        ("readBeforeOffset", &["-1", "1.5", "null", "\"x\""]),
        ("dryRun", &["1", "null", "\"true\""]),
        ("redeliver", &["\"x\""]),
        ("timeBudgetMs", &["0", "240001", "null", "\"x\"", "-1"]),
    ] {
        for value in values {
            check_refused(name, value, &format!("/{name}"), WrongType);
        }
    }
    for name in ["groups", "x"] {
        check_refused(name, "1", &format!("/{name}"), UnknownMember);
    }
    let entry = |entry: &str| format!("[{entry}]");
    let at = |member: &str| format!("/errormapping/0{member}");
    check_refused("errormapping", &entry("1"), &at(""), WrongType);
    check_refused(
        "errormapping",
        &entry(r#"{"stream":"A1"}"#),
        &at("/responsecode"),
        Required,
    );
    check_refused(
        "errormapping",
        &entry(r#"{"responsecode":"404"}"#),
        &at("/stream"),
        Required,
    );
    check_refused(
        "errormapping",
        &entry(r#"{"responsecode":null,"stream":"A1"}"#),
        &at("/responsecode"),
        WrongType,
    );
    check_refused(
        "errormapping",
        &entry(r#"{"responsecode":1,"stream":"A1","x":1}"#),
        &at("/x"),
        UnknownMember,
    );
    let many = vec![r#"{"responsecode":"404","stream":"A1"}"#; MAPPING_LEN_MAX + 1].join(",");
    check_refused("errormapping", &entry(&many), "/errormapping", TooLong);
}

#[test]
fn a_body_that_is_not_an_object_is_refused_and_all_faults_come_at_once() {
    for body in ["", "[]", "null", "{", "x", "\"x\""] {
        assert_eq!(
            Retry::parse(body.as_bytes(), BOUNDS).unwrap_err().len(),
            1,
            "{body}"
        );
    }
    assert_eq!(Retry::parse(b"{}", BOUNDS).unwrap_err().len(), 4);
    assert_eq!(
        Retry::parse(b"\xff", BOUNDS).unwrap_err()[0].code,
        FieldCode::NotUtf8
    );
}

#[test]
fn a_filter_is_an_object_of_conditions() {
    let causes = |retry: &mut Retry, words: &[&str]| {
        for word in words {
            retry.filter.causes.add(word).unwrap();
        }
    };
    check("filter", "{}", |_| {});
    check("filter", r#"{"cause":503}"#, |retry| {
        causes(retry, &["503"])
    });
    check(
        "filter",
        r#"{"cause":["503",404,"4xx","network"]}"#,
        |retry| {
            causes(retry, &["503", "404", "4xx", "network"]);
        },
    );
    check("filter", r#"{"target":"HTTPS://A.example"}"#, |retry| {
        retry.filter.targets = vec![target("https://a.example:443")];
    });
    let two = r#"{"target":["http://a:1/","http://b/x"],"operation":["PUT","GET"],"key":["k\u0031",2,""]}"#;
    check("filter", two, |retry| {
        retry.filter.targets = vec![target("http://a:1"), target("http://b:80/x")];
        retry.filter.operations = vec!["PUT".into(), "GET".into()];
        retry.filter.keys = vec!["k1".into(), "2".into(), "".into()];
    });
    let time = r#"{"from":"2026-01-02T03:04:05Z","to":"2026-01-02T05:04:05.5+01:00"}"#;
    check("filter", time, |retry| {
        retry.filter.from = Some(Timestamp(1_767_323_045_000_000));
        retry.filter.to = Some(Timestamp(1_767_326_645_500_000));
    });
}

fn target(text: &str) -> TargetId {
    TargetId::read(text).unwrap()
}

#[test]
fn a_target_of_the_configuration_is_known_by_its_name_too() {
    let orders = target("https://orders.example/new");
    let targets = BTreeMap::from([("orders".to_owned(), orders.clone())]);
    let bounds = Bounds {
        targets: &targets,
        ..BOUNDS
    };
    let parse = |filter: &str| Retry::parse(with("filter", filter).as_bytes(), bounds);
    let retry = parse(r#"{"target":["orders","http://a"]}"#).unwrap();
    assert_eq!(retry.filter.targets, [orders, target("http://a")]);
    assert!(parse(r#"{"target":"order"}"#).is_err());
}

#[test]
fn faults_of_a_filter_have_their_own_code() {
    use FieldCode::{TooLong, UnknownMember, WrongType};
    for expression in ["\"record.key == 'k'\"", "1", "null", "[]", "true"] {
        check_refused("filter", expression, "/filter", WrongType);
    }
    let many = vec!["\"k\""; ENTRIES_LEN_MAX + 1].join(",");
    for (filter, pointer, code) in [
        (r#"{"status":503}"#, "/filter/status", UnknownMember),
        (r#"{"key":"a","key":"b"}"#, "/filter/key", WrongType),
        (r#"{"cause":[503,"4xy"]}"#, "/filter/cause/1", WrongType),
        (r#"{"cause":99}"#, "/filter/cause", WrongType),
        (r#"{"cause":[]}"#, "/filter/cause", WrongType),
        (r#"{"cause":null}"#, "/filter/cause", WrongType),
        (r#"{"cause":{}}"#, "/filter/cause", WrongType),
        (r#"{"key":[["k"]]}"#, "/filter/key/0", WrongType),
        (r#"{"target":"a.example"}"#, "/filter/target", WrongType),
        (r#"{"target":"http://a/x/"}"#, "/filter/target", WrongType),
        (r#"{"target":"*"}"#, "/filter/target", WrongType),
        (r#"{"target":"ftp://a"}"#, "/filter/target", WrongType),
        (r#"{"operation":"post"}"#, "/filter/operation", WrongType),
        (r#"{"from":"yesterday"}"#, "/filter/from", WrongType),
        (r#"{"to":1}"#, "/filter/to", WrongType),
        (
            r#"{"from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:05Z"}"#,
            "/filter/to",
            WrongType,
        ),
        (&format!("{{\"key\":[{many}]}}"), "/filter/key", TooLong),
    ] {
        check_refused("filter", filter, pointer, code);
    }
    for (name, value, is_of_filter) in [
        ("filter", "1", true),
        ("filter", r#"{"status":503}"#, true),
        ("filters", "{}", false),
        ("ratePerSecond", "0", false),
    ] {
        let faults = Retry::parse(with(name, value).as_bytes(), BOUNDS).unwrap_err();
        assert_eq!(is_about_filter(&faults), is_of_filter, "{name}: {value}");
    }
    let both = with("filter", "1").replace("405", "-7");
    assert!(!is_about_filter(
        &Retry::parse(both.as_bytes(), BOUNDS).unwrap_err()
    ));
}

#[test]
fn with_a_group_the_offset_can_be_left_out() {
    let named = |name: &str| Some(name.parse::<GroupName>().unwrap());
    let longest = "g".repeat(64);
    for name in ["nightly", "a", "Z.9_-", &longest] {
        check("group", &format!("\"{name}\""), |retry| {
            retry.group = named(name);
        });
    }
    let too_long = format!("\"{longest}g\"");
    check_refused("group", &too_long, "/group", FieldCode::WrongType);

    let body = with("readAfterOffset", "").replacen('{', r#"{"group":"nightly","#, 1);
    let retry = Retry::parse(body.as_bytes(), BOUNDS).unwrap();
    assert_eq!((retry.after, retry.group), (None, named("nightly")));
    let body = with("readAfterOffset", "null").replacen('{', r#"{"group":"nightly","#, 1);
    let faults = Retry::parse(body.as_bytes(), BOUNDS).unwrap_err();
    assert_eq!(faults[0].pointer, "/readAfterOffset");
}
