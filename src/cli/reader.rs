//! Whether somebody still reads what a command prints: `syncgate tail s | head -1` is to end when `head` has.

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
    /// Watches standard output. A file has no reader that could go.
    pub(super) fn of_stdout() -> Self {
        let gone = CancellationToken::new();
        let tell = gone.clone();
        // A thread of its own, because it waits without an end and the process ends without it.
        let watch = thread::Builder::new().name("reader".into()).spawn(move || {
            if is_hung_up() {
                tell.cancel();
            }
        });
        // Without the thread the command ends at its next line, when that cannot be printed.
        drop(watch);
        Self(gone)
    }

    /// Returns when nobody can read any more, also while nothing is printed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped.
    pub(super) async fn gone(&self) {
        self.0.cancelled().await;
    }
}

/// Waits until the other end of standard output is closed; `false` if that cannot be watched.
fn is_hung_up() -> bool {
    let stdout = io::stdout();
    loop {
        // No event is asked for: hang-ups and errors are told in any case.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut watched, None) {
            Ok(_) => {
                let told = watched[0].revents();
                return told.intersects(PollFlags::HUP | PollFlags::ERR);
            }
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
