//! Writes lines until a signal comes or the reader of standard output has gone.

use std::{io, pin::pin, time::Duration};

use tokio::time::timeout;

use super::print;
use crate::cli::{Failure, output, reader::StdoutReader, serve::Stops};

/// Longest wait after a signal for a write in progress.
const PRINTING_MAX: Duration = Duration::from_secs(1);

/// Standard output, with the signals and the reader that end the command.
pub(in crate::cli) struct Writer {
    stops: Stops,
    reader: StdoutReader,
    is_stopped: bool,
}

/// The result of a write.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Outcome {
    /// The reader or its pipe has the lines.
    Written,
    /// The reader has gone, or a signal came before the pipe took the lines.
    Ended,
    /// The write failed.
    Failed(String),
}

impl Writer {
    pub(in crate::cli) fn new() -> Result<Self, Failure> {
        Ok(Self {
            stops: Stops::new()?,
            reader: StdoutReader::of_stdout(),
            is_stopped: false,
        })
    }

    /// Returns when a signal came, or the reader has gone.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped.
    pub(in crate::cli) async fn ended(&mut self) {
        if self.is_stopped {
            return;
        }
        tokio::select! {
            () = self.stops.next() => self.is_stopped = true,
            () = self.reader.gone() => {}
        }
    }

    /// Prints why the command ended early, and its last position; nothing if the reader went before the first record.
    pub(super) fn say_why(&self, has_printed: bool, so_far: &str) {
        let why = match self.is_stopped {
            true => "stopped",
            false if has_printed => "the reader of the output has gone",
            false => return,
        };
        output::say(&format!("note: {why}; {so_far}"));
    }

    /// Writes lines. A signal meanwhile waits a moment for the write, because lines that the reader has must be acked.
    pub(in crate::cli) async fn write(&mut self, lines: Vec<u8>) -> Outcome {
        if lines.is_empty() {
            return Outcome::Written;
        }
        let mut writing = pin!(print::write(lines));
        let written = tokio::select! {
            biased;
            () = self.stops.next() => {
                self.is_stopped = true;
                timeout(PRINTING_MAX, writing).await
            }
            written = &mut writing => Ok(written),
        };
        match written {
            Ok(Ok(())) => Outcome::Written,
            Err(_nobody_reads) => Outcome::Ended,
            // The reader has ended, as in `syncgate tail NAME | head`.
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Ended,
            Ok(Err(error)) => Outcome::Failed(format!("cannot print: {error}")),
        }
    }
}
