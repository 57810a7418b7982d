//! Rules: which records are sent, and which are left out.

use super::*;

const OBJECTS: &str = r#""x-syncgate":{"view":"operations","objects":[
    {"object":"SALES.ORDERS","url":"https://*/orders/{id}","keys":["id"]}]}"#;

/// Whether an update of an order goes through a filter's rule, alone, that includes.
#[track_caller]
fn fits(filter: &str) -> bool {
    let payload = r#"{"status":"open","qty":10.0,"big":9007199254740993,"none":null,"yes":true,"deep":{"a~/b":[1,{"c":"x"}]}}"#;
    let value = message("PATCH", "https://h/orders/7", payload);
    let record = stored(
        "k",
        &value,
        &[(header::SOURCE, "shop-1"), (header::TRACEPARENT, "")],
    );
    let members = format!(r#"{OBJECTS},"rules":[{{"action":"include","filter":{{{filter}}}}}]"#);
    sent(&encoder(&members), &record).is_some()
}

#[test]
fn each_kind_of_entry_selects_its_records() {
    for (filter, expected) in [
        (r#""objectNames":["SALES.ORD*"]"#, true),
        (r#""objectNames":["*.ORDERS","X.Y"]"#, true),
        (r#""objectNames":["*"]"#, true),
        (r#""objectNames":["*.*.*"]"#, false),
        (r#""objectNames":["sales.orders"]"#, false),
        (r#""objectTypes":["UPDATE"]"#, true),
        (r#""operationTypes":["INSERT","DML"]"#, true),
        (
            r#""objectTypes":["INSERT","UPSERT","DELETE","TRUNCATE","DDL"]"#,
            false,
        ),
        (r#""tags":[{"name":"source","value":"shop*"}]"#, true),
        (r#""tags":[{"name":"source","value":"shop"}]"#, false),
        (r#""tags":[{"name":"traceparent"}]"#, true),
        (r#""tags":[{"name":"message-id"}]"#, true),
        (r#""tags":[{"name":"cause-class"}]"#, false),
    ] {
        assert_eq!(fits(filter), expected, "{filter}");
    }
}

#[test]
fn columns_are_compared_by_value_and_never_across_types() {
    let column = |rest: &str| fits(&format!(r#""columnValues":[{{{rest}}}]"#));
    for (rest, expected) in [
        (r#""column":"status","operator":"EQ","value":"open""#, true),
        (r#""column":"status","operator":"LT","value":"opez""#, true),
        (r#""column":"status","operator":"GE","value":"open""#, true),
        (r#""column":"status","operator":"NE","value":"open""#, false),
        (r#""column":"status","operator":"NE","value":7"#, false),
        (r#""column":"qty","operator":"EQ","value":1e1"#, true),
        (
            r#""column":"qty","operator":"GT","value":9.999999999999999999999"#,
            true,
        ),
        (r#""column":"qty","operator":"LE","value":10"#, true),
        (
            r#""column":"qty","operator":"LT","value":1e999999999"#,
            true,
        ),
        (
            r#""column":"big","operator":"EQ","value":9007199254740992"#,
            false,
        ),
        (
            r#""column":"big","operator":"NE","value":9007199254740992"#,
            true,
        ),
        (r#""column":"none","operator":"EQ","value":null"#, true),
        (r#""column":"none","operator":"NE","value":"x""#, false),
        (r#""column":"yes","operator":"NE","value":false"#, true),
        (r#""column":"absent","operator":"NE","value":1"#, false),
        (
            r#""column":"status","image":"before","operator":"EQ","value":"open""#,
            false,
        ),
        (
            r#""column":"id","object":"SALES.*","operator":"EQ","value":"7""#,
            true,
        ),
        (
            r#""column":"id","object":"OTHER.*","operator":"EQ","value":"7""#,
            false,
        ),
        (
            r#""column":"deep","pointer":"/a~0~1b/1/c","operator":"EQ","value":"x""#,
            true,
        ),
        (
            r#""column":"deep","pointer":"/a~0~1b/0","operator":"EQ","value":1"#,
            true,
        ),
        (
            r#""column":"deep","pointer":"/a~0~1b/00","operator":"EQ","value":1"#,
            false,
        ),
        (
            r#""column":"deep","pointer":"/a~0~1b/-","operator":"NE","value":2"#,
            false,
        ),
        (
            r#""column":"deep","pointer":"/x","operator":"NE","value":1"#,
            false,
        ),
    ] {
        assert_eq!(column(rest), expected, "{rest}");
    }
}

#[test]
fn kinds_are_joined_and_turned_round() {
    let (yes, no) = (
        r#""objectTypes":["UPDATE"]"#,
        r#""tags":[{"name":"cause-class"}]"#,
    );
    assert!(!fits(&format!("{yes},{no}")));
    assert!(fits(&format!(r#"{yes},{no},"relation":"OR""#)));
    assert!(fits(&format!(r#"{yes},{no},"negate":true"#)));
    assert!(!fits(&format!(r#"{yes},"negate":true"#)));
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rule = |action: &str, kind: &str| {
        format!(r#"{{"action":"{action}","filter":{{"objectTypes":["{kind}"]}}}}"#)
    };
    let through = |rules: &[String]| {
        let members = format!(r#""rules":[{}]"#, rules.join(","));
        sent(&encoder(&members), &stored("", "1", &[])).is_some()
    };
    assert!(!through(&[
        rule("exclude", "INSERT"),
        rule("include", "DML")
    ]));
    assert!(through(&[
        rule("include", "DML"),
        rule("exclude", "INSERT")
    ]));
    // A record that fits no rule is sent, unless some rule includes.
    assert!(through(&[rule("exclude", "DELETE")]));
    assert!(!through(&[
        rule("exclude", "DELETE"),
        rule("include", "UPDATE")
    ]));
    let no_ddl = encoder(&format!(r#""rules":[{}]"#, rule("exclude", "DDL")));
    assert_eq!(
        control(&no_ddl, ControlEventKind::Created { partitions: 1 }),
        None
    );
    assert!(control(&no_ddl, ControlEventKind::Purged).is_some());
}

#[test]
fn half_of_a_surrogate_pair_is_compared_by_its_code_point() {
    let through = |operator: &str, value: &str| {
        let entry = format!(
            r#"{{"column":"DATA","pointer":"/a","operator":"{operator}","value":{value}}}"#
        );
        let rules =
            format!(r#""rules":[{{"action":"include","filter":{{"columnValues":[{entry}]}}}}]"#);
        sent(&encoder(&rules), &stored("", r#"{"a":"\ud800"}"#, &[])).is_some()
    };
    assert!(through("NE", r#""x""#) && !through("EQ", r#""x""#));
    assert!(through("GT", r#""\ud7ff""#) && through("LT", r#""\ue000""#));
    assert!(!through("NE", "1"));
}

#[test]
fn the_last_of_repeated_members_counts() {
    let entry = |pointer: &str, value: &str| {
        format!(r#"{{"column":"DATA","pointer":"{pointer}","operator":"EQ","value":{value}}}"#)
    };
    // Other parts below and beside the one that is meant.
    let others = ["/a/b", "/a/c/0", "/a/c/1/d", "/e/0"].map(|pointer| entry(pointer, "\"never\""));
    let through = |pointer: &str, value: &str| {
        let entries = [entry(pointer, value), others.join(",")].join(",");
        let rules =
            format!(r#""rules":[{{"action":"include","filter":{{"columnValues":[{entries}]}}}}]"#);
        let text =
            r#"{"a":{"b":1,"c":[5,{"d":2}]},"e":[],"a":{"c":[{"d":3},4],"\u0062x":6},"f":{}}"#;
        sent(&encoder(&rules), &stored("", text, &[])).is_some()
    };
    assert!(!through("/a/b", "1"), "only the first one has it");
    assert!(!through("/a/c/1/d", "2"));
    assert!(through("/a/c/0/d", "3") && through("/a/c/1", "4") && through("/a/bx", "6"));
    assert!(!through("/e/0", "5") && !through("/f/x", "1"));
}

/// Rules that include by one of many comparisons, each of another part.
fn comparisons(len: usize, pointer: impl Fn(usize) -> String) -> String {
    let entry = |n| {
        format!(
            r#"{{"column":"DATA","pointer":"{}","operator":"EQ","value":{n}}}"#,
            pointer(n)
        )
    };
    let entries: Vec<_> = (0..len).map(entry).collect();
    let rule = |entries: &[String]| {
        format!(
            r#"{{"action":"include","filter":{{"columnValues":[{}]}}}}"#,
            entries.join(",")
        )
    };
    let rules: Vec<_> = entries.chunks(1000).map(rule).collect();
    format!(r#""rules":[{}]"#, rules.join(","))
}

/// Work until a record is judged.
#[track_caller]
fn work(encoder: &Encoder, record: &StoredRecord, expected: bool) -> usize {
    let mut scratch = Scratch::default();
    let mut out = Vec::new();
    let encoded = encoder.record(
        &log(),
        Partition(0),
        record,
        NOW,
        &mut |_| {},
        &mut scratch,
        &mut out,
    );
    let through = match expected {
        true => Encoded::Taken,
        false => Encoded::LeftOut,
    };
    assert_eq!(encoded, through);
    scratch.looked.work()
}

#[test]
fn work_of_rules_is_the_sum_of_record_and_configuration() {
    let members: Vec<_> = (0..9_000)
        .map(|n| format!(r#""m{n}":{{"n":{n},"x":"{}"}}"#, "x".repeat(70)))
        .collect();
    let text = format!("{{{}}}", members.join(","));
    let record = stored("", &text, &[]);
    assert!(text.len() > 800_000);
    let entries = 4_000;
    // Each comparison but the last one has another part, whose value is another number.
    let encoder = encoder(&comparisons(entries, |n| {
        format!("/m{}/n", n + usize::from(n + 1 < entries))
    }));
    let work = work(&encoder, &record, true);
    assert!(
        (text.len() / 2..text.len() + 10 * entries).contains(&work),
        "{work}"
    );
}

#[test]
fn a_part_that_lies_deep_is_found_in_one_walk() {
    let (depth, filler) = (120, "x".repeat(500_000));
    let text = r#"{"a":"#.repeat(depth) + &format!("[\"{filler}\",7]") + &"}".repeat(depth);
    let encoder = encoder(&comparisons(8, |n| {
        "/a".repeat(depth) + &format!("/{}", n - n / 7 * 6)
    }));
    let work = work(&encoder, &stored("", &text, &[]), true);
    assert!(work < 3 * text.len(), "{work}");
}

#[test]
fn a_long_value_is_read_once_for_all_that_it_is_compared_with() {
    let number = "1".repeat(400_000);
    let encoder = encoder(&comparisons(2_000, |_| "/n".to_owned()));
    let text = format!(r#"{{"n":{number}}}"#);
    let work = work(&encoder, &stored("", &text, &[]), false);
    assert!(work < 3 * text.len() + 10_000, "{work}");
}

#[test]
fn tags_are_searched_for_in_steps_and_each_once() {
    let body = "a".repeat(4_000);
    let record = stored(
        "",
        "1",
        &[(header::CAUSE_BODY, &body), (header::SOURCE, "shop")],
    );
    let tag = |n: usize| match n {
        0..1_000 => format!(r#"{{"name":"cause-body","value":"*b{n}*"}}"#),
        _ => r#"{"name":"source","value":"sh*p"}"#.to_owned(),
    };
    let tags: Vec<_> = (0..=1_000).map(tag).collect();
    // The second rule has the tags of the first one, and would search as long.
    let rule = |action: &str, tags: &[String]| {
        format!(
            r#"{{"action":"{action}","filter":{{"tags":[{}]}}}}"#,
            tags.join(",")
        )
    };
    let rules = [rule("exclude", &tags[..1_000]), rule("include", &tags)].join(",");
    let encoder = encoder(&format!(r#""rules":[{rules}]"#));
    let (mut scratch, mut out, mut steps) = (Scratch::default(), Vec::new(), 1);
    let encode = |scratch: &mut Scratch, out: &mut Vec<u8>| {
        encoder.record(
            &log(),
            Partition(0),
            &record,
            NOW,
            &mut |_| {},
            scratch,
            out,
        )
    };
    while encode(&mut scratch, &mut out) == Encoded::NotYet {
        assert!(out.is_empty());
        steps += 1;
    }
    assert!((3..8).contains(&steps), "{steps}");
    assert!(!out.is_empty(), "it was let through by the last tag");
    // The next record begins anew.
    assert_eq!(encode(&mut scratch, &mut out), Encoded::NotYet);
}
