use super::*;

#[test]
fn rules_are_1_to_1024_with_1_to_1024_entries_of_a_kind() {
    let rule = r#"{"action":"include","filter":{"objectNames":["*"]}}"#;
    let rules = |len: usize| format!(r#""rules":[{}]"#, vec![rule; len].join(","));
    check(&rules(0), &[("/rules", WrongType)]);
    check(&rules(1), &[]);
    check(&rules(1024), &[]);
    check(&rules(1025), &[("/rules", TooLong)]);
    for (kind, entry) in [
        ("objectNames", r#""A.B""#),
        ("objectTypes", r#""DML""#),
        ("operationTypes", r#""DDL""#),
        (
            "columnValues",
            r#"{"column":"c","operator":"EQ","value":1}"#,
        ),
        ("tags", r#"{"name":"source"}"#),
    ] {
        let at = format!("/{kind}");
        let entries = |len: usize| format!(r#"{kind:?}:[{}]"#, vec![entry; len].join(","));
        check_filter(&entries(0), &[(&at, WrongType)]);
        check_filter(&entries(1024), &[]);
        check_filter(&entries(1025), &[(&at, TooLong)]);
        check_filter(&format!("{kind:?}:{entry}"), &[(&at, WrongType)]);
    }
}

#[test]
fn an_illegal_rule_is_refused() {
    check_filter("", &[("", Required)]);
    check_filter(r#""negate":true"#, &[("", Required)]);
    for kind in [
        "chunkIds",
        "procedureFeatureNames",
        "partitionNames",
        "userTokens",
    ] {
        let at = format!("/{kind}");
        check_filter(
            &format!(r#"{kind:?}:[],"objectNames":["*"]"#),
            &[(&at, UnknownMember)],
        );
    }
    let both = r#""objectTypes":["DML"],"operationTypes":["DML"]"#;
    check_filter(both, &[("/operationTypes", WrongType)]);
    check_filter(r#""objectTypes":["dml"]"#, &[("/objectTypes/0", WrongType)]);
    check_filter(
        r#""objectNames":["A.B","A"]"#,
        &[("/objectNames/1", WrongType)],
    );
    check_filter(
        r#""objectNames":["*"],"relation":"XOR""#,
        &[("/relation", WrongType)],
    );
    check_filter(
        r#""tags":[{"name":"sorce"}]"#,
        &[("/tags/0/name", WrongType)],
    );
    check_filter(
        r#""tags":[{"name":"layout"}]"#,
        &[("/tags/0/name", WrongType)],
    );
    check_filter(r#""tags":[{"value":"x"}]"#, &[("/tags/0/name", Required)]);
    check(
        r#""rules":[{"action":"drop"},{"filter":{"objectNames":["*"]},"x":1},{"name":"","action":"include","filter":[]}]"#,
        &[
            ("/rules/0/action", WrongType),
            ("/rules/0/filter", Required),
            ("/rules/1/x", UnknownMember),
            ("/rules/1/action", Required),
            ("/rules/2/name", WrongType),
            ("/rules/2/filter", WrongType),
        ],
    );
    let rule = |len: usize| {
        format!(
            r#""rules":[{{"name":"{}","action":"include","filter":{{"objectNames":["*"]}}}}]"#,
            "n".repeat(len)
        )
    };
    check(&rule(255), &[]);
    check(&rule(256), &[("/rules/0/name", TooLong)]);
}

#[test]
fn values_of_columns_are_compared_with_scalars() {
    let check = |members: &str, expected: &[(&str, FieldCode)]| {
        let expected = below("/columnValues/0", expected);
        check_filter(&format!(r#""columnValues":[{{{members}}}]"#), &expected);
    };
    for operator in ["LT", "GT", "LE", "GE", "EQ", "NE"] {
        for value in ["1.50", r#""a""#] {
            check(
                &format!(r#""column":"c","operator":"{operator}","value":{value}"#),
                &[],
            );
        }
        let expected: &[_] = match operator {
            "EQ" | "NE" => &[],
            _ => &[("/operator", WrongType)],
        };
        for value in ["true", "null"] {
            check(
                &format!(r#""column":"c","operator":"{operator}","value":{value}"#),
                expected,
            );
        }
    }
    check(
        "",
        &[
            ("/column", Required),
            ("/operator", Required),
            ("/value", Required),
        ],
    );
    let rest = r#""column":"c","operator":"EQ","value":1"#;
    check(
        r#""column":"c","operator":"eq","value":[]"#,
        &[("/operator", WrongType), ("/value", WrongType)],
    );
    check(
        &format!(r#"{rest},"image":"old""#),
        &[("/image", WrongType)],
    );
    check(
        &format!(r#"{rest},"object":"ORDERS""#),
        &[("/object", WrongType)],
    );
    for good in [
        "",
        "/",
        "/a~0b/~1",
        "/a//b",
        &format!("/{}", "a".repeat(1023)),
    ] {
        check(&format!(r#"{rest},"pointer":"{good}""#), &[]);
    }
    for bad in ["a", "#/a", "/~", "/~2", &format!("/{}", "a".repeat(1024))] {
        check(
            &format!(r#"{rest},"pointer":"{bad}""#),
            &[("/pointer", WrongType)],
        );
    }
    let body = r#""rules":[{"action":"include","filter":{"relation":"OR","columnValues":[
        {"object":"S.*","column":"c","pointer":"/a~1b/~01","image":"before","operator":"NE","value":1.0}]}}]"#;
    let resource = parse(&with(body));
    let filter = &resource.rules[0].filter;
    assert_eq!(filter.relation, Relation::Or);
    assert_eq!(filter.column_values[0].pointer, ["a/b", "~1"]);
    assert_eq!(filter.column_values[0].value, Scalar::Number("1.0".into()));
    assert_eq!(parse(&resource.to_json()), resource);
}
