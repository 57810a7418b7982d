//! `next` and `position` of a page of all partitions: the next offset of each partition.
//!
//! ```text
//! text  "r1", then base64url without padding of
//!       incarnation of the stream 8 | bytes of an offset 1 | next offset of each partition, big-endian
//!       | CRC-32C of all of that 4, little-endian
//! ```
//!
//! The checksum finds damage, such as a token copied in part. It needs no key, because a caller that may read records may
//! read them from any offset.

use data_encoding::BASE64URL_NOPAD;

use crate::model::ids::{Incarnation, Offset};

/// Kind and version. No other value of `from` begins so.
const PREFIX: &str = "r1";
const PARTITIONS_MAX: usize = 256;
const BYTES_MAX: usize = 8 + 1 + PARTITIONS_MAX * 8 + 4;

/// The next offset of each partition of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) incarnation: Incarnation,
    /// By partition number. Partitions added later start at offset 0.
    pub(super) next: Vec<Offset>,
}

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenInvalid {
    /// The text has another form.
    #[error(
        "with partition * it is earliest, tail, a time such as 2026-12-01 or 10m, or the next of the page before"
    )]
    NotOne,
    /// Another release of the gateway made it.
    #[error("this next was made by another release of the gateway; begin with earliest or with at")]
    OtherVersion,
    /// A part of it is missing or was changed.
    #[error("this next is damaged; give it exactly as the page before has it")]
    Damaged,
}

impl Token {
    pub(super) fn text(&self) -> String {
        let largest = self
            .next
            .iter()
            .map(|next| next.0)
            .max()
            .unwrap_or_default();
        let width = (8 - largest.leading_zeros() as usize / 8).max(1);
        let mut bytes = Vec::with_capacity(13 + self.next.len() * width);
        bytes.extend_from_slice(&self.incarnation.0.to_be_bytes());
        bytes.push(width.to_le_bytes()[0]);
        for next in &self.next {
            bytes.extend_from_slice(&next.0.to_be_bytes()[8 - width..]);
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// # Errors
    /// [`TokenInvalid`].
    pub(super) fn parse(text: &str) -> Result<Self, TokenInvalid> {
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let mut version = text.strip_prefix('r').unwrap_or_default().bytes();
            return Err(match version.next() {
                Some(b'0'..=b'9') => TokenInvalid::OtherVersion,
                _ => TokenInvalid::NotOne,
            });
        };
        if encoded.len() > BASE64URL_NOPAD.encode_len(BYTES_MAX) {
            return Err(TokenInvalid::Damaged);
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).ok();
        bytes
            .and_then(|bytes| read(&bytes))
            .ok_or(TokenInvalid::Damaged)
    }
}

fn read(bytes: &[u8]) -> Option<Token> {
    let (body, checksum) = bytes.split_last_chunk()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (incarnation, rest) = body.split_first_chunk()?;
    let (width, offsets) = rest.split_first()?;
    let width = usize::from(*width);
    if !(1..=8).contains(&width) || offsets.len() % width != 0 {
        return None;
    }
    let offset = |bytes: &[u8]| {
        let number = bytes
            .iter()
            .fold(0, |number, byte| (number << 8) | u64::from(*byte));
        Offset(number)
    };
    let next: Vec<_> = offsets.chunks(width).map(offset).collect();
    (next.len() <= PARTITIONS_MAX).then_some(Token {
        incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
        next,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(next: Vec<u64>) -> Token {
        Token {
            incarnation: Incarnation(0x6f1d_2c3b_4a59_6877),
            next: next.into_iter().map(Offset).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_token_reads_as_it_was_written(next in prop::collection::vec(any::<u64>(), 0..=256), shift in 0_u32..64) {
            let token = token(next.into_iter().map(|next| next >> shift).collect());
            let text = token.text();
            prop_assert!(text.len() <= PREFIX.len() + BASE64URL_NOPAD.encode_len(BYTES_MAX));
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(Token::parse(&text), Ok(token));
        }

        #[test]
        fn no_other_text_is_a_token(text in "r1[A-Za-z0-9_-]{0,80}") {
            prop_assert_eq!(Token::parse(&text), Err(TokenInvalid::Damaged));
        }
    }

    #[test]
    fn every_prefix_and_every_changed_bit_of_a_token_is_damaged() {
        let text = token(vec![3, 70_000, 0]).text();
        for len in PREFIX.len()..text.len() {
            assert_eq!(
                Token::parse(&text[..len]),
                Err(TokenInvalid::Damaged),
                "{len}"
            );
        }
        let bytes = BASE64URL_NOPAD
            .decode(&text.as_bytes()[PREFIX.len()..])
            .unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&changed));
            assert_eq!(Token::parse(&changed), Err(TokenInvalid::Damaged), "{bit}");
        }
        let endless = format!("{PREFIX}{}", "A".repeat(1 << 20));
        assert_eq!(Token::parse(&endless), Err(TokenInvalid::Damaged));
    }

    #[test]
    fn another_text_and_another_version_are_told_apart() {
        for (text, expected) in [
            ("", TokenInvalid::NotOne),
            ("17", TokenInvalid::NotOne),
            ("round", TokenInvalid::NotOne),
            ("r2abc", TokenInvalid::OtherVersion),
        ] {
            assert_eq!(Token::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn tokens_of_the_first_version_are_read_for_ever() {
        let text = "r1bx0sO0pZaHcBAxySopeX";
        let made = token(vec![3, 28]).text();
        assert_eq!(
            (made.as_str(), Token::parse(text)),
            (text, Ok(token(vec![3, 28])))
        );
    }
}
