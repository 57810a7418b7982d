//! The open journal file: its beginning, the write of a frame, and the cleanup after a failed write.

use std::{collections::HashSet, io, sync::Arc};

use crate::storage::CommitError;

use crate::storage::local::{
    disk::DiskFile,
    format::{
        frame::{Frame, FrameAt, HEADER_LEN},
        segment::{self, SegmentHeader},
        snapshot::{self, Summary},
    },
    lock,
    shared::EngineState,
    space::spare::{Spare, Spares, write_zeros},
};

/// Bytes of the frame that seals a file.
pub(in crate::storage) const SEAL_LEN: u64 = HEADER_LEN as u64;

/// The open journal file.
#[derive(Debug)]
pub(in crate::storage) struct OpenSegment {
    file: Arc<dyn DiskFile>,
    pub(in crate::storage) number: u64,
    life: u64,
    /// Byte position of the next frame.
    pub(in crate::storage) place: u64,
    pub(in crate::storage) len: u64,
    first_frame: u64,
    pub(in crate::storage) first_time: Option<u64>,
    /// State values that its records refer to.
    pub(in crate::storage) referred: HashSet<Arc<str>>,
}

/// Why a frame is not stored.
#[derive(Debug)]
pub(in crate::storage) enum Fault {
    /// Nothing of it is stored; a later try may succeed.
    DiskFull,
    /// Nothing of it is stored, and the log stops.
    Broken(Arc<str>),
    /// It may be stored, and the log stops.
    Torn(Arc<str>),
}

impl Fault {
    pub(in crate::storage) fn new(what: &str, error: &io::Error) -> Self {
        if is_full(error) {
            Self::DiskFull
        } else {
            Self::Broken(format!("cannot {what}: {error}").into())
        }
    }

    pub(in crate::storage) fn torn(what: &str, error: &io::Error) -> Self {
        Self::Torn(format!("cannot {what}: {error}").into())
    }

    /// Returns the error for a commit of that frame.
    pub(in crate::storage) fn answer(&self) -> CommitError {
        match self {
            Self::DiskFull => CommitError::DiskFull,
            Self::Broken(reason) => CommitError::Stopped(reason.clone()),
            Self::Torn(reason) => CommitError::MaybeStored(reason.clone()),
        }
    }

    /// Returns the error for a commit that was refused, perhaps because of other commits of that frame.
    pub(in crate::storage) fn answer_refused(&self) -> CommitError {
        match self {
            Self::DiskFull => CommitError::DiskFull,
            Self::Broken(reason) | Self::Torn(reason) => CommitError::Stopped(reason.clone()),
        }
    }
}

pub(in crate::storage) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl OpenSegment {
    /// Returns life, number and place of the next frame.
    pub(in crate::storage) fn frame_at(&self, number: u64, time: u64) -> FrameAt {
        FrameAt {
            life: self.life,
            number,
            place: self.place,
            time,
        }
    }

    /// Writes a frame at its place and makes it durable.
    pub(in crate::storage) fn write(&self, frame: &Frame) -> Result<(), Fault> {
        if let Err((error, written)) = segment::write_all(&*self.file, &frame.bytes, self.place) {
            if !is_full(&error) {
                return Err(Fault::torn("write to the journal", &error));
            }
            if written > 0 {
                self.void()?;
            }
            return Err(Fault::DiskFull);
        }
        let synced = self.file.sync_data();
        synced.map_err(|error| Fault::torn("sync the journal", &error))
    }

    /// Writes zeros in the place of the next frame, to test for space. A file system that copies on write may have no space
    /// although the file is long enough.
    pub(in crate::storage) fn try_space(
        &self,
        frame_len: u64,
        go_on: impl FnMut() -> bool,
    ) -> Result<(), Fault> {
        let zeros = self.place..self.place + frame_len;
        let written = write_zeros(&*self.file, zeros, go_on);
        written
            .map(|_| ())
            .map_err(|error| Fault::new("write to the journal", &error))
    }

    /// Overwrites the header of a partly written frame with zeros. Otherwise older bytes in the file could complete it.
    fn void(&self) -> Result<(), Fault> {
        let zeros = [0; HEADER_LEN];
        let voided = segment::write_all(&*self.file, &zeros, self.place)
            .map_err(|(error, _)| error)
            .and_then(|()| self.file.sync_data());
        voided.map_err(|error| Fault::torn("take back a write to the journal", &error))
    }

    /// Describes the file as sealed by the frame of that number.
    pub(in crate::storage) fn summary(&self, last_frame: u64, shared: &EngineState) -> Summary {
        let mut refers: Vec<_> = self.referred.iter().cloned().collect();
        refers.sort_unstable();
        let last_time = lock::read(&shared.view).books.last_time;
        Summary {
            number: self.number,
            life: self.life,
            first_frame: self.first_frame,
            last_frame,
            first_time: self.first_time.unwrap_or(last_time),
            last_time,
            bytes: self.place + SEAL_LEN,
            refers,
        }
    }
}

/// The beginning of a file.
#[derive(Debug)]
pub(in crate::storage) struct Beginning<'a> {
    pub(in crate::storage) number: u64,
    pub(in crate::storage) first_frame: u64,
    pub(in crate::storage) journal: [u8; 16],
    pub(in crate::storage) created: u64,
    pub(in crate::storage) snapshot: &'a [u8],
}

/// Turns a spare file into the next journal file. It takes frames only after [`open_segment`] has made its name durable.
pub(in crate::storage) fn name_segment(
    shared: &EngineState,
    spares: &Spares,
    spare: &Spare,
    beginning: Beginning<'_>,
) -> io::Result<OpenSegment> {
    let life = u64::from_le_bytes(crate::storage::local::random()?);
    let snapshot = beginning.snapshot;
    let header = SegmentHeader {
        version: snapshot::version(snapshot),
        number: beginning.number,
        life,
        rewrite: 0,
        first_frame: beginning.first_frame,
        last_frame: 0,
        created: beginning.created,
        snapshot_len: snapshot.len() as u64,
        snapshot_crc: segment::snapshot_crc(life, snapshot),
        journal: beginning.journal,
    };
    let (file, len) = spares.name(spare, &shared.files, &header, snapshot)?;
    Ok(OpenSegment {
        file,
        number: header.number,
        life,
        place: header.frames_at(),
        len,
        first_frame: header.first_frame,
        first_time: None,
        referred: HashSet::new(),
    })
}

/// Makes the name of a file durable, and lets readers find it.
pub(in crate::storage) fn open_segment(
    shared: &EngineState,
    spares: &Spares,
    named: &OpenSegment,
) -> io::Result<()> {
    spares.sync_names(&shared.files)?;
    let OpenSegment { number, life, .. } = *named;
    shared.files.add(number, life, named.file.clone());
    Ok(())
}
