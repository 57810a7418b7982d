//! Documents from outside: `PATCH …/yaml` stores one in place of the generated one.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, Tag};

use crate::json::faults::DEPTH_MAX;

/// Checks that the text is one YAML document with `asyncapi` 3.0.x and exactly one channel.
///
/// The document is served unchanged, so anchors, aliases, private tags and repeated keys are refused: its readers
/// would have to expand them. The check reads events and builds no tree, so its memory is linear in the text.
///
/// # Errors
/// What is wrong, with the line where there is one.
pub fn check_document(text: &str) -> Result<(), String> {
    let mut open: Vec<Container> = Vec::new();
    let (mut documents, mut version, mut channels_len) = (0, None, 0);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let (line, what) = (error.marker().line(), error.info());
            format!("this is not YAML: {what} in line {line}")
        })?;
        let at = |what: &str| Err(format!("{what} in line {}", span.start.line()));
        let (anchor, tag) = match &event {
            Event::Alias(_) => return at("there is an alias"),
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag),
            Event::DocumentStart(_) => {
                documents += 1;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                continue;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
        };
        if anchor > 0 {
            return at("there is an anchor");
        } else if tag.as_deref().is_some_and(|tag| !is_known(tag)) {
            return at("there is a tag");
        }
        // The member that the next event is the value of; `None` if the event is a name or an element.
        let mut member = None;
        if let Some(Container::Mapping(mapping)) = open.last_mut() {
            member = mapping.member.take();
            if member.is_none() {
                let Event::Scalar(name, ..) = &event else {
                    return at("there is a key that is no text");
                };
                if !mapping.names.insert(name.to_string()) {
                    return at("a key is there more than once");
                }
                mapping.member = Some(name.to_string());
                channels_len += usize::from(mapping.is_channels);
            }
        }
        let member = member.as_deref().filter(|_| open.len() == 1);
        match event {
            Event::Scalar(text, ..) if member == Some("asyncapi") => {
                version = Some(text.into_owned())
            }
            Event::MappingStart(..) => open.push(Container::Mapping(Mapping {
                is_channels: member == Some("channels"),
                ..Mapping::default()
            })),
            Event::SequenceStart(..) => open.push(Container::Sequence),
            _ if open.is_empty() => return at("the document is no mapping"),
            _ => {}
        }
        if open.len() > DEPTH_MAX {
            return Err(format!("mappings and sequences can be {DEPTH_MAX} deep"));
        }
    }
    let digits = version
        .as_deref()
        .and_then(|text| text.strip_prefix("3.0."));
    let is_version = |digits: &str| {
        (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if documents != 1 {
        return Err("this must be one YAML document".into());
    } else if !digits.is_some_and(is_version) {
        return Err("asyncapi must be 3.0.0, or another version that begins with 3.0.".into());
    } else if channels_len != 1 {
        return Err("channels must be a mapping with exactly one channel".into());
    }
    Ok(())
}

/// The kind of container around an event.
enum Container {
    Sequence,
    Mapping(Mapping),
}

#[derive(Default)]
struct Mapping {
    names: HashSet<String>,
    /// The member whose value comes next.
    member: Option<String>,
    is_channels: bool,
}

/// Returns whether the tag is one of YAML's own.
fn is_known(tag: &Tag) -> bool {
    let known = ["str", "int", "float", "bool", "null", "map", "seq"];
    tag.is_yaml_core_schema() && known.contains(&&*tag.suffix)
}
