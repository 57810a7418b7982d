//! Resolves host names to addresses, with bounds on the threads that look-ups hold.
//!
//! The system's resolver blocks its thread, up to half a minute if a DNS server is silent, and cannot be interrupted.
//! So a look-up may outlive its attempt. The log is read on the same threads. Without a bound, look-ups of one name
//! could take them all and stop every partition.
//!
//! Promises:
//! - A name has one look-up at a time, shared by all callers. Its addresses are kept for `dispatch.dns_ms`, a failure
//!   for 1 s.
//! - All look-ups have 128 threads. Names with the same last two labels have a share of them, and so have the records
//!   of one source. So a silent DNS server, or a source that names many hosts, leaves threads for others.
//! - A name whose share is used up waits in a queue. That is no failure: the caller's time begins with its look-up.
//!   Expired addresses are used meanwhile, and also when the queue is full, because a wrong address only fails to
//!   connect.
//! - A call of `ask` checks one name only, because no waiting name may begin before a look-up ends. The end of a
//!   look-up checks each waiting name, 4,096 at most.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::dispatch::{
    outcome::{Cause, Failure},
    stats::Stats,
};
use crate::runtime::{cache::Cache, descriptors};

/// How long a failed look-up is kept.
const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// Bound of known names, and of names that wait or are looked up.
const NAMES_LEN_MAX: usize = 4_096;

/// Bounds of the look-ups under way.
#[derive(Clone, Copy, Debug)]
struct Shares {
    all: usize,
    /// For names with the same last two labels.
    zone: usize,
    /// For records of the same source.
    source: usize,
}

impl Default for Shares {
    /// A quarter of tokio's 512 blocking threads. Four zones use up the share of a source, and two sources use up all
    /// threads. So one zone or one source alone does not make others wait.
    fn default() -> Self {
        Self {
            all: 128,
            zone: 16,
            source: 64,
        }
    }
}

/// The resolver: the system's, or that of a test.
pub(in crate::dispatch) type Find = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

type Found = Result<Arc<[IpAddr]>, Unfound>;

/// Why there are no addresses. The resolver's own text would not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfound {
    NoAddress,
    /// This process has no free file descriptor, which says nothing about the name.
    NoDescriptor,
}

impl Unfound {
    fn failure(self) -> Failure {
        match self {
            Self::NoAddress => Failure::new(Cause::Dns, "the host has no address"),
            Self::NoDescriptor => Failure {
                not_begun: true,
                ..Failure::new(
                    Cause::Dns,
                    "the name was not looked up: this process has no file descriptor left",
                )
            },
        }
    }
}

/// Looks names up. Clones share everything.
#[derive(Clone)]
pub(in crate::dispatch) struct Lookups {
    find: Arc<Find>,
    shares: Shares,
    stats: Arc<Stats>,
    names: Arc<Mutex<Names>>,
}

struct Names {
    /// Results of look-ups with their times.
    known: Cache<String, (Instant, Found)>,
    /// Names that wait or are looked up.
    asked: HashMap<String, watch::Receiver<Stage>>,
    /// Names whose shares are used up, the oldest first.
    waiting: VecDeque<Asked>,
    running: usize,
    running_by_zone: HashMap<String, usize>,
    running_by_source: HashMap<String, usize>,
    /// How many names were checked against the shares.
    #[cfg(test)]
    looked_at: usize,
}

impl Names {
    /// Returns whether the shares of a name have room for its look-up.
    fn may_begin(&mut self, shares: &Shares, host: &str, source: &str) -> bool {
        #[cfg(test)]
        {
            self.looked_at += 1;
        }
        let in_zone = self.running_by_zone.get(zone(host)).copied();
        let of_source = self.running_by_source.get(source).copied();
        self.running < shares.all
            && in_zone.unwrap_or(0) < shares.zone
            && of_source.unwrap_or(0) < shares.source
    }
}

/// The state of a look-up.
#[derive(Clone)]
enum Stage {
    Waiting,
    Begun(Instant),
    Ended(Found),
}

struct Asked {
    host: String,
    source: String,
    tell: watch::Sender<Stage>,
}

/// Addresses of a host, at least one, and how long the caller waited until its look-up began.
pub(in crate::dispatch) struct Addresses {
    pub(in crate::dispatch) found: Arc<[IpAddr]>,
    pub(in crate::dispatch) waited: Duration,
}

impl Addresses {
    pub(in crate::dispatch) fn at_once(found: Arc<[IpAddr]>) -> Self {
        Self {
            found,
            waited: Duration::ZERO,
        }
    }
}

impl Lookups {
    /// Look-ups by the system's resolver.
    pub(in crate::dispatch) fn new(stats: Arc<Stats>) -> Self {
        Self::with(Shares::default(), stats, |host| {
            let found = (host, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    /// Look-ups by a test's resolver.
    #[cfg(test)]
    pub(in crate::dispatch) fn asking(
        stats: Arc<Stats>,
        find: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self::with(Shares::default(), stats, find)
    }

    fn with(
        shares: Shares,
        stats: Arc<Stats>,
        find: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        let names = Names {
            known: Cache::new(NAMES_LEN_MAX),
            asked: HashMap::new(),
            waiting: VecDeque::new(),
            running: 0,
            running_by_zone: HashMap::new(),
            running_by_source: HashMap::new(),
            #[cfg(test)]
            looked_at: 0,
        };
        Self {
            find: Arc::new(find),
            shares,
            stats,
            names: Arc::new(Mutex::new(names)),
        }
    }

    /// Returns the addresses of a host that a record of `source` names. They are at most `kept` old, unless no look-up
    /// can begin now. A look-up has `within` from its beginning.
    ///
    /// # Errors
    /// A failure with `not_begun` if the look-up did not begin within that time, or had no descriptor.
    pub(in crate::dispatch) async fn addresses(
        &self,
        host: &str,
        source: &str,
        kept: Duration,
        within: Duration,
    ) -> Result<Addresses, Failure> {
        let asked_at = Instant::now();
        let mut stage = match self.ask(host, source, kept) {
            Ok(found) => {
                return Ok(Addresses::at_once(found.map_err(Unfound::failure)?));
            }
            Err(Some(stage)) => stage,
            Err(None) => return Err(not_begun(host)),
        };
        let begun = stage.wait_for(|stage| !matches!(stage, Stage::Waiting));
        let begun = timeout_at(asked_at + within, begun).await;
        let began = match begun.map(|begun| begun.map(|stage| stage.clone())) {
            // Another caller may have begun the look-up earlier.
            Ok(Ok(Stage::Begun(began))) => began.max(asked_at),
            Ok(Ok(Stage::Ended(_))) => Instant::now(),
            Ok(Ok(Stage::Waiting) | Err(_)) | Err(_) => return Err(not_begun(host)),
        };
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ended(_)));
        let ended = timeout_at(began + within, ended).await;
        let ended = ended.map_err(|_elapsed| late())?;
        match ended.map(|stage| stage.clone()) {
            Ok(Stage::Ended(Ok(found))) => Ok(Addresses {
                found,
                waited: began.duration_since(asked_at),
            }),
            Ok(Stage::Ended(Err(unfound))) => Err(unfound.failure()),
            _ => Err(Unfound::NoAddress.failure()),
        }
    }

    /// Returns the known result, else the state of the look-up; `Err(None)` if too many names wait already.
    fn ask(
        &self,
        host: &str,
        source: &str,
        kept: Duration,
    ) -> Result<Found, Option<watch::Receiver<Stage>>> {
        let mut names = self.names();
        let known = match kept.is_zero() {
            true => None,
            false => names.known.get(&host.to_owned()),
        };
        if let Some((at, found)) = &known {
            let kept = if found.is_ok() { kept } else { FAILURE_KEPT };
            if at.elapsed() < kept {
                return Ok(found.clone());
            }
        }
        let mut begun = None;
        if !names.asked.contains_key(host) {
            if names.asked.len() >= NAMES_LEN_MAX {
                return match known {
                    Some((_, Ok(old))) => Ok(Ok(old)),
                    _ => Err(None),
                };
            }
            let (tell, stage) = watch::channel(Stage::Waiting);
            names.asked.insert(host.to_owned(), stage);
            let asked = Asked {
                host: host.to_owned(),
                source: source.to_owned(),
                tell,
            };
            // The names that wait already have no room, because the end of each look-up begins all that have.
            match names.may_begin(&self.shares, host, source) {
                true => begun = Some(self.begin(&mut names, asked)),
                false => names.waiting.push_back(asked),
            }
            self.note_waiting(&names);
        }
        let stage = names.asked.get(host).cloned();
        // A runtime that shuts down drops a look-up at once, and the drop takes the lock.
        drop(names);
        begun.into_iter().for_each(LookUp::run);
        let is_waiting = |stage: &watch::Receiver<_>| matches!(*stage.borrow(), Stage::Waiting);
        match known {
            Some((_, Ok(old))) if stage.as_ref().is_some_and(is_waiting) => Ok(Ok(old)),
            _ => Err(stage),
        }
    }

    /// Begins waiting look-ups, the oldest first, as far as their shares allow.
    fn begin_what_may(&self, names: &mut Names) -> Vec<LookUp> {
        let mut begun = Vec::new();
        // Taken out of `names`, so that a name and the counts can be borrowed together.
        let mut waiting = std::mem::take(&mut names.waiting);
        let mut at = 0;
        while names.running < self.shares.all
            && let Some(Asked { host, source, .. }) = waiting.get(at)
        {
            if !names.may_begin(&self.shares, host, source) {
                at += 1;
            } else if let Some(asked) = waiting.remove(at) {
                begun.push(self.begin(names, asked));
            }
        }
        names.waiting = waiting;
        self.note_waiting(names);
        begun
    }

    /// Counts a name in its shares and begins its look-up.
    fn begin(&self, names: &mut Names, asked: Asked) -> LookUp {
        names.running += 1;
        let zone = zone(&asked.host).to_owned();
        *names.running_by_zone.entry(zone).or_default() += 1;
        let source = asked.source.clone();
        *names.running_by_source.entry(source).or_default() += 1;
        asked.tell.send_replace(Stage::Begun(Instant::now()));
        self.stats.lookups.inc();
        LookUp {
            lookups: self.clone(),
            asked,
            found: Err(Unfound::NoAddress),
            has_run: false,
        }
    }

    fn note_waiting(&self, names: &Names) {
        let waiting = i64::try_from(names.waiting.len()).unwrap_or(i64::MAX);
        self.stats.lookups_waiting.set(waiting);
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the last two labels of a name.
fn zone(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);
    let third = host.rmatch_indices('.').nth(1);
    third.map_or(host, |(dot, _)| &host[dot + 1..])
}

/// A look-up under way. It leaves its shares when its thread has returned, also by a panic.
struct LookUp {
    lookups: Lookups,
    asked: Asked,
    found: Found,
    has_run: bool,
}

impl LookUp {
    /// Not awaited, because the look-up goes on after the attempt has timed out.
    fn run(mut self) {
        drop(tokio::task::spawn_blocking(move || {
            self.has_run = true;
            self.found = match (self.lookups.find)(&self.asked.host) {
                Ok(found) if !found.is_empty() => Ok(found.into()),
                Err(error) if descriptors::are_used_up(&error) => Err(Unfound::NoDescriptor),
                // Most resolvers do not report that they had no descriptor.
                Ok(_) | Err(_) => Err(match descriptors::is_one_left() {
                    true => Unfound::NoAddress,
                    false => Unfound::NoDescriptor,
                }),
            };
            // The drop wakes all waiting callers.
            drop(self);
        }));
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        let Asked { host, source, tell } = &self.asked;
        let mut names = self.lookups.names();
        names.running -= 1;
        leave(&mut names.running_by_zone, zone(host));
        leave(&mut names.running_by_source, source);
        names.asked.remove(host);
        // A failure for want of descriptors leaves the known result in place.
        if self.found != Err(Unfound::NoDescriptor) {
            let now = Instant::now();
            names.known.insert(host.clone(), (now, self.found.clone()));
        }
        tell.send_replace(Stage::Ended(self.found.clone()));
        if !self.has_run {
            // The runtime is shutting down and would drop the next look-up too.
            for waits in std::mem::take(&mut names.waiting) {
                names.asked.remove(&waits.host);
            }
        }
        let begun = self.lookups.begin_what_may(&mut names);
        drop(names);
        begun.into_iter().for_each(LookUp::run);
    }
}

fn leave(running: &mut HashMap<String, usize>, name: &str) {
    if let Some(count) = running.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            running.remove(name);
        }
    }
}

fn not_begun(host: &str) -> Failure {
    let reason = format!(
        "the name was not looked up: other look-ups under {} have not ended",
        zone(host)
    );
    Failure {
        not_begun: true,
        ..Failure::new(Cause::Dns, reason)
    }
}

fn late() -> Failure {
    Failure::new(Cause::Timeout, "the name was not looked up in time")
}

#[cfg(test)]
mod tests;
