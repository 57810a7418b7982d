//! Somebody who reads a data stream, and where: frames are kept for those who stand before them.

use std::sync::Arc;

use crate::push::{
    feed::{
        frame::{Ends, Frame},
        hub::Hub,
    },
    position::StreamPlace,
};

/// A place at which somebody stands.
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

    /// Goes to another place.
    pub(in crate::push) fn go_to(&mut self, place: &StreamPlace) {
        self.hub.frames().leave(&self.place, Some(place));
        self.place.clone_from(place);
    }

    /// Goes behind a frame. While that one is sent, the next is made, if there is so much that a frame does not hold it.
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
