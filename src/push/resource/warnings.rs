//! Warnings about settings that are legal but probably not meant.

use crate::json::nearest::nearest;

use super::{
    AppendColumn, ColumnValue, Filter, MetaField, ObjectName, ObjectPattern, ObjectType, Relation,
    Resource,
};

/// Warnings of one configuration, at most; a rule may name a thousand objects.
const LEN_MAX: usize = 20;
/// Objects that one warning names, at most.
const OBJECTS_LEN_MAX: usize = 10;

impl Resource {
    /// Returns warnings about settings that are legal but probably not meant; `append` is the append table.
    #[must_use]
    pub fn warnings(&self, append: &ObjectName) -> Vec<String> {
        let has_pos = self.encoding.meta_fields.name(MetaField::Pos).is_some();
        let what = "encoding.json.metaFields.pos is off: a client of this stream cannot resume where it was";
        let pos = (!has_pos).then(|| what.to_owned());
        let objects: Vec<&ObjectName> = self.view.objects().map(|view| &view.object).collect();
        let objects: Vec<_> = objects.into_iter().chain([append]).collect();
        let rules = self.rules.iter().enumerate().flat_map(|(at, rule)| {
            let named = rule.filter.object_names.iter();
            let of_columns = rule.filter.column_values.iter();
            let of_columns = of_columns.filter_map(|column| column.object.as_ref());
            let strange = named.chain(of_columns).filter(|pattern| {
                let mut objects = objects.iter();
                !objects.any(|object| pattern.fits(object))
            });
            strange.map(move |pattern| (at + 1, pattern))
        });
        let rules = rules.map(|(number, pattern)| unknown(number, pattern, &objects));
        let table = Tables {
            append,
            objects: &objects,
        };
        let filters = self.rules.iter().enumerate();
        let never = filters.flat_map(|(at, rule)| table.never_fits(at + 1, &rule.filter));
        let all = pos.into_iter().chain(rules).chain(never);
        all.take(LEN_MAX).collect()
    }
}

/// The tables of a data stream. What the append table can have is known; rows of other objects have any column.
#[derive(Clone, Copy)]
struct Tables<'a> {
    append: &'a ObjectName,
    /// All of them.
    objects: &'a [&'a ObjectName],
}

impl Tables<'_> {
    /// Returns warnings of what a rule asks of the append table alone, and that table never has.
    fn never_fits(self, rule: usize, filter: &Filter) -> Vec<String> {
        let types = &filter.object_types;
        // With OR or negate the names do not bound what the types are asked of.
        let names = match filter.relation {
            Relation::And if !filter.negate => &filter.object_names[..],
            _ => &[],
        };
        let names: Vec<_> = names.iter().collect();
        let no_type = !types.is_empty() && !types.iter().any(|kind| is_of_append(*kind));
        let no_type = no_type && self.are_append_alone(&names);
        let no_type = no_type.then(|| {
            let named: Vec<_> = types.iter().map(|kind| word(*kind)).collect();
            format!(
                "rule {rule} names the type {}, but records of {} are INSERT, and its events DDL and TRUNCATE",
                named.join(", "),
                self.append
            )
        });
        let columns = filter.column_values.iter();
        let no_column = columns.filter_map(|column| self.no_column(rule, column));
        no_type.into_iter().chain(no_column).take(LEN_MAX).collect()
    }

    fn no_column(self, rule: usize, value: &ColumnValue) -> Option<String> {
        let names = AppendColumn::ALL.map(AppendColumn::name);
        let column = &*value.column;
        let of: Vec<_> = value.object.iter().collect();
        if names.contains(&column) || !self.are_append_alone(&of) {
            return None;
        }
        let all = names.join(", ");
        let has = match nearest(column, names) {
            Some(near) => format!("; did you mean {near}? It has {all}"),
            None => format!(": it has {all}; a value of the message is DATA with a pointer"),
        };
        let append = self.append;
        Some(format!(
            "rule {rule} names the column {column}, which {append} has not{has}"
        ))
    }

    /// Returns whether the patterns fit the append table and no other; without patterns every table is meant.
    fn are_append_alone(self, patterns: &[&ObjectPattern]) -> bool {
        let is_meant = |object: &ObjectName| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(object))
        };
        let mut others = self.objects.iter().filter(|object| **object != self.append);
        is_meant(self.append) && !others.any(|object| is_meant(object))
    }
}

/// Every record is a new row. The stream itself is made and grows (DDL), and is purged (TRUNCATE).
fn is_of_append(kind: ObjectType) -> bool {
    match kind {
        ObjectType::Insert | ObjectType::Dml | ObjectType::Ddl | ObjectType::Truncate => true,
        ObjectType::Update | ObjectType::Upsert | ObjectType::Delete => false,
    }
}

fn word(kind: ObjectType) -> &'static str {
    let mut words = ObjectType::WORDS.iter();
    words
        .find(|(of, _)| *of == kind)
        .map_or("", |(_, word)| word)
}

fn unknown(rule: usize, pattern: &ObjectPattern, objects: &[&ObjectName]) -> String {
    let pattern = pattern.as_str();
    let names = objects.iter().map(|object| object.as_str());
    let near = nearest(pattern, names.clone());
    let mut all: Vec<_> = names.take(OBJECTS_LEN_MAX).collect();
    if objects.len() > all.len() {
        all.push("…");
    }
    let all = all.join(", ");
    let has = match near {
        Some(near) => format!("; did you mean {near}? It has {all}"),
        None => format!(": it has {all}"),
    };
    format!("rule {rule} names {pattern}, which fits no object of this data stream{has}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &str, expected: &[&str]) {
        let config = format!(
            r#"{{"source":{{"trail":"S1"}},"rules":[{rules}],"x-syncgate":{{"view":"operations","objects":
            [{{"object":"SHOP.ORDERS","url":"https://*/orders"}}]}}}}"#
        );
        let resource = Resource::parse(config.as_bytes()).unwrap();
        let append = "SYNCGATE.S1".parse().unwrap();
        assert_eq!(resource.warnings(&append), expected);
    }

    /// As [`check`], of one rule of a data stream without objects.
    #[track_caller]
    fn check_append(filter: &str, expected: &[&str]) {
        let config = format!(
            r#"{{"source":{{"trail":"S1"}},"rules":[{{"action":"include","filter":{{{filter}}}}}]}}"#
        );
        let resource = Resource::parse(config.as_bytes()).unwrap();
        let append = "SYNCGATE.S1".parse().unwrap();
        assert_eq!(resource.warnings(&append), expected, "{filter}");
    }

    #[test]
    fn a_type_that_the_append_table_never_has_is_told() {
        let never = |named: &str| {
            format!(
                "rule 1 names the type {named}, but records of SYNCGATE.S1 are INSERT, and its events DDL and TRUNCATE"
            )
        };
        check_append(r#""objectTypes":["UPSERT"]"#, &[&never("UPSERT")]);
        check_append(
            r#""relation":"OR","objectTypes":["UPDATE","DELETE"],"objectNames":["*"]"#,
            &[&never("UPDATE, DELETE")],
        );
        for good in ["INSERT", "DML", "DDL", "TRUNCATE", r#"UPSERT","INSERT"#] {
            check_append(&format!(r#""objectTypes":["{good}"]"#), &[]);
        }
        // With objects it may be one of theirs, unless the rule is for the append table alone.
        let of = |names: &str| {
            format!(r#"{{"action":"exclude","filter":{{{names}"objectTypes":["UPSERT"]}}}}"#)
        };
        check(&of(""), &[]);
        check(&of(r#""objectNames":["*"],"#), &[]);
        check(
            &of(r#""objectNames":["SYNCGATE.S1"],"#),
            &[&never("UPSERT")],
        );
        check(
            &of(r#""relation":"OR","objectNames":["SYNCGATE.S1"],"#),
            &[],
        );
    }

    #[test]
    fn a_column_that_the_append_table_has_not_is_told() {
        let value = |column: &str, more: &str| {
            format!(r#""columnValues":[{{{more}"column":"{column}","operator":"EQ","value":5}}]"#)
        };
        let all = "PARTITION, OFFSET, KEY, TS, DATA, DATA_BASE64, HEADERS";
        check_append(
            &value("QTY", ""),
            &[&format!(
                "rule 1 names the column QTY, which SYNCGATE.S1 has not: it has {all}; a value of the message is DATA \
                 with a pointer"
            )],
        );
        check_append(
            &value("data", ""),
            &[&format!(
                "rule 1 names the column data, which SYNCGATE.S1 has not; did you mean DATA? It has {all}"
            )],
        );
        for column in all.split(", ") {
            check_append(&value(column, ""), &[]);
        }
        let of = |more: &str| {
            let value = value("qty", more);
            format!(r#"{{"action":"exclude","filter":{{{value}}}}}"#)
        };
        check(&of(""), &[]);
        check(&of(r#""object":"SHOP.ORDERS","#), &[]);
        check(
            &of(r#""object":"SYNCGATE.*","#),
            &[&format!(
                "rule 1 names the column qty, which SYNCGATE.S1 has not: it has {all}; a value of the message is DATA \
                 with a pointer"
            )],
        );
    }

    fn rule(names: &str) -> String {
        format!(r#"{{"action":"include","filter":{{"objectNames":[{names}]}}}}"#)
    }

    #[test]
    fn a_rule_for_an_unknown_object_is_reported_with_the_known_ones() {
        let all = "It has SHOP.ORDERS, SYNCGATE.S1";
        check(&rule(r#""SHOP.ORDERS","SYNCGATE.*","*""#), &[]);
        check(
            &format!("{},{}", rule(r#""SHOP.*""#), rule(r#""SHOP.ORDER""#)),
            &[&format!(
                "rule 2 names SHOP.ORDER, which fits no object of this data stream; did you mean SHOP.ORDERS? {all}"
            )],
        );
        let columns = r#"{"action":"exclude","filter":{"columnValues":[{"object":"X.NOPE","column":"a","operator":"EQ","value":1}]}}"#;
        check(
            columns,
            &[
                "rule 1 names X.NOPE, which fits no object of this data stream: it has SHOP.ORDERS, SYNCGATE.S1",
            ],
        );
        let many = vec!["\"X.NOPE\""; 1_000].join(",");
        let many = format!(r#"{{"source":{{"trail":"S1"}},"rules":[{}]}}"#, rule(&many));
        let many = Resource::parse(many.as_bytes()).unwrap();
        let append = "SYNCGATE.S1".parse().unwrap();
        assert_eq!(many.warnings(&append).len(), LEN_MAX);
    }
}
