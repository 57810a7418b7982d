//! Warnings about settings that are legal but probably not meant.

use crate::json::nearest::nearest;

use super::{MetaField, ObjectName, ObjectPattern, Resource};

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
        pos.into_iter().chain(rules).take(LEN_MAX).collect()
    }
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
