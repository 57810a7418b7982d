//! Bodies packed by gzip, unpacked under the same bounds as plain ones.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, header};

use super::{share::Share, too_large};
use crate::api::{
    access::guard::one,
    problem::{Code, Problem},
};

/// Returns whether `Content-Encoding` says gzip.
pub(super) fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let unknown = || {
        let what = "the only content coding of a body is gzip";
        Problem::new(Code::UnsupportedMediaType, what)
    };
    let Some(encoding) = one(headers, &header::CONTENT_ENCODING).map_err(|()| unknown())? else {
        return Ok(false);
    };
    match encoding.to_str().unwrap_or_default().trim() {
        gzip if ["gzip", "x-gzip"]
            .iter()
            .any(|x| gzip.eq_ignore_ascii_case(x)) =>
        {
            Ok(true)
        }
        plain if plain.eq_ignore_ascii_case("identity") => Ok(false),
        _ => Err(unknown()),
    }
}

/// Unpacks a body of at most `bytes_max` bytes.
pub(super) fn unpack(packed: &[u8], bytes_max: usize, share: &mut Share) -> Result<Bytes, Problem> {
    const STEP: usize = 64 << 10;
    let mut decoder = MultiGzDecoder::new(packed);
    let mut all = Vec::new();
    loop {
        let at = all.len();
        all.resize(at + STEP, 0);
        let broken = |_error| Problem::new(Code::InvalidRequest, "the body is not gzip");
        let len = decoder.read(&mut all[at..]).map_err(broken)?;
        all.truncate(at + len);
        if len == 0 {
            // The share counts only the bytes of the body, so free the rest of the buffer.
            all.shrink_to_fit();
            return Ok(all.into());
        }
        if all.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        share.grow(len)?;
    }
}
