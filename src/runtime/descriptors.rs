//! File descriptors: how many this process may open, how they are shared, and how to wait for one.
//!
//! The journal, the index and the listener must always get one, because a log that cannot open its next file stores
//! nothing. So they have a reserve. Clients and calls of targets get half of the rest each, so neither can take the
//! share of the other.

use std::{io, thread::park_timeout, time::Duration};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Descriptors of the reserve, however high the limit is: 64 for journal files of readers, 128 for look-ups of names,
/// and 64 for the index, the runtime and everything else.
const RESERVE_MAX: usize = 256;
/// Journal files that stay open for readers.
const JOURNAL_FILES_MAX: usize = 64;
/// The pause between two tries to open a file.
pub(crate) const RETRY_WAIT: Duration = Duration::from_millis(50);
/// How long a command or a reload waits for a descriptor before it fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A target with a connection gets another one while it has less than this part (one in 8) of the free descriptors.
pub(crate) const FREE_PART: usize = 8;

/// Returns how many descriptors one target gets while no other target has any, of `max` for all targets.
pub(crate) fn most_of_one(max: usize) -> usize {
    (max / (FREE_PART + 1)).max(1)
}

/// How the file descriptors of this process are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// The limit of the system.
    pub(crate) limit: usize,
    /// Files of the journal that stay open for readers, a part of the reserve.
    pub(crate) journal_files: usize,
    /// Connections of clients.
    pub(crate) connections: usize,
    /// Connections to targets.
    pub(crate) calls: usize,
}

impl Shares {
    /// Shares a limit: the reserve is 256, at most half of the limit; clients and calls get half of the rest each.
    #[must_use]
    pub(crate) fn of(limit: usize) -> Self {
        let reserve = RESERVE_MAX.min(limit / 2);
        let half = ((limit - reserve) / 2).max(1);
        Self {
            limit,
            journal_files: JOURNAL_FILES_MAX.min(reserve / 4).max(1),
            connections: half,
            calls: half,
        }
    }

    /// Shares the present limit of this process.
    #[must_use]
    pub(crate) fn of_process() -> Self {
        let soft = getrlimit(Resource::Nofile).current;
        let limit = soft.and_then(|soft| usize::try_from(soft).ok());
        Self::of(limit.unwrap_or(usize::MAX))
    }

    /// Returns a warning if the limit is too low for these settings; `None` if it is high enough.
    pub(crate) fn cuts(&self, connections_max: usize, in_flight_max: usize) -> Option<String> {
        let Self {
            limit,
            connections,
            calls,
            ..
        } = self;
        let calls_of_one = most_of_one(*calls);
        if *connections >= connections_max && calls_of_one >= in_flight_max {
            return None;
        }
        Some(format!(
            "this process may open {limit} files; so at most {connections} clients are connected \
             (server.connections_max is {connections_max}), and at most {calls} connections to targets are open, \
             {calls_of_one} to one of them (dispatch.in_flight_max is {in_flight_max}); \
             a higher limit of open files allows more (ulimit -n, LimitNOFILE)"
        ))
    }
}

/// Raises the limit of open files to the greatest that the system allows; on failure the old limit stays.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // The old limit means smaller shares; `cuts` warns if they are too small.
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files cannot be raised");
    }
}

/// Returns whether a call failed because the process or the system has no free descriptor.
pub(crate) fn are_used_up(error: &io::Error) -> bool {
    let none_left = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|code| none_left.contains(&code))
}

/// Returns whether a descriptor is free.
pub(crate) fn is_one_left() -> bool {
    let copied = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 0);
    !matches!(copied, Err(Errno::MFILE | Errno::NFILE))
}

/// Opens a file; waits while no descriptor is free. Blocks its thread.
pub(crate) fn patiently<T>(open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    wait(open, None)
}

/// Does the same as [`patiently`], for 10 s at most.
pub(crate) fn patiently_for_a_while<T>(open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    wait(open, Some(PATIENCE))
}

fn wait<T>(mut open: impl FnMut() -> io::Result<T>, patience: Option<Duration>) -> io::Result<T> {
    let mut waited = Duration::ZERO;
    loop {
        match open() {
            Err(error)
                if are_used_up(&error) && patience.is_none_or(|patience| waited < patience) =>
            {
                if waited.is_zero() {
                    tracing::warn!(%error, "a file waits until a file descriptor is free");
                }
                park_timeout(RETRY_WAIT);
                waited += RETRY_WAIT;
            }
            opened => {
                if !waited.is_zero() && opened.is_ok() {
                    tracing::info!("a file descriptor is free again");
                }
                return opened;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limit: usize, journal_files: usize, half: usize) {
        let shares = Shares {
            limit,
            journal_files,
            connections: half,
            calls: half,
        };
        assert_eq!(Shares::of(limit), shares);
    }

    #[test]
    fn the_reserve_comes_first_and_the_rest_is_halved() {
        check(128, 16, 32);
        check(512, 64, 128);
        check(1_024, 64, 384);
        check(4_096, 64, 1_920);
        check(1_048_576, 64, 524_160);
        // Nothing works with so few, but nothing is divided by zero.
        check(0, 1, 1);
        check(3, 1, 1);
    }

    #[test]
    fn a_limit_that_cuts_the_settings_is_reported_and_another_is_not() {
        assert_eq!(Shares::of(20_256).cuts(10_000, 64), None);
        let told = Shares::of(1_024).cuts(10_000, 64).unwrap();
        for part in ["1024 files", "384 clients", "10000", "42 to one"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(Shares::of(1_024).cuts(384, 42), None);
        assert!(Shares::of(128).cuts(10, 64).is_some());
    }

    #[test]
    fn only_a_want_of_descriptors_is_waited_for() {
        let mut tries = 0;
        let opened = patiently(|| {
            tries += 1;
            match tries {
                1 => Err(io::Error::from_raw_os_error(Errno::MFILE.raw_os_error())),
                2 => Err(io::Error::from_raw_os_error(Errno::NFILE.raw_os_error())),
                _ => Ok(tries),
            }
        });
        assert_eq!(opened.unwrap(), 3);
        let refused = patiently(|| Err::<(), _>(io::ErrorKind::NotFound.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(is_one_left());
    }
}
