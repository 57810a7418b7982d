//! What the log keeps with a submission that has a key, beside its records and their places: all that its answer said.
//!
//! ```text
//! version u8 = 1, flags u8 (1 = a batch, 2 = order, 4 = warnings), digest of the body 16 bytes
//! order      of each message the number of its append, u8; without it there is one append
//! warnings   one bit for each message: its secret was unknown; lowest bit first
//! ```
//!
//! These bytes are in journals: later versions of them are read beside this one.

use bytes::Bytes;

use crate::storage::Appended;

use super::{Place, Warning, idempotency::BodyDigest};

/// What is told again beside the places.
#[derive(Debug)]
pub(super) struct Memo {
    pub(super) digest: BodyDigest,
    pub(super) batch: bool,
    pub(super) places: Vec<Place>,
    pub(super) warnings: Vec<Vec<Warning>>,
}

const VERSION: u8 = 1;
const BATCH: u8 = 1;
const ORDER: u8 = 2;
const WARNINGS: u8 = 4;

impl Memo {
    /// Returns the bytes.
    pub(super) fn encode(
        digest: BodyDigest,
        batch: bool,
        places: &[Place],
        warnings: &[Vec<Warning>],
    ) -> Bytes {
        let ordered = places.iter().any(|place| place.append > 0);
        let warned = warnings.iter().any(|warnings| !warnings.is_empty());
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(batch, BATCH) | flag(ordered, ORDER) | flag(warned, WARNINGS);
        let mut bytes = vec![VERSION, flags];
        bytes.extend(digest.0);
        if ordered {
            let number = |place: &Place| {
                u8::try_from(place.append).expect("a stream has 256 partitions at most")
            };
            bytes.extend(places.iter().map(number));
        }
        if warned {
            let is_warned = |warnings: &Vec<Warning>| {
                warnings.iter().any(|warning| match warning {
                    Warning::SecretUnknown => true,
                })
            };
            bytes.extend(warnings.chunks(8).map(|eight| {
                let bits = (0u8..).zip(eight);
                bits.fold(0, |byte, (at, warnings)| {
                    byte | u8::from(is_warned(warnings)) << at
                })
            }));
        }
        bytes.into()
    }

    /// Reads the memo of a commit that had these appends; `None` if it does not fit them.
    pub(super) fn decode(bytes: &[u8], appends: &[Appended]) -> Option<Self> {
        let (&[version, flags], rest) = bytes.split_first_chunk()?;
        let (digest, mut rest) = rest.split_first_chunk()?;
        if version != VERSION || flags & !(BATCH | ORDER | WARNINGS) != 0 {
            return None;
        }
        let len = appends.iter().map(|append| append.len).sum::<u64>();
        let len = usize::try_from(len).ok()?;
        let mut places = Vec::new();
        let mut seen = vec![0; appends.len()];
        let mut put = |append: usize| {
            let index = seen.get_mut(append)?;
            let place = Place {
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
            let (order, behind) = rest.split_at_checked(len)?;
            rest = behind;
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
            let (bits, behind) = rest.split_at_checked(len.div_ceil(8))?;
            rest = behind;
            for (at, warnings) in warnings.iter_mut().enumerate() {
                if bits[at / 8] >> (at % 8) & 1 == 1 {
                    warnings.push(Warning::SecretUnknown);
                }
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
