//! The file system as a trait. Tests use an implementation that loses, refuses and cuts off writes.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::{buffer::spare_capacity, fs::OFlags};

use crate::runtime::{descriptors::patiently, files};

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a new file; one that exists is an error.
    ///
    /// # Errors
    /// The error of the system.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// The error of the system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file and replaces a file of that name; durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The error of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The error of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns the names in a directory, in no order.
    ///
    /// # Errors
    /// The error of the system.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// The error of the system.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes names in a directory durable.
    ///
    /// # Errors
    /// The error of the system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Returns how many bytes this process may still write to the file system that holds a directory.
    ///
    /// # Errors
    /// The error of the system.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Returns the length of a file.
    ///
    /// # Errors
    /// The error of the system.
    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        self.open(path)?.len()
    }
}

/// An open file. Positions are given with each call, so it is shared without a lock.
#[expect(
    clippy::len_without_is_empty,
    reason = "it mirrors a file's metadata; no caller needs `is_empty`"
)]
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Reads into `buffer`; returns how many bytes, 0 at the end.
    ///
    /// # Errors
    /// The error of the system.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Appends at most `len` bytes to `out`, and returns how many; 0 at the end of the file.
    ///
    /// # Errors
    /// The error of the system; nothing was appended.
    fn read_onto(&self, out: &mut Vec<u8>, len: usize, at: u64) -> io::Result<usize> {
        let from = out.len();
        out.resize(from + len, 0);
        let read = self.read_at(&mut out[from..], at);
        out.truncate(from + read.as_ref().copied().unwrap_or_default());
        read
    }

    /// Writes; returns how many bytes, which may be fewer than given.
    ///
    /// # Errors
    /// The error of the system.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Returns when everything written before would survive a loss of power.
    ///
    /// # Errors
    /// The error of the system. It is then unknown which writes since the last good call are durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Returns the file's length.
    ///
    /// # Errors
    /// The error of the system.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file off at `len`, which gives space back. A crash may undo it.
    ///
    /// # Errors
    /// The error of the system.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// Mode of a file: its contents are for its owner alone.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Returns options that create a file for its owner alone, from its first moment on.
pub(in crate::storage) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Opens a file of a data directory. No link is followed, because it may name a file that is not ours. A pipe in place of a
/// file is refused, because its reader would wait without end.
pub(in crate::storage) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    files::open(options, OFlags::NOFOLLOW, path)
}

/// Opens a directory, to lock it.
pub(in crate::storage) fn open_dir(dir: &Path) -> io::Result<File> {
    let is_dir = i32::try_from(OFlags::DIRECTORY.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(is_dir).open(dir)
}

/// Makes a directory for its owner alone.
pub(in crate::storage) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(DIR_MODE).create(dir)
}

/// Makes a directory and the absent ones above it, for their owner alone.
pub(in crate::storage) fn make_dirs(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(DIR_MODE).create(dir)
}

/// The file system of this machine. Calls that need a file descriptor wait for one, because a lack of descriptors must not
/// stop the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = private();
        options.read(true).write(true).create_new(true);
        let file = patiently(|| open(&mut options, path))?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = private();
        options.read(true).write(true);
        let file = patiently(|| open(&mut options, path))?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = patiently(|| fs::read_dir(dir))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        make_dirs(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        patiently(|| open_dir(dir))?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }

    fn read_onto(&self, out: &mut Vec<u8>, len: usize, at: u64) -> io::Result<usize> {
        let from = out.len();
        out.reserve_exact(len);
        // The vector may have room for more than `len` bytes.
        let read = rustix::io::pread(&self.0, spare_capacity(out), at)?.min(len);
        out.truncate(from + read);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.0.write_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_comes_behind_what_is_there_and_is_no_more_than_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("file")).unwrap();
        file.write_at(b"0123456789", 0).unwrap();
        let mut out = Vec::with_capacity(100);
        out.extend_from_slice(b"before ");
        assert_eq!(file.read_onto(&mut out, 4, 2).unwrap(), 4);
        assert_eq!(out, b"before 2345");
        assert_eq!(file.read_onto(&mut out, 4, 8).unwrap(), 2);
        assert_eq!(file.read_onto(&mut out, 4, 10).unwrap(), 0);
        assert_eq!(out, b"before 234589");
    }
}
