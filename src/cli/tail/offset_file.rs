//! The file in which `retry` keeps `lastReadOffset` of each partition for the next run.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::cli::Failure;
use crate::runtime::files;

/// Offsets of 256 partitions have about 10 KiB.
const OFFSETS_BYTES_MAX: u64 = 1 << 20;

/// The offsets of one stream, in a file.
#[derive(Debug)]
pub(in crate::cli) struct OffsetFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    stream: String,
    offsets: BTreeMap<String, i64>,
}

impl OffsetFile {
    /// Opens the file; a missing file is empty.
    ///
    /// # Errors
    /// If the file cannot be read, has another form, or belongs to another stream. Starting at the beginning instead would send
    /// everything again.
    pub(in crate::cli) fn open(path: &Path, stream: &str) -> Result<Self, Failure> {
        let shown = path.display();
        let content = match files::read(path, OFFSETS_BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice::<Content>(&bytes)
                .map_err(|error| Failure::usage(format!("{shown} is no offset file: {error}")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content {
                stream: stream.to_owned(),
                offsets: BTreeMap::new(),
            },
            Err(error) => return Err(Failure::usage(format!("{shown} cannot be read: {error}"))),
        };
        if content.stream != stream {
            return Err(Failure::usage(format!(
                "{shown} holds the offsets of {}, not of {stream}: give each stream a file of its own",
                content.stream
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// Returns the offset after which the next run reads.
    pub(in crate::cli) fn after(&self, partition: &str) -> Option<i64> {
        self.content.offsets.get(partition).copied()
    }

    /// Stores an offset. After a crash the file holds either all old offsets or all new ones.
    pub(in crate::cli) fn store(&mut self, partition: &str, offset: i64) -> Result<(), Failure> {
        self.content.offsets.insert(partition.to_owned(), offset);
        self.write().map_err(|error| {
            Failure::failed(format!(
                "{} cannot be written ({error}); the last offset read of partition {partition} is {offset}",
                self.path.display()
            ))
        })
    }

    fn write(&self) -> io::Result<()> {
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = dir.join(name);
        // Remove a leftover of a killed run, or a planted link, which must not be written through.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::create_new(&new)?;
        serde_json::to_writer(&mut file, &self.content)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_kept_per_partition_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("offsets.json");
        let mut file = OffsetFile::open(&path, "Errors").unwrap();
        assert_eq!(file.after("0"), None);
        file.store("0", 405).unwrap();
        file.store("1", -1).unwrap();
        let again = OffsetFile::open(&path, "Errors").unwrap();
        assert_eq!((again.after("0"), again.after("1")), (Some(405), Some(-1)));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no other file is left"
        );
    }

    #[test]
    fn another_streams_file_and_a_broken_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("offsets.json");
        OffsetFile::open(&path, "Errors")
            .unwrap()
            .store("0", 1)
            .unwrap();
        let error = OffsetFile::open(&path, "Others").unwrap_err();
        assert!(
            error.message.contains("holds the offsets of Errors"),
            "{}",
            error.message
        );
        fs::write(&path, "{\"stream\":\"Err").unwrap();
        assert_eq!(OffsetFile::open(&path, "Errors").unwrap_err().code, 2);
    }
}
