//! What the parts of a record are compared with. A part is looked up once among all values that rules compare it with;
//! what each comparison says follows from its place there.

use std::cmp::Ordering;

use crate::push::{
    encode::{json, number::Number},
    resource::{Operator, Scalar},
};

/// The values that one part is compared with, sorted, each once.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    numbers: Vec<Number>,
    strings: Vec<String>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// By its place.
    Number(usize),
    String(usize),
}

/// What a part of a record is, as far as comparisons need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// It is not there, or it has parts itself.
    #[default]
    None,
    Null,
    Bool(bool),
    Number(Found),
    String(Found),
}

/// Where it is among the values: at one of them, or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    At(usize),
    Before(usize),
}

impl Wanted {
    /// Takes a value in. Places are known once all are in: see [`Wanted::place`].
    pub(super) fn add(&mut self, value: &Scalar) {
        match value {
            Scalar::Number(text) => self.numbers.push(Number::read(text.as_bytes())),
            Scalar::String(text) => self.strings.push(text.clone()),
            Scalar::Null | Scalar::Bool(_) => {}
        }
    }

    /// Puts all that was added in order.
    pub(super) fn sort(&mut self) {
        self.numbers.sort_unstable();
        self.numbers.dedup();
        self.strings.sort_unstable();
        self.strings.dedup();
    }

    /// Returns a value that was added.
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
                // Bytes are in the order of code points.
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
    /// Returns whether a comparison with a value holds; values of different types meet none.
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

    /// Returns the value that it equals, if it is one of those that it is compared with.
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
