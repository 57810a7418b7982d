//! Check: cuts a body into messages and checks each of them.
//!
//! `envelope.rs` reads a correct message quickly. If it refuses one, `check.rs` names every fault.

use serde_json::value::RawValue;

use crate::{
    config::Config,
    json::{
        faults::{DEPTH_MAX, Faults, FieldCode, fault, is_full},
        scan::{self, Start},
    },
    model::address::AddressRule,
};

use super::{
    BODY_SLACK_BYTES, Error, Form,
    check::{add, explain, read_leniently, unread, wrong_type},
    envelope::{self, Checked, Envelope},
};

/// The bounds and settings that a message is checked against.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) lenient: bool,
    pub(super) operations: Vec<String>,
    pub(super) record_bytes_max: usize,
    pub(super) key_bytes_max: usize,
    pub(super) headers_bytes_max: usize,
    pub(super) batch_len_max: usize,
    /// The addresses that dispatch may call.
    pub(super) rule: AddressRule,
}

impl Limits {
    pub(super) fn new(config: &Config) -> Self {
        let (sync, dispatch) = (&config.sync, &config.dispatch);
        let oci = config.oci_sample.as_ref();
        Self {
            lenient: sync.lenient || oci.is_some_and(|oci| oci.compat),
            operations: sync.operations.clone(),
            record_bytes_max: sync.record_bytes_max,
            key_bytes_max: sync.key_bytes_max,
            headers_bytes_max: sync.headers_bytes_max,
            batch_len_max: sync.batch_len_max,
            rule: AddressRule::new(
                dispatch.private_addresses,
                dispatch.loopback_addresses,
                &[config.server.listen],
            ),
        }
    }

    /// Checks all messages of a body; also returns whether the body is a batch.
    pub(super) fn read<'a>(
        &self,
        body: &'a [u8],
        form: Form,
    ) -> Result<(bool, Vec<Checked<'a>>), Error> {
        let text = std::str::from_utf8(body)
            .map_err(|_| of_body(FieldCode::NotUtf8, "the body is not UTF-8"))?;
        match form {
            Form::Json if text.trim_ascii_start().starts_with('[') => {
                Ok((true, self.read_batch(&self.elements(text)?)?))
            }
            Form::Json => {
                check_depth(body)?;
                Ok((false, vec![self.read_one(Piece::whole(text), None)?]))
            }
            Form::Lines => Ok((true, self.read_batch(&self.lines(text)?)?)),
        }
    }

    /// Returns the elements of an array.
    fn elements<'a>(&self, text: &'a str) -> Result<Vec<Piece<'a>>, Error> {
        // The array adds one level of depth to its messages.
        let inner = text.trim_ascii_start().as_bytes().get(1..);
        check_depth(inner.unwrap_or_default())?;
        let elements = scan::elements(text, self.batch_len_max).map_err(|error| {
            let (code, what) = unread(text, &error, Start::default(), "an array");
            of_body(code, &what)
        })?;
        let elements = elements.ok_or_else(|| self.too_many())?;
        // serde_json has read each element, so no later fault needs its line and column.
        let pieces = elements.into_iter().map(RawValue::get).map(Piece::whole);
        self.check_len(pieces.collect())
    }

    /// Returns the lines of a body, without empty ones.
    fn lines<'a>(&self, text: &'a str) -> Result<Vec<Piece<'a>>, Error> {
        let lines = text.split('\n').enumerate();
        let pieces = lines.map(|(at, line)| Piece::line(line, at));
        let pieces = pieces.filter(|piece| !piece.text.is_empty());
        let pieces = self.check_len(pieces.take(self.batch_len_max + 1).collect())?;
        for piece in &pieces {
            check_depth(piece.text.as_bytes())?;
        }
        Ok(pieces)
    }

    fn check_len<'a>(&self, pieces: Vec<Piece<'a>>) -> Result<Vec<Piece<'a>>, Error> {
        match pieces.len() {
            0 => Err(of_body(FieldCode::Required, "the batch is empty")),
            len if len > self.batch_len_max => Err(self.too_many()),
            _ => Ok(pieces),
        }
    }

    fn too_many(&self) -> Error {
        let what = format!("a batch has at most {} messages", self.batch_len_max);
        of_body(FieldCode::TooLong, &what)
    }

    fn read_batch<'a>(&self, pieces: &[Piece<'a>]) -> Result<Vec<Checked<'a>>, Error> {
        let mut faults = Faults::new();
        let mut messages = Vec::with_capacity(pieces.len());
        for (index, piece) in pieces.iter().enumerate() {
            if is_full(&faults) {
                break;
            }
            match self.read_one(*piece, Some(index)) {
                Ok(message) => messages.push(message),
                Err(Error::TooLarge { bytes_max, .. }) => {
                    let what = format!("a message has at most {bytes_max} bytes");
                    let pointer = format!("/{index}/streamMessage");
                    fault(&mut faults, &pointer, FieldCode::TooLong, &what);
                }
                Err(Error::Invalid(errors)) => {
                    for error in errors {
                        fault(&mut faults, &error.pointer, error.code, &error.detail);
                    }
                }
                Err(other) => return Err(other),
            }
        }
        match faults.is_empty() {
            true => Ok(messages),
            false => Err(Error::Invalid(faults)),
        }
    }

    /// Checks one message; `index` is its number in a batch.
    ///
    /// A message that is too large is refused before its members are listed, because such a list can take ten times the
    /// bytes of the message.
    fn read_one<'a>(&self, piece: Piece<'a>, index: Option<usize>) -> Result<Checked<'a>, Error> {
        let Piece { text, start } = piece;
        let bytes_max = self.record_bytes_max;
        let envelope = Envelope::read(text);
        if let Some(bytes) = envelope.as_ref().map(Envelope::bytes_len)
            && bytes > bytes_max
        {
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        if let Some(message) = envelope.and_then(|envelope| envelope::read(envelope, self)) {
            return Ok(message);
        }
        // Without an envelope, key and message have no known length: the bound is on the whole text.
        let bytes = text.len();
        if bytes > bytes_max + BODY_SLACK_BYTES {
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        let at = &index.map_or_else(String::new, |index| format!("/{index}"));
        let mut faults = Faults::new();
        if self.lenient {
            if let Some(message) = read_leniently(text, start, at, self, &mut faults) {
                let bytes = message.bytes_len();
                return match bytes > bytes_max {
                    true => Err(Error::TooLarge { bytes, bytes_max }),
                    false => Ok(message),
                };
            }
        } else {
            explain(text, start, at, self, &mut faults);
        }
        if faults.is_empty() {
            // `envelope.rs` refused the message and `check.rs` found no fault. A refusal loses nothing, so refuse.
            add(&mut faults, at, wrong_type("a sync message"));
        }
        Err(Error::Invalid(faults))
    }
}

/// Returns the refusal of a body with one fault that belongs to no member.
fn of_body(code: FieldCode, what: &str) -> Error {
    let mut faults = Faults::new();
    fault(&mut faults, "", code, what);
    Error::Invalid(faults)
}

fn check_depth(text: &[u8]) -> Result<(), Error> {
    match scan::depth_is_legal(text) {
        true => Ok(()),
        false => {
            let what = format!("objects and arrays can be {DEPTH_MAX} deep");
            Err(of_body(FieldCode::TooLong, &what))
        }
    }
}

/// The text of one message, and its start in the body.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    start: Start,
}

impl<'a> Piece<'a> {
    fn whole(text: &'a str) -> Self {
        let start = Start::default();
        Self { text, start }
    }

    /// Takes a line without the blanks around it.
    fn line(line: &'a str, lines_before: usize) -> Self {
        let rest = line.trim_ascii_start();
        let bytes_before = line.len() - rest.len();
        Self {
            text: rest.trim_ascii_end(),
            start: Start {
                lines_before,
                bytes_before,
            },
        }
    }
}
