//! The values that rules compare with a part of a record. A part is looked up once among all of them, and the result
//! of each comparison follows from its index there.

use std::cmp::Ordering;

use crate::push::{
    encode::{json, number::Number},
    resource::{Operator, Scalar},
};

/// The values that one part is compared with, sorted and distinct.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    numbers: Vec<Number>,
    strings: Vec<String>,
}

/// A value, by its index among those of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// The index among the numbers.
    Number(usize),
    String(usize),
}

/// The value of a part, as far as comparisons need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// The part is absent, an object or an array.
    #[default]
    None,
    Null,
    Bool(bool),
    Number(Found),
    String(Found),
}

/// The index of the equal value, or of the first greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    At(usize),
    Before(usize),
}

impl Wanted {
    /// Adds a value. Indices are known once all are added: see [`Wanted::place`].
    pub(super) fn add(&mut self, value: &Scalar) {
        match value {
            Scalar::Number(text) => self.numbers.push(Number::read(text.as_bytes())),
            Scalar::String(text) => self.strings.push(text.clone()),
            Scalar::Null | Scalar::Bool(_) => {}
        }
    }

    /// Sorts the added values.
    pub(super) fn sort(&mut self) {
        self.numbers.sort_unstable();
        self.numbers.dedup();
        self.strings.sort_unstable();
        self.strings.dedup();
    }

    /// Returns the index of an added value.
    pub(super) fn place(&self, value: &Scalar) -> Value {
        match value {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Bool(*value),
            Scalar::Number(text) => {
                let number = Number::read(text.as_bytes());
                Value::Number(self.numbers.partition_point(|known| *known < number))
            }
            Scalar::String(text) => {
                Value::String(self.strings.partition_point(|known| known < text))
            }
        }
    }

    /// Looks a part of a record up.
    pub(super) fn look_up(&self, part: Option<&[u8]>) -> Part {
        let Some(part) = part else {
            return Part::None;
        };
        match part.first() {
            Some(b'n') => Part::Null,
            Some(b't') => Part::Bool(true),
            Some(b'f') => Part::Bool(false),
            Some(b'-' | b'0'..=b'9') => {
                let number = Number::read(part);
                Part::Number(found(self.numbers.binary_search(&number)))
            }
            Some(b'"') => match json::decoded(part) {
                // Byte order is code point order.
                Some(text) => Part::String(found(
                    self.strings
                        .binary_search_by(|known| known.as_bytes().cmp(&text)),
                )),
                None => Part::None,
            },
            _ => Part::None,
        }
    }
}

fn found(place: Result<usize, usize>) -> Found {
    match place {
        Ok(at) => Found::At(at),
        Err(before) => Found::Before(before),
    }
}

impl Found {
    fn cmp(self, wanted: usize) -> Ordering {
        match self {
            Self::At(at) => at.cmp(&wanted),
            Self::Before(at) if at <= wanted => Ordering::Less,
            Self::Before(_) => Ordering::Greater,
        }
    }
}

impl Part {
    /// Returns whether a comparison with a value holds; values of different types never meet.
    pub(super) fn meets(self, operator: Operator, wanted: Value) -> bool {
        let (ordering, has_order) = match (self, wanted) {
            (Self::Null, Value::Null) => (Ordering::Equal, false),
            (Self::Bool(value), Value::Bool(wanted)) => (value.cmp(&wanted), false),
            (Self::Number(found), Value::Number(wanted))
            | (Self::String(found), Value::String(wanted)) => (found.cmp(wanted), true),
            _ => return false,
        };
        match operator {
            Operator::Eq => ordering == Ordering::Equal,
            Operator::Ne => ordering != Ordering::Equal,
            Operator::Lt => has_order && ordering == Ordering::Less,
            Operator::Gt => has_order && ordering == Ordering::Greater,
            Operator::Le => has_order && ordering != Ordering::Greater,
            Operator::Ge => has_order && ordering != Ordering::Less,
        }
    }

    /// Returns the value that the part equals, if there is one.
    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Null => Some(Value::Null),
            Self::Bool(value) => Some(Value::Bool(value)),
            Self::Number(Found::At(at)) => Some(Value::Number(at)),
            Self::String(Found::At(at)) => Some(Value::String(at)),
            _ => None,
        }
    }
}
