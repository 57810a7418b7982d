//! Names of hosts to addresses, with bounds on the threads that this holds.
//!
//! The system's resolver blocks its thread and cannot be interrupted, for half a minute if a DNS server is silent, so a
//! look-up may outlive the attempt that asked. Its threads are those on which the log is read: without a bound of their
//! own, look-ups would take them all, and every partition would stand still for the sake of one name.
//!
//! Promises:
//! - A name is looked up once at a time, whoever asks. Its addresses are kept for `dispatch.dns_ms`, a failure for 1 s.
//! - All look-ups have 128 threads. Those for names with the same last two labels have a share of them, and so have those
//!   for the records of one source. So a silent DNS server, or a source that names many of its hosts, leaves room.
//! - A name whose share is used up waits in a queue. That is no failure: the caller's time begins when its look-up does.
//!   Meanwhile addresses that are known and too old are used, because a wrong address only fails to connect. They are used
//!   as well where so many names wait that no other can.
//! - Asking looks at one name, however many wait, because none of those may begin before a look-up ends. The end of one
//!   looks at each name that waits, and these are 4,096 at most.

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

/// How long a failure is kept.
const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// Names that are known, and names that are asked for.
const NAMES_LEN_MAX: usize = 4_096;

/// Look-ups at a time, each of another name.
#[derive(Clone, Copy, Debug)]
struct Shares {
    all: usize,
    /// Of names with the same last two labels.
    zone: usize,
    /// For records of the same source.
    source: usize,
}

impl Default for Shares {
    /// A quarter of the 512 threads that tokio has for what blocks. Four zones use up the share of a source, and two
    /// sources all threads, so it takes more than one of either to make others wait.
    fn default() -> Self {
        Self {
            all: 128,
            zone: 16,
            source: 64,
        }
    }
}

/// What the system does; a test does something else.
pub(in crate::dispatch) type Find = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

type Found = Result<Arc<[IpAddr]>, Unfound>;

/// Why there are no addresses. The resolver has no text that would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfound {
    NoAddress,
    /// This process has no file descriptor left to ask with, which says nothing of the name.
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
    /// How look-ups ended, and when.
    known: Cache<String, (Instant, Found)>,
    /// Names that wait or are looked up.
    asked: HashMap<String, watch::Receiver<Stage>>,
    /// Names whose shares are used up, the oldest first.
    waiting: VecDeque<Asked>,
    running: usize,
    running_by_zone: HashMap<String, usize>,
    running_by_source: HashMap<String, usize>,
    /// How many names were looked at for a place.
    #[cfg(test)]
    looked_at: usize,
}

impl Names {
    /// Returns whether the shares of a name leave it a place.
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

/// How far a look-up is.
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

/// Addresses of a host, one at least, and how long the caller waited before its time began.
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
    /// Asks the system's resolver.
    pub(in crate::dispatch) fn new(stats: Arc<Stats>) -> Self {
        Self::with(Shares::default(), stats, |host| {
            let found = (host, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    /// Asks something else.
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

    /// Returns the addresses of a host that a record of `source` names. Addresses are as old as `kept` at most, unless
    /// there is no place for a newer look-up. That has `within` from its beginning.
    ///
    /// # Errors
    /// A failure with `not_begun` if the look-up has not begun after that time, or had no descriptor.
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
            // A look-up that another caller began.
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

    /// Returns what is known, else how far the look-up is; `Err(None)` if there are too many already.
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
            // Those that wait already have no place, or they would have begun when a look-up ended.
            match names.may_begin(&self.shares, host, source) {
                true => begun = Some(self.begin(&mut names, asked)),
                false => names.waiting.push_back(asked),
            }
            self.note_waiting(&names);
        }
        let stage = names.asked.get(host).cloned();
        // A runtime that is shutting down drops a look-up at once, and the drop wants the lock.
        drop(names);
        begun.into_iter().for_each(LookUp::run);
        let is_waiting = |stage: &watch::Receiver<_>| matches!(*stage.borrow(), Stage::Waiting);
        match known {
            Some((_, Ok(old))) if stage.as_ref().is_some_and(is_waiting) => Ok(Ok(old)),
            _ => Err(stage),
        }
    }

    /// Takes names from the queue, the oldest first, as far as their shares go.
    fn begin_what_may(&self, names: &mut Names) -> Vec<LookUp> {
        let mut begun = Vec::new();
        // Taken out, so that a name can be looked at while the counts are.
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

    /// Takes the places of a name.
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

/// A look-up under way. Its place is free when its thread has really returned, by a panic too.
struct LookUp {
    lookups: Lookups,
    asked: Asked,
    found: Found,
    has_run: bool,
}

impl LookUp {
    /// Not awaited: it goes on when the attempt that asked has lost patience.
    fn run(mut self) {
        drop(tokio::task::spawn_blocking(move || {
            self.has_run = true;
            self.found = match (self.lookups.find)(&self.asked.host) {
                Ok(found) if !found.is_empty() => Ok(found.into()),
                Err(error) if descriptors::are_used_up(&error) => Err(Unfound::NoDescriptor),
                // Most resolvers do not say that they had none.
                Ok(_) | Err(_) => Err(match descriptors::is_one_left() {
                    true => Unfound::NoAddress,
                    false => Unfound::NoDescriptor,
                }),
            };
            // Tells all that wait.
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
        // What was known of the name stays as it is.
        if self.found != Err(Unfound::NoDescriptor) {
            let now = Instant::now();
            names.known.insert(host.clone(), (now, self.found.clone()));
        }
        tell.send_replace(Stage::Ended(self.found.clone()));
        if !self.has_run {
            // The runtime is shutting down and would drop the next one too.
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
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::dispatch::tests::stub::{DEADLINE, stand_still, until, within};

    const KEPT: Duration = Duration::from_secs(3_600);
    const FEW: Shares = Shares {
        all: 4,
        zone: 2,
        source: 3,
    };

    /// A resolver that knows names that begin with `good`; others hang until the test ends or says so.
    struct Resolver {
        lookups: Lookups,
        stats: Arc<Stats>,
        asked: Arc<Mutex<Vec<String>>>,
        answer: mpsc::Sender<()>,
    }

    impl Resolver {
        fn new(shares: Shares) -> Self {
            let (answer, answers) = mpsc::channel();
            let (answers, asked) = (Mutex::new(answers), Arc::<Mutex<Vec<_>>>::default());
            let list = asked.clone();
            let stats = Arc::<Stats>::default();
            let lookups = Lookups::with(shares, stats.clone(), move |host| {
                list.lock().unwrap().push(host.to_owned());
                if !host.starts_with("good") {
                    let answer = answers.lock().unwrap().recv_timeout(DEADLINE);
                    answer.map_err(io::Error::other)?;
                }
                Ok(addresses().to_vec())
            });
            Self {
                lookups,
                stats,
                asked,
                answer,
            }
        }

        /// Asks for a name with no patience at all.
        async fn at_once(&self, host: &str, source: &str) -> Failure {
            let found = self.lookups.addresses(host, source, KEPT, Duration::ZERO);
            match within("a look-up", found).await {
                Ok(_) => panic!("{host} has addresses"),
                Err(failure) => failure,
            }
        }

        /// Begins a look-up that hangs.
        async fn hang(&self, host: &str, source: &str) {
            let failure = self.at_once(host, source).await;
            assert_eq!((failure.cause, failure.not_begun), (Cause::Timeout, false));
        }

        async fn patiently(&self, host: &str, kept: Duration) -> Result<Arc<[IpAddr]>, Failure> {
            let found = self.lookups.addresses(host, "shop", kept, DEADLINE);
            within("a look-up", found).await.map(|found| found.found)
        }

        fn asked(&self, host: &str) -> usize {
            let asked = self.asked.lock().unwrap();
            asked.iter().filter(|name| *name == host).count()
        }
    }

    fn addresses() -> Arc<[IpAddr]> {
        vec!["192.0.2.1".parse().unwrap()].into()
    }

    #[tokio::test]
    async fn names_that_hang_keep_the_share_of_their_zone_and_source_and_no_more() {
        let resolver = Resolver::new(FEW);
        resolver.hang("a.silent.example", "shop").await;
        resolver.hang("b.c.silent.example", "bank").await;
        // The zone's share is used up, and waiting is no failure.
        let failure = resolver.at_once("d.silent.example.", "bank").await;
        assert!(failure.not_begun, "{}", failure.reason);
        assert!(
            failure.reason.contains("silent.example"),
            "{}",
            failure.reason
        );
        assert_eq!(
            resolver.patiently("good.other.example", KEPT).await,
            Ok(addresses())
        );
        resolver.hang("other", "bank").await;
        resolver.hang("another", "bank").await;
        // Now everything is used up.
        assert!(resolver.at_once("good.example", "shop").await.not_begun);
        assert_eq!(resolver.asked("good.example"), 0);
        assert_eq!(resolver.stats.lookups_waiting.get(), 2);
        assert_eq!(resolver.stats.lookups.get(), 5);
        // Whoever waits has its turn when a place is free.
        for _ in 0..8 {
            resolver.answer.send(()).unwrap();
        }
        assert_eq!(
            resolver.patiently("good.example", KEPT).await,
            Ok(addresses())
        );
        let waited = resolver.patiently("d.silent.example.", KEPT).await;
        assert_eq!(waited, Ok(addresses()));
    }

    #[tokio::test]
    async fn a_source_has_its_share_though_its_names_have_nothing_in_common() {
        let resolver = Resolver::new(FEW);
        for host in ["a", "b", "c"] {
            resolver.hang(host, "bank").await;
        }
        assert!(resolver.at_once("good.bank", "bank").await.not_begun);
        assert_eq!(resolver.patiently("good.shop", KEPT).await, Ok(addresses()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_caller_begins_with_its_look_up() {
        let _still = stand_still();
        let one = Shares { all: 1, ..FEW };
        let resolver = Resolver::new(one);
        resolver.hang("a", "shop").await;
        let queued = DEADLINE * 3 / 4;
        let (waited, ()) = tokio::join!(
            resolver.lookups.addresses("good", "shop", KEPT, DEADLINE),
            async {
                // Time that the caller spends in the queue.
                tokio::time::advance(queued).await;
                resolver.answer.send(()).unwrap();
            }
        );
        let waited = waited.unwrap_or_else(|failure| panic!("{}", failure.reason));
        assert_eq!(waited.waited, queued);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_that_wait_and_kept_as_long_as_asked_for() {
        let resolver = Resolver::new(FEW);
        resolver.hang("a", "shop").await;
        let none = Duration::ZERO;
        let (first, second, ()) = tokio::join!(
            resolver.patiently("a", none),
            resolver.patiently("a", none),
            async { resolver.answer.send(()).unwrap() }
        );
        assert_eq!((first, second), (Ok(addresses()), Ok(addresses())));
        assert_eq!(resolver.asked("a"), 1);
        assert_eq!(resolver.patiently("a", KEPT).await, Ok(addresses()));
        assert_eq!(resolver.asked("a"), 1);
        resolver.answer.send(()).unwrap();
        assert_eq!(resolver.patiently("a", none).await, Ok(addresses()));
        assert_eq!(resolver.asked("a"), 2);
    }

    #[tokio::test]
    async fn addresses_that_are_too_old_do_where_no_thread_is_free() {
        let resolver = Resolver::new(FEW);
        let short = Duration::from_nanos(1);
        assert!(resolver.patiently("good.x.example", short).await.is_ok());
        resolver.hang("a.x.example", "shop").await;
        resolver.hang("b.x.example", "shop").await;
        assert_eq!(
            resolver.patiently("good.x.example", short).await,
            Ok(addresses())
        );
        assert_eq!(resolver.asked("good.x.example"), 1);
        // It is in the queue all the same.
        resolver.answer.send(()).unwrap();
        until("a newer look-up", || resolver.asked("good.x.example") == 2).await;
    }

    #[tokio::test]
    async fn a_queue_that_is_full_makes_names_wait_elsewhere() {
        let none = Shares { all: 0, ..FEW };
        let resolver = Resolver::new(none);
        for at in 0..NAMES_LEN_MAX + 10 {
            let host = format!("{at}.example");
            assert!(resolver.at_once(&host, "shop").await.not_begun);
        }
        assert_eq!(resolver.lookups.names().asked.len(), NAMES_LEN_MAX);
        // Each name was looked at once, however many waited before it.
        assert_eq!(resolver.lookups.names().looked_at, NAMES_LEN_MAX);
    }

    #[tokio::test]
    async fn addresses_that_are_too_old_do_where_the_queue_is_full() {
        let mut resolver = Resolver::new(FEW);
        assert!(resolver.patiently("good", KEPT).await.is_ok());
        resolver.lookups.shares = Shares { all: 0, ..FEW };
        for at in 0..NAMES_LEN_MAX {
            drop(resolver.lookups.ask(&format!("{at}.example"), "shop", KEPT));
        }
        let short = Duration::from_nanos(1);
        assert_eq!(resolver.patiently("good", short).await, Ok(addresses()));
        assert_eq!(resolver.asked("good"), 1);
        // Whoever wants none that are too old waits elsewhere, like a name that nobody knows.
        let fresh = resolver.patiently("good", Duration::ZERO).await;
        assert!(fresh.unwrap_err().not_begun);
        let unknown = resolver.patiently("unknown", short).await;
        assert!(unknown.unwrap_err().not_begun);
    }

    #[tokio::test]
    async fn a_look_up_without_a_descriptor_says_nothing_of_its_name() {
        let errors = Mutex::new(vec![system_error(24), system_error(23)]);
        let lookups = Lookups::with(FEW, Arc::default(), move |_| {
            match errors.lock().unwrap().pop() {
                Some(error) => Err(error),
                None => Ok(addresses().to_vec()),
            }
        });
        for _ in 0..2 {
            let found = lookups.addresses("a", "shop", KEPT, DEADLINE);
            let Err(failure) = within("a look-up", found).await else {
                panic!("it has addresses");
            };
            assert!(failure.not_begun, "{}", failure.reason);
            assert!(failure.reason.contains("descriptor"), "{}", failure.reason);
        }
        let found = lookups.addresses("a", "shop", KEPT, DEADLINE);
        assert!(within("a look-up", found).await.is_ok());
    }

    /// 23 and 24 are ENFILE and EMFILE.
    fn system_error(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn a_look_up_that_a_shutdown_refuses_leaves_no_trace_and_nor_do_those_behind_it() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let none = Shares { all: 0, ..FEW };
        let mut lookups = Lookups::with(none, Arc::default(), |_| Ok(addresses().to_vec()));
        let _inside = handle.enter();
        for at in 0..1_000 {
            drop(lookups.ask(&format!("{at}.example"), "shop", KEPT));
        }
        lookups.shares = FEW;
        drop(lookups.ask("last", "shop", KEPT));
        let names = lookups.names();
        assert!(names.asked.is_empty() && names.waiting.is_empty());
        assert_eq!(names.running, 0);
        assert!(names.running_by_zone.is_empty() && names.running_by_source.is_empty());
    }

    #[tokio::test]
    async fn a_resolver_that_fails_or_panics_leaves_its_thread() {
        let one = Shares { all: 1, ..FEW };
        let lookups = Lookups::with(one, Arc::default(), |host| match host {
            "panics" => panic!("on purpose"),
            "empty" => Ok(Vec::new()),
            _ => Err(io::Error::other("no such name")),
        });
        for host in ["fails", "panics", "empty", "fails", "panics", "empty"] {
            let found = lookups.addresses(host, "shop", KEPT, DEADLINE);
            let Err(failure) = within("a look-up", found).await else {
                panic!("{host} has addresses");
            };
            assert_eq!(failure.cause, Cause::Dns, "{host}");
            assert_eq!(failure.reason, "the host has no address", "{host}");
        }
    }

    #[test]
    fn a_zone_is_the_last_two_labels() {
        for (host, expected) in [
            ("a.b.example.com", "example.com"),
            ("b.example.com.", "example.com"),
            ("example.com", "example.com"),
            ("billing", "billing"),
            ("", ""),
            ("...", "."),
        ] {
            assert_eq!(zone(host), expected, "{host}");
        }
    }
}
