//! The queue of log lines. A thread writes them to standard error, so that a slow reader of it blocks nothing else.
//!
//! ```text
//! any thread ──append──► waiting (1 MiB at most) ──taken whole──► thread "syncgate-log" ──write──► standard error
//! ```
//!
//! A line that does not fit into the queue is dropped and counted. When there is room again, one line tells how many
//! were dropped. At the end of the process [`Lines::flush`] waits for the thread, but not for long, because nothing
//! may be reading standard error.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId, park_timeout},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines in the queue; the thread may hold as many again.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// The pause before a full, non-blocking terminal or pipe is tried again.
const FULL_WAIT: Duration = Duration::from_millis(10);

/// The queue of lines. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Signalled when the queue has lines.
    filled: Condvar,
    /// Signalled when every line is written.
    emptied: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Dropped lines that no line has reported yet.
    untold: u64,
    writing: bool,
    /// The writing thread. Its own line about dropped lines always fits.
    writer: Option<ThreadId>,
}

impl Lines {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    /// The system's error; no line is written then.
    pub(super) fn to_stderr() -> io::Result<Self> {
        // The thread has a descriptor of its own, because a blocked write must not hold the lock of `io::stderr`.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let lines = Self::default();
        let writing = lines.clone();
        thread::Builder::new()
            .name("syncgate-log".into())
            .spawn(move || writing.write_to(stderr))?;
        Ok(lines)
    }

    /// Returns the counter of dropped lines.
    pub(super) fn dropped(&self) -> &Counter {
        &self.0.dropped
    }

    /// Queues whole lines; drops them if there is no room.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut state = self.state();
        let is_full = state.waiting.len() + lines.len() > WAITING_BYTES_MAX;
        if is_full && state.writer != Some(thread::current().id()) {
            let len = count(lines);
            state.untold += len;
            self.0.dropped.inc_by(len);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(lines);
        drop(state);
        if was_empty {
            self.0.filled.notify_one();
        }
    }

    /// Waits until every queued line is written, at most `patience`; returns whether they are.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let by = Instant::now() + patience;
        let mut state = self.state();
        while state.writing || !state.waiting.is_empty() {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Takes the queued lines, for a test without the thread.
    #[cfg(test)]
    pub(super) fn taken(&self) -> Vec<u8> {
        std::mem::take(&mut self.state().waiting)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        self.state().writer = Some(thread::current().id());
        loop {
            {
                let mut state = self.state();
                state.writing = false;
                while state.waiting.is_empty() {
                    self.0.emptied.notify_all();
                    let waited = self.0.filled.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
                batch.clear();
                std::mem::swap(&mut batch, &mut state.waiting);
                state.writing = true;
            }
            let unwritten = write_all(&mut out, &batch);
            self.0.dropped.inc_by(count(unwritten));
            let untold = std::mem::take(&mut self.state().untold);
            if untold > 0 {
                tracing::warn!(
                    lines = untold,
                    "{untold} lines were dropped: standard error was not read fast enough"
                );
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes as much as possible; returns the rest.
fn write_all<'a>(out: &mut impl Write, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => break,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => park_timeout(FULL_WAIT),
            // Standard error is closed, or its disk is full.
            Err(_) => break,
        }
    }
    bytes
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// `tracing-subscriber` makes one call for each line.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Hands over each write and waits until it may go on.
    struct Slow {
        written: mpsc::Sender<Vec<u8>>,
        go_on: mpsc::Receiver<io::Result<usize>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written
                .send(bytes.to_vec())
                .map_err(io::Error::other)?;
            self.go_on.recv().map_err(io::Error::other)?
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted_and_others_written_in_order() {
        let (written, writes) = mpsc::channel();
        let (step, go_on) = mpsc::channel();
        let lines = Lines::default();
        let writing = lines.clone();
        thread::spawn(move || writing.write_to(Slow { written, go_on }));
        lines.push(b"first\n");
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), b"first\n");
        // The thread is busy with a write now, so further lines are queued, up to the bound.
        let long = [vec![b'x'; WAITING_BYTES_MAX - 1], b"\n".to_vec()].concat();
        lines.push(&long);
        lines.push(b"no room\n");
        lines.push(b"no room\nagain\n");
        assert_eq!(lines.dropped().get(), 3);
        assert!(!lines.flush(Duration::from_millis(1)));
        // Half of a write is no loss of the other half.
        step.send(Ok(3)).unwrap();
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), b"st\n");
        step.send(Err(io::ErrorKind::WouldBlock.into())).unwrap();
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), b"st\n");
        step.send(Ok(3)).unwrap();
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), long);
        step.send(Ok(long.len())).unwrap();
        assert!(lines.flush(DEADLINE));
        assert_eq!(lines.dropped().get(), 3);
        // Lines that cannot be written are counted as lost too.
        lines.push(b"a\nb\n");
        writes.recv_timeout(DEADLINE).unwrap();
        step.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        assert!(lines.flush(DEADLINE));
        assert_eq!(lines.dropped().get(), 5);
    }
}
