//! Little-endian numbers and lengths: written plainly, read without trust.

use std::sync::Arc;

use bytes::BufMut;

/// Bytes that nobody of ours has written, or that have changed since; says what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::storage) struct Malformed(pub(in crate::storage) &'static str);

const CUT_SHORT: Malformed = Malformed("bytes are cut short");

/// Reads one thing behind the other.
#[derive(Debug)]
pub(in crate::storage) struct ByteReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ByteReader<'a> {
    pub(in crate::storage) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns how many bytes were read.
    pub(in crate::storage) fn at(&self) -> usize {
        self.at
    }

    pub(in crate::storage) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(in crate::storage) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        let (taken, _) = rest.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.at += len;
        Ok(taken)
    }

    pub(in crate::storage) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| CUT_SHORT)
    }

    pub(in crate::storage) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(in crate::storage) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(in crate::storage) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(in crate::storage) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads seven bits per byte, lowest first; the high bit says that more follow.
    pub(in crate::storage) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too large"))
    }

    /// Reads a varint that fits a smaller number.
    pub(in crate::storage) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.varint()?).map_err(|_| Malformed("a number is too large"))
    }

    /// Reads bytes with their length as a varint before them.
    pub(in crate::storage) fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.small()?;
        self.take(len)
    }

    /// Reads UTF-8 with its length as a varint before it.
    pub(in crate::storage) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.sized()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(in crate::storage) fn shared_text(&mut self) -> Result<Arc<str>, Malformed> {
        self.text().map(Arc::from)
    }

    /// Makes sure that nothing is left.
    pub(in crate::storage) fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed("there are bytes behind the end"))
        }
    }
}

/// Writes what [`ByteReader::varint`] reads.
pub(in crate::storage) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

/// Writes what [`ByteReader::sized`] reads.
pub(in crate::storage) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Returns a length as the format's `u32`.
///
/// # Panics
/// On 4 GiB and more; commits and snapshots are bounded far below.
pub(in crate::storage) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("bounded by COMMIT_BYTES_MAX and the shares of state")
}

/// Returns a number of the format as a length; what memory cannot hold becomes a length that nothing has.
pub(in crate::storage) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_read_back_and_no_prefix_does() {
        for value in [0, 1, 127, 128, 300, 1 << 32, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(ByteReader::new(&bytes).varint(), Ok(value));
            for cut in 0..bytes.len() {
                assert!(ByteReader::new(&bytes[..cut]).varint().is_err());
            }
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        for last in [2, 0x7f, 0xff] {
            let mut bytes = vec![0xff; 9];
            bytes.push(last);
            assert!(ByteReader::new(&bytes).varint().is_err());
        }
    }
}
