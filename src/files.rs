//! Files by the names that settings and arguments give: read whole, up to a bound.
//!
//! A name may be wrong, and `/dev/zero` has no end. Links are followed: whoever gives the name may mean what it leads to, and
//! mounted secrets are links. What lies in the data directory is opened by `storage` and `secrets`, which follow none.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::descriptors::patiently_for_a_while;

/// Bytes of a configuration file: a thousand targets have about 100 KiB.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Bytes of certificates: all public authorities together have about 256 KiB.
pub(crate) const CERTIFICATES_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a file that holds one value, such as a token.
pub(crate) const VALUE_BYTES_MAX: u64 = 64 << 10;

/// Reads a file of `bytes_max` bytes at most. Waits a while for a file descriptor.
///
/// # Errors
/// What the system says; `FileTooLarge` for a longer file, of which nothing is returned.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = patiently_for_a_while(|| File::open(path))?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let why = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// The same for text in UTF-8.
///
/// # Errors
/// As [`read`]; `InvalidData` if it is no UTF-8.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, bytes_max)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound_and_one_without_an_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        for (path, bytes_max) in [(&*path, 4), (Path::new("/dev/zero"), VALUE_BYTES_MAX)] {
            let refused = read(path, bytes_max).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
            let told = format!("more than {bytes_max} bytes");
            assert!(refused.to_string().contains(&told), "{refused}");
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 5).unwrap(), b"12345");
        std::fs::write(&path, b"\xff").unwrap();
        let refused = read_text(&path, 5).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
}
