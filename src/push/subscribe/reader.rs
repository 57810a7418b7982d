//! A reader of a data stream. It is counted at its place, so that frames that a reader still needs are kept.

use std::sync::Arc;

use crate::push::{
    feed::{
        frame::{Ends, Frame},
        hub::Hub,
    },
    position::StreamPlace,
};

/// A reader and its place.
#[derive(Debug)]
pub(in crate::push) struct FrameReader {
    hub: Arc<Hub>,
    place: StreamPlace,
}

impl FrameReader {
    pub(in crate::push) fn new(hub: Arc<Hub>, place: StreamPlace) -> Self {
        hub.frames().come(&place);
        Self { hub, place }
    }

    pub(in crate::push) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(in crate::push) fn place(&self) -> &StreamPlace {
        &self.place
    }

    /// Moves to another place.
    pub(in crate::push) fn go_to(&mut self, place: &StreamPlace) {
        self.hub.frames().leave(&self.place, Some(place));
        self.place.clone_from(place);
    }

    /// Moves to the place after a frame. If more records wait than one frame holds, the next frame is made while this
    /// one is sent.
    pub(in crate::push) fn pass(&mut self, frame: &Frame) {
        self.go_to(frame.behind());
        if frame.ends() == Ends::Before {
            self.hub.make_ahead(&self.place);
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        self.hub.frames().leave(&self.place, None);
    }
}
