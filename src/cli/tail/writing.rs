//! Writing lines for as long as somebody reads them and nobody has stopped the command.

use std::{io, pin::pin, time::Duration};

use tokio::time::timeout;

use super::print;
use crate::cli::{Failure, output, reader::StdoutReader, serve::Stops};

/// How long a stop waits for what is being printed.
const PRINTING_MAX: Duration = Duration::from_secs(1);

/// Standard output, and what ends the command.
pub(in crate::cli) struct Writer {
    stops: Stops,
    reader: StdoutReader,
    is_stopped: bool,
}

/// What became of lines.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Outcome {
    /// The reader has them, or its pipe.
    Written,
    /// Nobody reads any more, or the stop came before all was read.
    Ended,
    /// The system refuses them.
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

    /// Returns when the command was stopped, or nobody reads any more.
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

    /// Says why the command has ended before its end, and how far it came. A reader that has gone before the first record
    /// knows all of that.
    pub(super) fn say_why(&self, has_printed: bool, so_far: &str) {
        let why = match self.is_stopped {
            true => "stopped",
            false if has_printed => "the reader of the output has gone",
            false => return,
        };
        output::say(&format!("note: {why}; {so_far}"));
    }

    /// Writes lines. A stop meanwhile waits a moment: their reader may have them already, and then they are to be acked.
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
            // `syncgate tail NAME | head` has seen enough.
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Ended,
            Ok(Err(error)) => Outcome::Failed(format!("cannot print: {error}")),
        }
    }
}
