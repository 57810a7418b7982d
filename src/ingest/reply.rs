//! The reply that the log keeps with a submission that has an idempotency key: its answer, without partitions and offsets.
//!
//! ```text
//! version u8 = 1 or 2, flags u8 (1 = a batch, 2 = order, 4 = warnings), digest of the body 16 bytes
//! order      for each message the number of its append, u8; absent if there is one append
//! warnings   one bit for each message: its secret was unknown; lowest bit first
//! ```
//!
//! Version 2 adds further warnings, in the order of their messages. A reply without them is written as version 1, which
//! earlier releases can read.
//!
//! ```text
//! further    their number u8, then each of them
//! each       number of its message u32, kind u8
//! kind 0-4   a member has nearly the name at that index of `model::message::MEMBERS`; its name: length u8, bytes
//! kind 16-19 the target is blocked, for the reason at that index of `Forbidden::ALL`
//! ```
//!
//! Journals hold these bytes, so every later version of this code must read both versions.

use bytes::Bytes;

use crate::{
    model::{address::Forbidden, slip::Slip},
    storage::Appended,
};

use super::{Warning, idempotency::BodyDigest, prepare::AppendPlace};

/// The kept parts of an answer.
#[derive(Debug)]
pub(super) struct KeptReply {
    pub(super) digest: BodyDigest,
    pub(super) batch: bool,
    pub(super) places: Vec<AppendPlace>,
    pub(super) warnings: Vec<Vec<Warning>>,
}

const VERSION: u8 = 1;
const VERSION_WITH_MORE: u8 = 2;
const BATCH: u8 = 1;
const ORDER: u8 = 2;
const WARNINGS: u8 = 4;
/// First kind of the warnings about blocked targets.
const BLOCKED: u8 = 16;

impl KeptReply {
    /// Returns the bytes.
    pub(super) fn encode(
        digest: BodyDigest,
        batch: bool,
        places: &[AppendPlace],
        warnings: &[Vec<Warning>],
    ) -> Bytes {
        let ordered = places.iter().any(|place| place.append > 0);
        let is_warned = |warnings: &Vec<Warning>| warnings.contains(&Warning::SecretUnknown);
        let warned = warnings.iter().any(is_warned);
        let numbered = (0_u32..).zip(warnings);
        let more = numbered.flat_map(|(number, of)| of.iter().map(move |one| (number, one)));
        let more: Vec<_> = more
            .filter(|(_, warning)| **warning != Warning::SecretUnknown)
            .collect();
        let version = match more.is_empty() {
            true => VERSION,
            false => VERSION_WITH_MORE,
        };
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(batch, BATCH) | flag(ordered, ORDER) | flag(warned, WARNINGS);
        let mut bytes = vec![version, flags];
        bytes.extend(digest.0);
        if ordered {
            let number = |place: &AppendPlace| {
                u8::try_from(place.append).expect("a stream has 256 partitions at most")
            };
            bytes.extend(places.iter().map(number));
        }
        if warned {
            bytes.extend(warnings.chunks(8).map(|eight| {
                let bits = (0u8..).zip(eight);
                bits.fold(0, |byte, (at, warnings)| {
                    byte | u8::from(is_warned(warnings)) << at
                })
            }));
        }
        if version == VERSION_WITH_MORE {
            bytes.push(u8::try_from(more.len()).expect("an answer has a hundred of them at most"));
            for (number, warning) in more {
                write_more(number, warning, &mut bytes);
            }
        }
        bytes.into()
    }

    /// Reads the reply of a commit with these appends; `None` if it does not fit them.
    pub(super) fn decode(bytes: &[u8], appends: &[Appended]) -> Option<Self> {
        let (&[version, flags], rest) = bytes.split_first_chunk()?;
        let (digest, mut rest) = rest.split_first_chunk()?;
        if !matches!(version, VERSION | VERSION_WITH_MORE)
            || flags & !(BATCH | ORDER | WARNINGS) != 0
        {
            return None;
        }
        let len = appends.iter().map(|append| append.len).sum::<u64>();
        let len = usize::try_from(len).ok()?;
        let mut places = Vec::new();
        let mut seen = vec![0; appends.len()];
        let mut put = |append: usize| {
            let index = seen.get_mut(append)?;
            let place = AppendPlace {
                append,
                index: *index,
            };
            *index += 1;
            places.push(place);
            Some(())
        };
        if flags & ORDER == 0 {
            for _ in 0..len {
                put(0)?;
            }
        } else {
            let (order, after) = rest.split_at_checked(len)?;
            rest = after;
            for append in order {
                put(usize::from(*append))?;
            }
        }
        if !seen
            .iter()
            .copied()
            .eq(appends.iter().map(|append| append.len))
        {
            return None;
        }
        let mut warnings = vec![Vec::new(); len];
        if flags & WARNINGS != 0 {
            let (bits, after) = rest.split_at_checked(len.div_ceil(8))?;
            rest = after;
            for (at, warnings) in warnings.iter_mut().enumerate() {
                if bits[at / 8] >> (at % 8) & 1 == 1 {
                    warnings.push(Warning::SecretUnknown);
                }
            }
        }
        if version == VERSION_WITH_MORE {
            let (&more_len, after) = rest.split_first()?;
            rest = after;
            for _ in 0..more_len {
                let (number, warning);
                (number, warning, rest) = read_more(rest)?;
                warnings.get_mut(number)?.push(warning);
            }
        }
        rest.is_empty().then_some(Self {
            digest: BodyDigest(*digest),
            batch: flags & BATCH != 0,
            places,
            warnings,
        })
    }
}

fn write_more(number: u32, warning: &Warning, to: &mut Vec<u8>) {
    match warning {
        Warning::SecretUnknown => {}
        Warning::UnknownMember(slip) => {
            let given = slip.given.as_bytes();
            let len = u8::try_from(given.len()).expect("a slip has 128 bytes at most");
            to.extend(number.to_le_bytes());
            to.extend([slip.index(), len]);
            to.extend(given);
        }
        Warning::TargetBlocked(why) => {
            let index = Forbidden::ALL.iter().position(|one| one == why);
            let index = index.and_then(|index| u8::try_from(index).ok());
            to.extend(number.to_le_bytes());
            to.push(BLOCKED + index.expect("the list has all four reasons"));
        }
    }
}

/// Reads a warning; returns the number of its message, the warning and the rest of the bytes.
fn read_more(bytes: &[u8]) -> Option<(usize, Warning, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    let number = usize::try_from(u32::from_le_bytes(*number)).ok()?;
    let (&kind, rest) = rest.split_first()?;
    if let Some(index) = kind.checked_sub(BLOCKED) {
        let why = *Forbidden::ALL.get(usize::from(index))?;
        return Some((number, Warning::TargetBlocked(why), rest));
    }
    let (&len, rest) = rest.split_first()?;
    let (given, rest) = rest.split_at_checked(usize::from(len))?;
    let slip = Slip::new(std::str::from_utf8(given).ok()?, kind)?;
    Some((number, Warning::UnknownMember(slip), rest))
}
