//! Reads the frames of a file in order, and searches for a good frame after a bad one.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    codec::{Malformed, to_usize},
    frame::{self, ALIGN, Frame, FrameHeader, Part},
    segment,
};
use crate::storage::local::disk::DiskFile;

const WINDOW_LEN: usize = 1 << 20;
const ZEROS: [u8; 4096] = [0; 4096];

/// A cursor over the frames of a file.
#[derive(Debug)]
pub(in crate::storage) struct Frames {
    file: Arc<dyn DiskFile>,
    file_len: u64,
    life: u64,
    place: u64,
    number: u64,
    window: Bytes,
    window_at: u64,
}

impl Frames {
    /// Begins at a frame's place; `number` is its number.
    pub(in crate::storage) fn new(
        file: Arc<dyn DiskFile>,
        life: u64,
        place: u64,
        number: u64,
    ) -> io::Result<Self> {
        Ok(Self {
            file_len: file.len()?,
            file,
            life,
            place,
            number,
            window: Bytes::new(),
            window_at: 0,
        })
    }

    /// Returns where the next frame is expected.
    pub(in crate::storage) fn place(&self) -> u64 {
        self.place
    }

    /// Returns the number of the next frame.
    pub(in crate::storage) fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next frame; after a bad one it stays where it is.
    pub(in crate::storage) fn next(&mut self) -> io::Result<Result<Frame, Malformed>> {
        let bytes = self.window(frame::HEADER_LEN)?;
        let header = match FrameHeader::decode(&bytes) {
            Ok(header) => header,
            Err(malformed) => return Ok(Err(malformed)),
        };
        let at = header.at;
        if (at.life, at.place, at.number) != (self.life, self.place, self.number) {
            return Ok(Err(Malformed("a frame stands where another belongs")));
        }
        if self.place + header.frame_len() > self.file_len {
            return Ok(Err(Malformed("a frame goes beyond the end of its file")));
        }
        let bytes = self.window(to_usize(header.frame_len()))?;
        let frame = Frame::decode(&bytes, header);
        if frame.is_ok() {
            self.go_behind(&header);
        }
        Ok(frame)
    }

    fn go_behind(&mut self, header: &FrameHeader) {
        self.place += header.frame_len();
        self.number += 1;
    }

    /// Reads a frame that is good but for payloads of blocks; after any other it stays where it is.
    pub(in crate::storage) fn next_damaged(
        &mut self,
    ) -> io::Result<Option<(FrameHeader, Vec<Part>)>> {
        let bytes = self.window(frame::HEADER_LEN)?;
        let Ok(header) = FrameHeader::decode(&bytes) else {
            return Ok(None);
        };
        let at = header.at;
        let is_next = (at.life, at.place, at.number) == (self.life, self.place, self.number);
        if !is_next || self.place + header.frame_len() > self.file_len {
            return Ok(None);
        }
        let bytes = self.window(to_usize(header.frame_len()))?;
        let Ok(parts) = frame::decode_damaged(&bytes, header) else {
            return Ok(None);
        };
        self.go_behind(&header);
        Ok(Some((header, parts)))
    }

    /// Searches after a bad frame for a later header of the same life. Such a header proves damage.
    pub(in crate::storage) fn find_behind(&mut self) -> io::Result<Option<FrameHeader>> {
        let mut at = self.place;
        while at + (frame::HEADER_LEN as u64) <= self.file_len {
            let mut bytes = vec![0; self.window_len(at)];
            let len = segment::read_up_to(&*self.file, &mut bytes, at)?;
            let bytes = &bytes[..len];
            let mut within = 0;
            while within + frame::HEADER_LEN <= bytes.len() {
                // Most of a fresh file is zeros, in which no frame begins.
                if bytes[within..].starts_with(&ZEROS) {
                    within += ZEROS.len();
                    continue;
                }
                if let Ok(header) = FrameHeader::decode(&bytes[within..])
                    && header.at.life == self.life
                    && header.at.place == at + within as u64
                    && header.at.number > self.number
                {
                    return Ok(Some(header));
                }
                within += ALIGN;
            }
            if within == 0 {
                break;
            }
            at += within as u64;
        }
        Ok(None)
    }

    /// Returns whether the bytes where the next frame is expected are the beginning of one.
    pub(in crate::storage) fn is_torn(&mut self) -> io::Result<bool> {
        let bytes = self.window(frame::HEADER_LEN)?;
        let bytes = &bytes[..bytes.len().min(frame::HEADER_LEN)];
        let of_another_life = FrameHeader::decode(bytes).is_ok_and(|h| h.at.life != self.life);
        Ok(bytes.iter().any(|byte| *byte != 0) && !of_another_life)
    }

    /// Goes on at a header that [`Frames::find_behind`] has found.
    pub(in crate::storage) fn go_to(&mut self, header: &FrameHeader) {
        self.place = header.at.place;
        self.number = header.at.number;
    }

    /// Returns how much is read at once from `at` on.
    fn window_len(&self, at: u64) -> usize {
        to_usize(self.file_len.saturating_sub(at).min(WINDOW_LEN as u64))
    }

    /// Returns at least `len` bytes from the place on, fewer at the end of the file.
    fn window(&mut self, len: usize) -> io::Result<Bytes> {
        let within = self.place.checked_sub(self.window_at).map(to_usize);
        if let Some(within) = within
            && within.saturating_add(len) <= self.window.len()
        {
            return Ok(self.window.slice(within..));
        }
        let mut bytes = vec![0; len.max(self.window_len(self.place))];
        let read = segment::read_up_to(&*self.file, &mut bytes, self.place)?;
        bytes.truncate(read);
        self.window = bytes.into();
        self.window_at = self.place;
        Ok(self.window.clone())
    }
}
