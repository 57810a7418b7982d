//! Places in a stream as a whole, and `pos`, the text that names one to a client.
//!
//! ```text
//! pos   "p1", then base64url without padding of
//!       contract 8 | incarnation 8 | control events passed varint | partitions varint | next offset of each varint
//!       | the first 8 bytes of HMAC-SHA256 over all of that
//! ```
//!
//! A place is a prefix of the one order of delivery: by time, partition and offset. So it depends on the stream alone,
//! not on the client's way to it. The MAC at the end keeps clients from making up places.

use data_encoding::BASE64URL_NOPAD;
use ring::{digest, hmac};

use crate::model::ids::Incarnation;

/// First characters of every `pos`; no time begins with them.
const PREFIX: &str = "p1";
const MAC_LEN: usize = 8;
/// Bytes of the longest position: 256 partitions, each with the greatest offset.
const BYTES_MAX: usize = 8 + 8 + 10 + 2 + 256 * 10 + MAC_LEN;

/// How much of a stream has been passed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamPlace {
    /// Control events.
    pub events: u64,
    /// The next offset of each partition. A partition that the stream gets later begins at 0.
    pub next: Vec<u64>,
}

impl StreamPlace {
    /// Returns a number that grows along the order of delivery.
    pub(super) fn rank(&self) -> u64 {
        self.next
            .iter()
            .fold(self.events, |sum, next| sum.wrapping_add(*next))
    }
}

/// The data stream, stream and view that a place belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contract([u8; 8]);

impl Contract {
    /// Returns the contract of a data stream. Rules and encoding are not part of it, because they change no place.
    pub(super) fn new(resource: &str, trail: &str, view: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [resource, trail, view] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let digest = context.finish();
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_ref()[..8]);
        Self(first)
    }
}

/// A place that a client has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientPosition {
    /// The data stream, stream and view that it belongs to.
    pub contract: Contract,
    /// The incarnation of the stream.
    pub incarnation: Incarnation,
    /// The place.
    pub place: StreamPlace,
}

/// A text that is no position of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a position of this gateway")]
pub struct PositionInvalid;

/// Makes and checks positions, with a secret.
#[derive(Clone, Debug)]
pub(super) struct PositionKey(hmac::Key);

impl PositionKey {
    /// Length of the secret.
    pub(super) const LEN: usize = 32;

    /// Makes a key of the secret.
    #[must_use]
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Returns the text of a position.
    pub(super) fn text(&self, position: &ClientPosition) -> String {
        let mut positions = self.positions(position.contract, position.incarnation);
        positions.text(&position.place)
    }

    /// Returns a writer of positions with this contract and incarnation.
    pub(super) fn positions(&self, contract: Contract, incarnation: Incarnation) -> Positions<'_> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&contract.0);
        bytes.extend_from_slice(&incarnation.0.to_be_bytes());
        Positions {
            key: self,
            common: bytes.len(),
            bytes,
        }
    }

    /// Reads a position.
    ///
    /// # Errors
    /// [`PositionInvalid`] if it was not made with this key.
    pub(super) fn read(&self, text: &str) -> Result<ClientPosition, PositionInvalid> {
        let encoded = text.strip_prefix(PREFIX).ok_or(PositionInvalid)?;
        if encoded.len() > BASE64URL_NOPAD.encode_len(BYTES_MAX) {
            return Err(PositionInvalid);
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes());
        let bytes = bytes.map_err(|_| PositionInvalid)?;
        let at = bytes.len().checked_sub(MAC_LEN).ok_or(PositionInvalid)?;
        let (body, mac) = bytes.split_at(at);
        let made = hmac::sign(&self.0, body);
        let differing = made.as_ref().iter().zip(mac).map(|(a, b)| a ^ b);
        // Every byte is compared, because the time of the answer must not show how many are right.
        if differing.fold(0, |all, bits| all | bits) != 0 {
            return Err(PositionInvalid);
        }
        position(body).ok_or(PositionInvalid)
    }

    /// Returns whether a text has the form of a position.
    #[must_use]
    pub(super) fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }
}

/// Writes positions of one contract and incarnation.
#[derive(Debug)]
pub(super) struct Positions<'a> {
    key: &'a PositionKey,
    bytes: Vec<u8>,
    /// Length of the bytes that are the same for every place.
    common: usize,
}

impl Positions<'_> {
    /// Returns the text of a position.
    pub(super) fn text(&mut self, place: &StreamPlace) -> String {
        let mut text = Vec::new();
        self.write(place, &mut text);
        // Base64url is ASCII.
        String::from_utf8(text).unwrap_or_default()
    }

    /// Appends the text of a position.
    pub(super) fn write(&mut self, place: &StreamPlace, out: &mut Vec<u8>) {
        let bytes = &mut self.bytes;
        bytes.truncate(self.common);
        put_varint(bytes, place.events);
        put_varint(bytes, place.next.len() as u64);
        for next in &place.next {
            put_varint(bytes, *next);
        }
        let mac = hmac::sign(&self.key.0, bytes);
        bytes.extend_from_slice(&mac.as_ref()[..MAC_LEN]);
        out.extend_from_slice(PREFIX.as_bytes());
        let at = out.len();
        out.resize(at + BASE64URL_NOPAD.encode_len(bytes.len()), 0);
        BASE64URL_NOPAD.encode_mut(bytes, &mut out[at..]);
    }
}

fn position(mut body: &[u8]) -> Option<ClientPosition> {
    let contract = Contract(*body.split_first_chunk()?.0);
    body = &body[8..];
    let incarnation = Incarnation(u64::from_be_bytes(*body.split_first_chunk()?.0));
    body = &body[8..];
    let events = varint(&mut body)?;
    let partitions = varint(&mut body).filter(|partitions| *partitions <= 256)?;
    let next = (0..partitions).map(|_| varint(&mut body));
    let next = next.collect::<Option<Vec<_>>>()?;
    body.is_empty().then_some(ClientPosition {
        contract,
        incarnation,
        place: StreamPlace { events, next },
    })
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        number |= bits
            .checked_shl(shift)
            .filter(|moved| moved >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> PositionKey {
        PositionKey::new(&[7; PositionKey::LEN])
    }

    fn at(events: u64, next: Vec<u64>) -> ClientPosition {
        ClientPosition {
            contract: Contract::new("s1", "DataSyncStream", "append"),
            incarnation: Incarnation(0x6f1d_2c3b_4a59_6877),
            place: StreamPlace { events, next },
        }
    }

    proptest! {
        #[test]
        fn a_position_reads_as_it_was_written(
            events: u64,
            next in prop::collection::vec(any::<u64>(), 0..=256),
        ) {
            let text = key().text(&at(events, next.clone()));
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(key().read(&text), Ok(at(events, next)));
        }

        #[test]
        fn no_other_text_is_a_position(text in "p1[A-Za-z0-9_-]{0,80}") {
            prop_assert_eq!(key().read(&text), Err(PositionInvalid));
        }

        #[test]
        fn a_changed_bit_is_seen(place in 0_usize..400, bit in 0_u32..8) {
            let text = key().text(&at(3, vec![1_000_000; 5]));
            let mut bytes = BASE64URL_NOPAD.decode(&text.as_bytes()[2..]).unwrap();
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            let changed = format!("p1{}", BASE64URL_NOPAD.encode(&bytes));
            prop_assert_eq!(key().read(&changed), Err(PositionInvalid));
        }
    }

    #[test]
    fn a_position_of_another_key_is_refused() {
        let other = PositionKey::new(&[8; PositionKey::LEN]);
        let text = other.text(&at(1, vec![2]));
        assert_eq!(key().read(&text), Err(PositionInvalid));
    }

    #[test]
    fn positions_of_the_first_version_are_read_for_ever() {
        let text = "p1hUEbha--yddvHSw7SllodwEBHFWEiOd-H-Az";
        let made = key().text(&at(1, vec![28]));
        assert_eq!(
            (made.as_str(), key().read(text)),
            (text, Ok(at(1, vec![28])))
        );
    }

    #[test]
    fn a_contract_is_one_of_resource_trail_and_view() {
        let contract = Contract::new("s1", "ab", "append");
        assert_ne!(contract, Contract::new("s2", "ab", "append"));
        assert_ne!(contract, Contract::new("s1", "ac", "append"));
        assert_ne!(contract, Contract::new("s1", "ab", "operations"));
        assert_ne!(contract, Contract::new("s1a", "b", "append"));
    }
}
