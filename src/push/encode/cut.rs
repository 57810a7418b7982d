//! Columns that are cut because they, or their record, are too large (`push-decisions.md` §5).

use std::{borrow::Cow, collections::BinaryHeap};

use crate::push::resource::TRUNCATED;

use super::{json, meta::name, view::Name, write::Written};

const COLUMNS: &[u8] = br#"{"columns":["#;
const BYTES: &[u8] = br#"],"bytes":"#;

/// The cuts of one record.
#[derive(Debug)]
pub(super) struct Cuts {
    /// Names of the cut columns as JSON strings, each after a comma.
    names: Vec<u8>,
    /// By column: whether `names` has it.
    named: Vec<bool>,
    /// Bytes that the cuts have saved; negative where the text of an object is longer than the object.
    saved: i64,
    /// Columns that can be cut, by the bytes of their values; made by the first call that needs it.
    largest: Option<BinaryHeap<(usize, usize)>>,
}

impl Cuts {
    /// Cuts strings that have more than `bytes_max` bytes.
    pub(super) fn of(columns: &mut [Written<'_>], bytes_max: usize) -> Self {
        let mut cuts = Self {
            names: Vec::new(),
            named: vec![false; columns.len()],
            saved: 0,
            largest: None,
        };
        for (number, column) in columns.iter_mut().enumerate() {
            // An encoded value is never shorter than its text.
            let long = column.value.first() == Some(&b'"') && column.value.len() - 2 > bytes_max;
            let text = long.then(|| json::unquoted_lossy(&column.value)).flatten();
            let Some(text) = text.filter(|text| text.len() > bytes_max) else {
                continue;
            };
            let kept = &text[..text.floor_char_boundary(bytes_max)];
            let mut value = Vec::with_capacity(kept.len() + 2);
            json::push_string(kept, &mut value);
            cuts.replace(number, column, value);
        }
        cuts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the bytes of a record after the cuts, if it had `whole` bytes before.
    pub(super) fn bytes_of(&self, whole: usize) -> usize {
        let mut told = Vec::new();
        if !self.is_empty() {
            // The length of the names is known, so they are not copied.
            head(&mut told);
            tail(whole, &mut told);
        }
        let all = i64::try_from(whole + told.len() + self.names.len().saturating_sub(1));
        let left = all.unwrap_or(i64::MAX) - self.saved;
        usize::try_from(left).unwrap_or(0)
    }

    /// Cuts the column with most bytes by `excess`, or as far as possible; false if there is none.
    ///
    /// An object or array becomes its text first. A number is never cut, because part of a number is another number.
    /// `name_len` returns the bytes that a left-out column saves with its name.
    pub(super) fn cut_largest(
        &mut self,
        columns: &mut [Written<'_>],
        excess: usize,
        name_len: impl FnOnce(&Name<'_>) -> usize,
    ) -> bool {
        let largest = self.largest.get_or_insert_with(|| {
            let all = columns.iter().enumerate();
            all.filter_map(|(number, column)| Some((cuttable(column)?, number)))
                .collect()
        });
        let Some((_, number)) = largest.pop() else {
            return false;
        };
        let column = &mut columns[number];
        let is_text = column.value.first() == Some(&b'"');
        if column.is_whole() && !is_text {
            let name_len = i64::try_from(name_len(column.name)).unwrap_or(0);
            self.replace(number, column, Vec::new());
            self.saved += name_len;
            return true;
        }
        let text = match is_text {
            true => json::unquoted_lossy(&column.value).unwrap_or_default(),
            false => String::from_utf8_lossy(&column.value),
        };
        let room = column.value.len().saturating_sub(excess + 2);
        let mut used = 0;
        let fits = |c: &char| {
            used += escaped_len(*c);
            used <= room
        };
        let kept: usize = text.chars().take_while(fits).map(char::len_utf8).sum();
        let mut value = Vec::with_capacity(room + 2);
        json::push_string(&text[..kept], &mut value);
        self.replace(number, column, value);
        if let (Some(len), Some(largest)) = (cuttable(column), &mut self.largest) {
            largest.push((len, number));
        }
        true
    }

    /// Appends the member `truncated`, which names the cuts.
    pub(super) fn write(&self, whole: usize, out: &mut Vec<u8>) {
        head(out);
        out.extend_from_slice(self.names.get(1..).unwrap_or_default());
        tail(whole, out);
    }

    fn replace(&mut self, number: usize, column: &mut Written<'_>, value: Vec<u8>) {
        let len = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        self.saved += len(column.value.len()) - len(value.len());
        column.value = Cow::Owned(value);
        if !std::mem::replace(&mut self.named[number], true) {
            self.names.push(b',');
            json::push_string(column.name.as_str(), &mut self.names);
        }
    }
}

fn head(out: &mut Vec<u8>) {
    name(TRUNCATED, out);
    out.extend_from_slice(COLUMNS);
}

fn tail(whole: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(BYTES);
    out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    out.push(b'}');
}

/// Returns how many bytes of a value can be cut.
fn cuttable(column: &Written<'_>) -> Option<usize> {
    let can_be = matches!(column.value.first(), Some(b'"' | b'{' | b'['));
    (can_be && column.value.len() > 2).then_some(column.value.len())
}

/// Returns the bytes of a character in a JSON string.
fn escaped_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        '\0'..' ' | '\u{2028}' | '\u{2029}' => 6,
        c => c.len_utf8(),
    }
}
