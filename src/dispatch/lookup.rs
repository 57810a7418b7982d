//! Names of hosts to addresses, with a bound on the threads that this holds.
//!
//! The system's resolver blocks its thread and cannot be interrupted, for half a minute if a DNS server is silent, so a
//! look-up may outlive the attempt that asked. Its threads are those on which the log is read: without a bound of their
//! own, look-ups would take them all, and every partition would stand still for the sake of one name.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};

use super::outcome::{Cause, Failure};

/// Look-ups at a time, each of another name. A quarter of the 512 threads that tokio has for what blocks.
const LOOKUPS_MAX: usize = 128;

/// What the system does; a test does something else.
type Find = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;
/// `None` until the look-up has ended; an error has no text that would help.
type Found = Option<Result<Vec<IpAddr>, ()>>;

/// Looks names up. Clones share the bound.
#[derive(Clone)]
pub(super) struct Lookups {
    find: Arc<Find>,
    permits: Arc<Semaphore>,
    /// By name, so that records for one host wait for one look-up: a name that does not answer takes one thread.
    under_way: Arc<Mutex<HashMap<String, watch::Receiver<Found>>>>,
}

impl Lookups {
    /// Asks the system's resolver.
    pub(super) fn new() -> Self {
        Self::with(LOOKUPS_MAX, |host| {
            let found = (host, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    fn with(
        lookups_max: usize,
        find: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            find: Arc::new(find),
            permits: Arc::new(Semaphore::new(lookups_max)),
            under_way: Arc::default(),
        }
    }

    /// Returns the addresses of a host, one at least, by `by` at the latest.
    pub(super) async fn addresses(&self, host: &str, by: Instant) -> Result<Vec<IpAddr>, Failure> {
        let under_way = self.under_way().get(host).cloned();
        let mut found = match under_way {
            Some(found) => found,
            None => {
                let permit = timeout_at(by, self.permits.clone().acquire_owned()).await;
                let permit = permit.ok().and_then(Result::ok).ok_or_else(too_many)?;
                self.begin(host, permit)
            }
        };
        let ended = timeout_at(by, found.wait_for(Option::is_some)).await;
        let ended = ended.map_err(|_elapsed| late())?;
        match ended.ok().as_deref() {
            Some(Some(Ok(addresses))) if !addresses.is_empty() => Ok(addresses.clone()),
            _ => Err(Failure::new(Cause::Dns, "the host has no address")),
        }
    }

    /// Begins a look-up, or joins one that began while this one waited for its permit.
    fn begin(&self, host: &str, permit: OwnedSemaphorePermit) -> watch::Receiver<Found> {
        let mut under_way = self.under_way();
        if let Some(found) = under_way.get(host) {
            return found.clone();
        }
        let (tell, found) = watch::channel(None);
        under_way.insert(host.to_owned(), found.clone());
        // A runtime that is shutting down drops the look-up at once, and the drop wants the lock.
        drop(under_way);
        let ending = Ending {
            lookups: self.clone(),
            host: host.to_owned(),
            _permit: permit,
        };
        // Not awaited: it goes on when the attempt that asked has lost patience, and so does its permit.
        drop(tokio::task::spawn_blocking(move || {
            let found = (ending.lookups.find)(&ending.host).map_err(drop);
            drop(ending);
            tell.send_replace(Some(found));
        }));
        found
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Found>>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up's entry and permit, which go when its thread has really returned, by a panic too.
struct Ending {
    lookups: Lookups,
    host: String,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.lookups.under_way().remove(&self.host);
    }
}

fn too_many() -> Failure {
    let reason = format!("the name was not looked up: {LOOKUPS_MAX} others did not end in time");
    Failure::new(Cause::Dns, reason)
}

fn late() -> Failure {
    Failure::new(Cause::Timeout, "the name was not looked up in time")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::dispatch::tests::stub::{DEADLINE, within};

    /// A resolver that answers when it is told to, once for each word.
    struct Resolver {
        lookups: Lookups,
        asked: Arc<Mutex<Vec<String>>>,
        answer: mpsc::Sender<Vec<IpAddr>>,
    }

    impl Resolver {
        fn new(lookups_max: usize) -> Self {
            let (answer, answers) = mpsc::channel();
            let (answers, asked) = (Mutex::new(answers), Arc::<Mutex<Vec<_>>>::default());
            let list = asked.clone();
            let lookups = Lookups::with(lookups_max, move |host| {
                list.lock().unwrap().push(host.to_owned());
                let answer = answers.lock().unwrap().recv_timeout(DEADLINE);
                answer.map_err(io::Error::other)
            });
            Self {
                lookups,
                asked,
                answer,
            }
        }

        /// Asks for a name with no patience at all.
        async fn at_once(&self, host: &str) -> (Cause, String) {
            let found = self.lookups.addresses(host, Instant::now()).await;
            let failure = found.unwrap_err();
            (failure.cause, failure.reason.into_owned())
        }

        fn asked(&self, host: &str) -> usize {
            let asked = self.asked.lock().unwrap();
            asked.iter().filter(|name| *name == host).count()
        }

        async fn patiently(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
            let by = Instant::now() + DEADLINE;
            within("a look-up", self.lookups.addresses(host, by)).await
        }
    }

    fn address() -> Vec<IpAddr> {
        vec!["192.0.2.1".parse().unwrap()]
    }

    #[tokio::test]
    async fn lookups_that_hang_keep_their_threads_and_nobody_elses() {
        let resolver = Resolver::new(2);
        for host in ["a", "b"] {
            let (cause, reason) = resolver.at_once(host).await;
            assert_eq!(cause, Cause::Timeout, "{host}: {reason}");
        }
        let (cause, reason) = resolver.at_once("c").await;
        assert_eq!(cause, Cause::Dns, "{reason}");
        assert!(reason.contains("others did not end in time"), "{reason}");
        assert_eq!(resolver.asked("c"), 0);
        // Whoever still waits when a thread comes back has its turn.
        let (found, ()) = tokio::join!(resolver.patiently("c"), async {
            assert_eq!(resolver.asked("c"), 0);
            for _ in 0..3 {
                resolver.answer.send(address()).unwrap();
            }
        });
        assert_eq!(found.unwrap(), address());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_that_wait_for_it_and_again_for_the_next() {
        let resolver = Resolver::new(2);
        let (cause, _) = resolver.at_once("a").await;
        assert_eq!(cause, Cause::Timeout);
        let (first, second, ()) =
            tokio::join!(resolver.patiently("a"), resolver.patiently("a"), async {
                resolver.answer.send(address()).unwrap();
            });
        assert_eq!((first.unwrap(), second.unwrap()), (address(), address()));
        assert_eq!(resolver.asked("a"), 1);
        resolver.answer.send(Vec::new()).unwrap();
        assert_eq!(resolver.patiently("a").await.unwrap_err().cause, Cause::Dns);
        assert_eq!(resolver.asked("a"), 2);
    }

    #[test]
    fn a_look_up_that_a_shutdown_refuses_leaves_its_name() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let lookups = Lookups::with(1, |_| Ok(address()));
        let permit = lookups.permits.clone().try_acquire_owned().unwrap();
        let _inside = handle.enter();
        drop(lookups.begin("a", permit));
        assert!(lookups.under_way().is_empty());
        assert_eq!(lookups.permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_resolver_that_fails_or_panics_leaves_its_thread() {
        let lookups = Lookups::with(1, |host| match host {
            "panics" => panic!("on purpose"),
            _ => Err(io::Error::other("no such name")),
        });
        for host in ["fails", "panics", "fails", "panics", "fails"] {
            let by = Instant::now() + DEADLINE;
            let found = within("a look-up", lookups.addresses(host, by)).await;
            let failure = found.unwrap_err();
            assert_eq!(failure.cause, Cause::Dns, "{host}");
            assert_eq!(failure.reason, "the host has no address", "{host}");
        }
    }
}
