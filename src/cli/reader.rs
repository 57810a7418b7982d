//! Watches the reader of standard output, so that `syncgate tail s | head -1` ends when `head` does.

use std::{io, thread};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use tokio_util::sync::CancellationToken;

/// The reader of standard output.
#[derive(Debug)]
pub(super) struct StdoutReader(CancellationToken);

impl StdoutReader {
    /// Starts to watch standard output. A file has no reader, so it is never gone.
    pub(super) fn of_stdout() -> Self {
        let gone = CancellationToken::new();
        let is_gone = gone.clone();
        // A thread, because poll has no time limit here; the process ends without joining it.
        let watch = thread::Builder::new().name("reader".into()).spawn(move || {
            if is_hung_up() {
                is_gone.cancel();
            }
        });
        // If the thread cannot start, the command ends at the next line that it cannot print.
        drop(watch);
        Self(gone)
    }

    /// Returns when the reader has closed its end, even if nothing is printed meanwhile.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped.
    pub(super) async fn gone(&self) {
        self.0.cancelled().await;
    }
}

/// Waits until the other end of standard output is closed; `false` if poll fails.
fn is_hung_up() -> bool {
    let stdout = io::stdout();
    loop {
        // No flags: poll always reports hang-ups and errors.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut watched, None) {
            Ok(_) => {
                let events = watched[0].revents();
                return events.intersects(PollFlags::HUP | PollFlags::ERR);
            }
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
