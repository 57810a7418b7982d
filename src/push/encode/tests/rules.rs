//! What is sent, and what is left out.

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
fn each_kind_of_entry_fits_what_it_says() {
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
    // What no rule fits is sent, unless some rule lets through.
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
