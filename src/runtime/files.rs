//! Files that settings and arguments name: read whole, up to a bound.
//!
//! A name may be wrong: `/dev/zero` has no end, and the open of a pipe waits until another process writes. Links are
//! followed, because mounted secrets are links. Files in the data directory are opened by `storage` and `secrets`,
//! which follow no links.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use crate::runtime::descriptors::patiently_for_a_while;

/// Bytes of a configuration file: a thousand targets have about 100 KiB.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Bytes of certificates: all public authorities together have about 256 KiB.
pub(crate) const CERTIFICATES_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a file that holds one value, such as a token.
pub(crate) const VALUE_BYTES_MAX: u64 = 64 << 10;

/// Opens a file that is no pipe, socket or directory, and never waits for another process. `flags` are flags of the
/// system beside `options`.
///
/// # Errors
/// The system's error; `InvalidInput` for a pipe, a socket or a directory.
pub(crate) fn open(options: &mut OpenOptions, flags: OFlags, path: &Path) -> io::Result<File> {
    // Without this flag the open of a pipe waits for its other end. For regular files the flag has no effect.
    let flags = (flags | OFlags::NONBLOCK).bits();
    let file = options
        .custom_flags(i32::try_from(flags).unwrap_or_default())
        .open(path)?;
    let kind = file.metadata()?.file_type();
    let what = if kind.is_fifo() {
        "a pipe"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_socket() {
        "a socket"
    } else {
        return Ok(file);
    };
    let why = format!("it is {what}; name a regular file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Reads a file of at most `bytes_max` bytes. Waits a while for a file descriptor.
///
/// # Errors
/// As [`open`]; `FileTooLarge` for a longer file.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    let file = patiently_for_a_while(|| open(&mut options, OFlags::empty(), path))?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let why = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Reads a UTF-8 file of at most `bytes_max` bytes.
///
/// # Errors
/// As [`read`]; `InvalidData` if it is not UTF-8.
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

    #[test]
    fn a_pipe_and_a_directory_are_refused_without_waiting_and_an_empty_device_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for (path, what) in [(&*pipe, "a pipe"), (dir.path(), "a directory")] {
            let refused = read(path, 5).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            assert!(refused.to_string().contains(what), "{refused}");
        }
        assert_eq!(read(Path::new("/dev/null"), 5).unwrap(), b"");
    }
}
