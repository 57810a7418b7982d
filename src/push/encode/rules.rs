//! Which records are sent: the first rule that fits decides (`push-decisions.md` §6).

use std::{borrow::Cow, cmp::Ordering};

use crate::push::resource::{
    Action, ColumnValue, Filter, ObjectName, ObjectType, Operator, Relation, Rule, Scalar,
};

use super::{
    Op, json, number,
    view::{Change, Column, headers},
    write::Facts,
};

/// The rules of one data stream.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// Some rule includes, so what no rule fits is left out.
    includes: bool,
}

impl Rules {
    pub(super) fn new(rules: &[Rule]) -> Self {
        Self {
            includes: rules.iter().any(|rule| rule.action == Action::Include),
            rules: rules.to_vec(),
        }
    }

    /// Returns whether a change of that object is sent.
    pub(super) fn let_through(
        &self,
        change: &Change<'_>,
        object: &ObjectName,
        facts: &Facts<'_>,
    ) -> bool {
        let fits = |rule: &&Rule| filter_fits(&rule.filter, change, object, facts);
        match self.rules.iter().find(fits) {
            Some(rule) => rule.action == Action::Include,
            None => !self.includes,
        }
    }
}

fn filter_fits(
    filter: &Filter,
    change: &Change<'_>,
    object: &ObjectName,
    facts: &Facts<'_>,
) -> bool {
    let names = || {
        filter
            .object_names
            .iter()
            .any(|pattern| pattern.fits(object))
    };
    let types = || {
        filter
            .object_types
            .iter()
            .any(|kind| is_of(change.op, *kind))
    };
    let values = || {
        filter
            .column_values
            .iter()
            .any(|value| value_fits(value, change, object))
    };
    let tags = || {
        let tags = filter.tags.iter();
        let mut tags = tags.map(|tag| headers(facts).any(|(name, value)| tag.fits(name, value)));
        tags.any(|fits| fits)
    };
    // A kind without entries says nothing.
    let kinds: [(bool, &dyn Fn() -> bool); 4] = [
        (!filter.object_names.is_empty(), &names),
        (!filter.object_types.is_empty(), &types),
        (!filter.column_values.is_empty(), &values),
        (!filter.tags.is_empty(), &tags),
    ];
    let mut kinds = kinds.iter().filter(|(says, _)| *says);
    let fits = match filter.relation {
        Relation::And => kinds.all(|(_, fits)| fits()),
        Relation::Or => kinds.any(|(_, fits)| fits()),
    };
    fits != filter.negate
}

fn is_of(op: Op, kind: ObjectType) -> bool {
    match kind {
        ObjectType::Dml => op != Op::Ddl,
        ObjectType::Ddl => op == Op::Ddl,
        ObjectType::Insert => op == Op::Insert,
        ObjectType::Update => op == Op::Update,
        ObjectType::Upsert => op == Op::Upsert,
        ObjectType::Delete => op == Op::Delete,
        ObjectType::Truncate => op == Op::Truncate,
    }
}

fn value_fits(wanted: &ColumnValue, change: &Change<'_>, object: &ObjectName) -> bool {
    let other = |pattern: &crate::push::resource::ObjectPattern| !pattern.fits(object);
    if wanted.object.as_ref().is_some_and(other) {
        return false;
    }
    if change.image != Some(wanted.image) {
        return false;
    }
    let is_wanted = |column: &&Column<'_>| column.name.as_str() == wanted.column;
    let Some(column) = change.columns.iter().find(is_wanted) else {
        return false;
    };
    let Some(value) = pointed(&column.value, &wanted.pointer) else {
        return false;
    };
    let Some(ordering) = compare(value, &wanted.value) else {
        return false;
    };
    let ordered = matches!(wanted.value, Scalar::Number(_) | Scalar::String(_));
    match wanted.operator {
        Operator::Eq => ordering == Ordering::Equal,
        Operator::Ne => ordering != Ordering::Equal,
        Operator::Lt => ordered && ordering == Ordering::Less,
        Operator::Gt => ordered && ordering == Ordering::Greater,
        Operator::Le => ordered && ordering != Ordering::Greater,
        Operator::Ge => ordered && ordering != Ordering::Less,
    }
}

/// Returns the part of a value that a pointer (RFC 6901) names.
fn pointed<'a>(value: &'a [u8], pointer: &[String]) -> Option<&'a [u8]> {
    let mut value = value;
    for token in pointer {
        let mut found = None;
        match value.first()? {
            b'{' => json::members(value, |name, member| {
                // Of a repeated member the last one counts.
                if json::unquoted(name).is_some_and(|name| name == **token) {
                    found = Some(member);
                }
            }),
            b'[' => {
                let legal = token == "0" || !token.starts_with('0');
                let digits = token.bytes().all(|byte| byte.is_ascii_digit());
                let at: usize = token.parse().ok().filter(|_| legal && digits)?;
                let mut n = 0;
                json::elements(value, |element| {
                    if n == at {
                        found = Some(element);
                    }
                    n += 1;
                });
            }
            _ => return None,
        }
        value = found?;
    }
    Some(value)
}

/// Compares values of one type; `None` if they are of different ones.
fn compare(value: &[u8], wanted: &Scalar) -> Option<Ordering> {
    match (value.first()?, wanted) {
        (b'n', Scalar::Null) => Some(Ordering::Equal),
        (b't', Scalar::Bool(wanted)) => Some(true.cmp(wanted)),
        (b'f', Scalar::Bool(wanted)) => Some(false.cmp(wanted)),
        (b'-' | b'0'..=b'9', Scalar::Number(wanted)) => {
            Some(number::compare(value, wanted.as_bytes()))
        }
        (b'"', Scalar::String(wanted)) => {
            let text: Cow<'_, str> = json::unquoted(value)?;
            // Bytes of UTF-8 are in the order of code points.
            Some((*text).cmp(wanted.as_str()))
        }
        _ => None,
    }
}
