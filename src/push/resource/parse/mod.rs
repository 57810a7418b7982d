//! Reads a configuration. Every fault is named, with its JSON pointer and a legal value.

mod encoding;
mod member;
mod objects;
mod rules;
#[cfg(test)]
mod tests;

use crate::json::{
    faults::{Faults, FieldCode, FieldError, fault},
    object::{self, Object},
    scan,
};

use super::{QualityOfService, Resource};

/// The members of a configuration.
const MEMBERS: [&str; 10] = [
    "$schema",
    "description",
    "source",
    "rules",
    "encoding",
    "bufferSize",
    "qualityOfService",
    "cloudEventsFormat",
    "tcpKeepAliveTimeout",
    "x-syncgate",
];
pub(super) const SCHEMA: &str = "ogg:dataStream";
const BYTES_OF_FRAME: std::ops::RangeInclusive<u64> = 131_072..=10_485_760;
const BUFFER_SIZE: u64 = 1 << 20;

impl Resource {
    /// Reads a configuration. The caller checks that the stream or alias in `source.trail` exists, and that the whole
    /// is short enough to store.
    ///
    /// # Errors
    /// Every fault, up to a hundred.
    pub fn parse(body: &[u8]) -> Result<Self, Vec<FieldError>> {
        let (object, mut faults) = object::body(body, &MEMBERS)?;
        member::constant(&object, "$schema", SCHEMA, &mut faults);
        let size = member::whole(&object, "bufferSize", BYTES_OF_FRAME, &mut faults);
        let seconds = member::whole(&object, "tcpKeepAliveTimeout", 1..=10_800, &mut faults);
        let words = &QualityOfService::WORDS;
        let quality = member::word(&object, "qualityOfService", words, &mut faults);
        let resource = Self {
            description: member::text(&object, "description", 1..=4095, &mut faults),
            trail: trail(&object, &mut faults),
            rules: rules::read(&object, &mut faults),
            encoding: encoding::read(&object, &mut faults),
            buffer_size: member::narrow(size.unwrap_or(BUFFER_SIZE)),
            quality_of_service: quality.unwrap_or_default(),
            cloud_events_format: object.flag("cloudEventsFormat", &mut faults),
            tcp_keep_alive_seconds: member::narrow(seconds.unwrap_or(120)),
            view: objects::read(&object, &mut faults),
        };
        match faults.is_empty() {
            true => Ok(resource),
            false => Err(faults),
        }
    }
}

/// Applies JSON Merge Patch to the top-level members of a configuration: a member of the patch replaces the whole old
/// one, `null` removes it. The caller parses the result.
///
/// # Errors
/// Every fault of the patch itself: it is not an object, or has unknown members.
pub fn merge_patch(current: &[u8], patch: &[u8]) -> Result<Vec<u8>, Vec<FieldError>> {
    let (patch, mut faults) = object::body(patch, &MEMBERS)?;
    let (current, of_current) = object::body(current, &MEMBERS)?;
    faults.extend(of_current);
    if !faults.is_empty() {
        return Err(faults);
    }
    let members = MEMBERS.iter().filter_map(|name| {
        let value = patch.get(name).or_else(|| current.get(name))?;
        (!scan::is_null(value)).then(|| format!("{name:?}:{value}"))
    });
    let members: Vec<_> = members.collect();
    Ok(format!("{{{}}}", members.join(",")).into_bytes())
}

/// Reads `source`.
fn trail(object: &Object<'_>, faults: &mut Faults) -> String {
    let Some(source) = object.required("source", faults) else {
        return String::new();
    };
    let at = object.pointer("source");
    let Some(source) = Object::parse(source.get(), at, &["trail", "path"], faults) else {
        return String::new();
    };
    member::constant(&source, "path", "/", faults);
    let Some(trail) = source.text("trail", faults) else {
        return String::new();
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_#$/-".contains(&byte);
    if !(2..=512).contains(&trail.len()) || !trail.bytes().all(legal) {
        let what = "this must be the name of a stream or an alias of one: 2 to 512 letters, digits, '_', '#', '$', '/' \
                    and '-'";
        fault(faults, &source.pointer("trail"), FieldCode::WrongType, what);
    }
    trail.into_owned()
}
