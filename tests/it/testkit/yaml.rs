//! Reads the documents that we serve.

use serde_json::Value;

/// Reads YAML as JSON; what our documents have and no more.
pub(crate) fn read(text: &str) -> Value {
    let mut events = saphyr_parser::Parser::new_from_str(text).map(|event| event.unwrap().0);
    fn value(
        events: &mut dyn Iterator<Item = saphyr_parser::Event<'_>>,
        first: saphyr_parser::Event<'_>,
    ) -> Option<Value> {
        use saphyr_parser::{Event, ScalarStyle};
        Some(match first {
            Event::Scalar(text, ScalarStyle::Plain, ..) => {
                serde_json::from_str(&text).unwrap_or(Value::String(text.into()))
            }
            Event::Scalar(text, ..) => Value::String(text.into()),
            Event::SequenceStart(..) => {
                let mut entries = Vec::new();
                while let Some(entry) = events.next().and_then(|next| value(events, next)) {
                    entries.push(entry);
                }
                entries.into()
            }
            Event::MappingStart(..) => {
                let mut members = serde_json::Map::new();
                while let Some(name) = events.next().and_then(|next| value(events, next)) {
                    let next = events.next().unwrap();
                    members.insert(name.as_str().unwrap().into(), value(events, next).unwrap());
                }
                members.into()
            }
            _ => return None,
        })
    }
    let start =
        |event: &saphyr_parser::Event<'_>| matches!(event, saphyr_parser::Event::MappingStart(..));
    let first = events.find(start).unwrap();
    value(&mut events, first).unwrap()
}
