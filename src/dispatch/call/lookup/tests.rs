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

    /// Asks for a name with a time limit of 0.
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
    // Waiting names are looked up when their shares have room.
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
    // It waits in the queue as well.
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
    // A caller that takes no expired addresses is refused, as for an unknown name.
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
