//! The known keys, derived from the structs, so that there is no second list.

use std::cell::Cell;

use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
        value::{Error, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::Config;

/// The kind of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A table with these keys.
    Table(&'static [&'static str]),
    /// A list of tables with these keys.
    Tables(&'static [&'static str]),
    /// A table whose keys are free.
    Map,
    /// A single value.
    Leaf,
}

/// Returns the kind of the value at `path`; `None` if there is no such key.
pub(super) fn shape(path: &[&str]) -> Option<Shape> {
    let found = Cell::new(None);
    let probe = Probe {
        path,
        found: &found,
        listed: false,
    };
    // The probe has no values, so it always ends in an error.
    drop(Config::deserialize(probe));
    found.get()
}

/// A deserializer without values. It notes the type that the struct asks for at the end of its path.
struct Probe<'a> {
    path: &'a [&'a str],
    found: &'a Cell<Option<Shape>>,
    listed: bool,
}

impl Probe<'_> {
    fn note(&self, shape: Shape) -> Error {
        if self.path.is_empty() {
            self.found.set(Some(shape));
        }
        Error::custom("noted")
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(self.note(Shape::Leaf))
    }

    fn deserialize_map<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        if self.path.len() == 1 {
            self.found.set(Some(Shape::Leaf));
        }
        Err(self.note(Shape::Map))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(One(Some(Probe {
            listed: true,
            ..self
        })))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.path {
            [] if self.listed => Err(self.note(Shape::Tables(fields))),
            [] => Err(self.note(Shape::Table(fields))),
            _ => visitor.visit_map(One(Some(self))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct enum identifier ignored_any
    }
}

/// One member or element.
struct One<'a>(Option<Probe<'a>>);

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let first = self.0.as_ref().and_then(|probe| probe.path.first());
        first
            .map(|key| seed.deserialize(StrDeserializer::new(key)))
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let probe = self
            .0
            .take()
            .ok_or_else(|| Error::custom("one value only"))?;
        seed.deserialize(Probe {
            path: probe.path.get(1..).unwrap_or_default(),
            listed: false,
            ..probe
        })
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0
            .take()
            .map(|probe| seed.deserialize(probe))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_off_the_structs() {
        assert!(matches!(shape(&[]), Some(Shape::Table(keys)) if keys.contains(&"server")));
        assert!(matches!(shape(&["server"]), Some(Shape::Table(keys)) if keys.contains(&"listen")));
        assert!(matches!(shape(&["oci_sample"]), Some(Shape::Table(keys)) if keys.len() == 10));
        assert!(matches!(shape(&["streams"]), Some(Shape::Tables(keys)) if keys.contains(&"ocid")));
        assert_eq!(shape(&["outcomes"]), Some(Shape::Map));
        assert_eq!(shape(&["outcomes", "404"]), Some(Shape::Leaf));
        for leaf in [
            ["server", "listen"],
            ["server", "hosts"],
            ["sync", "answer"],
            ["roles", "source"],
            ["secrets", "master_key_file"],
            ["dispatch", "loopback_addresses"],
        ] {
            assert_eq!(shape(&leaf), Some(Shape::Leaf), "{leaf:?}");
        }
        assert_eq!(shape(&["sever"]), None);
        assert_eq!(shape(&["server", "listn"]), None);
    }
}
