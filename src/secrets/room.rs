//! Room for new tokens. When their share of the state is full, new versions replace the oldest ones without an open record.
//!
//! A search reads the open records of all streams once and notes the versions that they name. The other versions are
//! candidates. A commit that stores a new version removes one, on condition that no record has referred to it since the
//! search began ([`Commit::unreferred_since`]). So records that came or moved during the search keep their versions.
//!
//! Order, oldest first: superseded versions, and versions of derived names, which no message can name. The newest version
//! of a named secret goes last, and never while an open record names the secret, because messages without a token use it.
//!
//! An unreadable record may need any older version, so a search that meets one finds no candidates. The error says so
//! ([`PrepareError::RecordsUnreadable`]), because no delivery makes room then.
//!
//! A submission searches for at most [`TURN`]; the next one continues. Searches take at most a tenth of the time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    model::{
        ids::{Offset, PartitionId},
        record::{Record, header},
    },
    runtime::clock::Timestamp,
    storage::{
        Commit, ReadError,
        shares::{SHARES, TOKENS, TOKENS_PREFIX, state_cost},
    },
};

use super::{
    PrepareError, SecretStore, is_derived,
    version_index::{index_key, version_key},
};

/// How long one submission reads for a search.
const TURN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1_000 });
/// How long a submission waits for another one's turn.
const WAIT: Duration = Duration::from_secs(5);
/// The least time between two searches.
const SEARCH_EVERY: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });
/// What is read of a partition at a time.
const PAGE_BYTES: usize = 256 << 10;
/// Records whose ends are looked at together.
const ENDS_LEN: u64 = 16_384;
/// Heads read between two pauses for other tasks.
const HEADS_LEN: usize = 64;

/// A version that may give way.
#[derive(Clone, Debug)]
pub(super) struct Victim {
    pub(super) source: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) version: u32,
    pub(super) state_key: Arc<str>,
    pub(super) revision: u64,
    cost: usize,
    /// Messages that bring no token get it.
    is_newest: bool,
}

/// Versions that give way, and the time since which no record may have referred to them.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) victims: Vec<Victim>,
    pub(super) since: Timestamp,
}

/// What is known about room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Oldest first.
    found: VecDeque<Victim>,
    since: Timestamp,
    search: Option<Search>,
    /// The last search met a record that cannot be read.
    unreadable: bool,
    /// No other search begins before.
    again_at: Option<Instant>,
}

/// A look through all open records.
#[derive(Debug)]
struct Search {
    since: Timestamp,
    began: Instant,
    /// By state key; those that an open record needs are taken out.
    left: HashMap<Arc<str>, Victim>,
    /// State keys of the indexes of named secrets, and whether an open record names the secret.
    indexes: HashMap<Arc<str>, bool>,
    /// What is still to be read.
    todo: Vec<(PartitionId, Range<Offset>)>,
    /// How much of the time it has taken.
    spent: Duration,
}

/// Returns how many bytes more than their share tokens would take with `more`.
pub(super) fn missing(shared: &SecretStore, more: usize) -> usize {
    let share = SHARES.iter().position(|share| share.kind == TOKENS);
    let share = share.unwrap_or_default();
    let bytes = shared.engine.share_bytes()[share] + more;
    bytes.saturating_sub(SHARES[share].bytes_max)
}

impl SecretStore {
    /// Returns versions that take `bytes` together, none of which `keeps` names.
    ///
    /// # Errors
    /// [`PrepareError::Full`] if there are none, [`PrepareError::RecordsUnreadable`] if nobody can know, and
    /// [`PrepareError::MakingRoom`] while that is being found out.
    pub(super) async fn make_way(
        &self,
        bytes: usize,
        keeps: impl Fn(&str) -> bool,
    ) -> Result<Way, PrepareError> {
        let Ok(mut room) = timeout(WAIT, self.room.lock()).await else {
            return Err(PrepareError::MakingRoom);
        };
        let mut searched = false;
        loop {
            // The newest ones go if a search has just found nothing else.
            if let Some(victims) = room.take(self, bytes, searched, &keeps).await {
                let since = room.since;
                return Ok(Way { victims, since });
            }
            if searched {
                return Err(PrepareError::Full);
            }
            room.search(self).await?;
            searched = true;
        }
    }
}

impl Room {
    /// Takes the oldest versions that are still as they were found; `None` if they are not enough.
    async fn take(
        &mut self,
        shared: &SecretStore,
        bytes: usize,
        newest_too: bool,
        keeps: &impl Fn(&str) -> bool,
    ) -> Option<Vec<Victim>> {
        let (mut victims, mut kept, mut freed) = (Vec::new(), Vec::new(), 0);
        while freed < bytes {
            let next = self.found.front();
            if next.is_none_or(|victim| victim.is_newest && !newest_too) {
                break;
            }
            let Some(victim) = self.found.pop_front() else {
                break;
            };
            if keeps(&victim.state_key) {
                kept.push(victim);
                continue;
            }
            let entry = shared.engine.get(&victim.state_key).await;
            if entry.is_some_and(|entry| entry.revision == victim.revision) {
                freed += victim.cost;
                victims.push(victim);
            }
        }
        for victim in kept.into_iter().rev() {
            self.found.push_front(victim);
        }
        if freed >= bytes {
            return Some(victims);
        }
        for victim in victims.into_iter().rev() {
            self.found.push_front(victim);
        }
        None
    }

    /// Goes on with a search, or begins one, and takes over what it found.
    async fn search(&mut self, shared: &SecretStore) -> Result<(), PrepareError> {
        let now = Instant::now();
        // It stays here meanwhile: a submission whose client goes away leaves it to the next one.
        let search = match &mut self.search {
            Some(search) => search,
            None if self.again_at.is_some_and(|at| now < at) => {
                return Err(match self.found.is_empty() {
                    _ if self.unreadable => PrepareError::RecordsUnreadable,
                    true => PrepareError::Full,
                    false => PrepareError::MakingRoom,
                });
            }
            none => none.insert(Search::begin(shared).await?),
        };
        let ended = search.go_on(shared, now + TURN).await;
        search.spent += now.elapsed();
        match ended {
            Ok(true) => {}
            Ok(false) => return Err(PrepareError::MakingRoom),
            Err(error) => {
                self.search = None;
                self.unreadable = true;
                tracing::warn!(
                    %error,
                    "an open record cannot be read and may need any token, so none gives way to a new one"
                );
                self.again_at = Some(Instant::now() + SEARCH_EVERY);
                return Err(PrepareError::RecordsUnreadable);
            }
        }
        let pause = SEARCH_EVERY.max(search.spent * 10);
        let (found, since) = (search.sorted(shared).await, search.since);
        self.search = None;
        self.unreadable = false;
        self.again_at = Some(Instant::now() + pause);
        (self.found, self.since) = (found, since);
        tracing::warn!(
            can_go = self.found.len(),
            "tokens take their whole share of the state; the oldest that no open record needs give way to new ones"
        );
        Ok(())
    }
}

impl Search {
    async fn begin(shared: &SecretStore) -> Result<Self, PrepareError> {
        // What is stored by then is read; what comes later has a later time.
        let marked = shared.engine.commit(Commit::default()).await;
        let since = marked.map_err(|_| PrepareError::MakingRoom)?.time;
        let (mut left, mut indexes) = (HashMap::new(), HashMap::new());
        for (key, entry) in shared.engine.list(TOKENS_PREFIX).await {
            let key_parts = key.clone();
            let mut parts = key_parts.split('/').skip(1);
            let parts = (parts.next(), parts.next(), parts.next());
            let (Some(source), Some(name), Some(version)) = parts else {
                if parts.1.is_some_and(|name| !is_derived(name)) {
                    indexes.insert(key, false);
                }
                continue;
            };
            let Ok(version) = version.parse() else {
                continue;
            };
            let victim = Victim {
                source: source.into(),
                name: name.into(),
                version,
                state_key: key.clone(),
                revision: entry.revision,
                cost: state_cost(&key, &entry.value),
                is_newest: false,
            };
            left.insert(key, victim);
        }
        let mut todo = Vec::new();
        for stream in shared.engine.streams() {
            for of in stream.all_partitions() {
                // A stream that goes meanwhile takes its records along.
                if let Ok(status) = shared.engine.status(of) {
                    let bounds = status.bounds;
                    todo.push((of, status.low_mark.max(bounds.earliest)..bounds.tail));
                }
            }
        }
        Ok(Self {
            since,
            began: Instant::now(),
            left,
            indexes,
            todo,
            spent: Duration::ZERO,
        })
    }

    /// Reads until that time; returns whether all is read.
    async fn go_on(&mut self, shared: &SecretStore, until: Instant) -> Result<bool, ReadError> {
        while let Some((of, range)) = self.todo.last().cloned() {
            if range.start >= range.end {
                self.todo.pop();
                continue;
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            let next = match self.page(shared, of, &range).await {
                Ok(next) => next,
                Err(ReadError::PartitionUnknown(_)) => range.end,
                Err(ReadError::Trimmed { earliest, .. }) => earliest.max(range.start.next()),
                Err(error @ (ReadError::Damaged(_) | ReadError::Io(_))) => return Err(error),
            };
            // Only now: a call that is dropped while it reads leaves the page to the next one.
            if let Some((_, range)) = self.todo.last_mut() {
                range.start = next;
            }
        }
        Ok(true)
    }

    /// Reads the first open record and those beside it; returns how far that came.
    async fn page(
        &mut self,
        shared: &SecretStore,
        of: PartitionId,
        range: &Range<Offset>,
    ) -> Result<Offset, ReadError> {
        let end = range.start.plus(ENDS_LEN).min(range.end);
        let settled = shared.engine.settled_offsets(of, range.start..end)?;
        let mut offsets = (range.start.0..end.0).map(Offset);
        let Some(open) = offsets.find(|offset| !settled.contains(*offset)) else {
            tokio::task::yield_now().await;
            return Ok(end);
        };
        let page = shared.engine.read(of, open, PAGE_BYTES).await?;
        let settled = shared.engine.settled_offsets(of, open..page.next)?;
        for stored in &page.records {
            if !settled.contains(stored.offset) {
                self.keep(&stored.record);
            }
        }
        tokio::task::yield_now().await;
        Ok(page.next.max(open.next()))
    }

    /// An open record keeps its version, and where it may need the newest one, that too.
    fn keep(&mut self, record: &Record) {
        let headers = &record.headers;
        let source = headers.get(header::SOURCE).unwrap_or_default();
        let Some(name) = headers.get(header::SECRET_NAME) else {
            return;
        };
        let version = headers.get(header::SECRET_VERSION);
        if let Some(version) = version.and_then(|version| version.parse().ok()) {
            self.left.remove(&version_key(source, name, version));
        }
        if let Some(is_named) = self.indexes.get_mut(&index_key(source, name)) {
            *is_named = true;
        }
    }

    /// Returns what is left, in the order in which it gives way.
    async fn sorted(&self, shared: &SecretStore) -> VecDeque<Victim> {
        let mut by_index: HashMap<Arc<str>, Vec<Victim>> = HashMap::new();
        for victim in self.left.values().cloned() {
            let index = index_key(&victim.source, &victim.name);
            by_index.entry(index).or_default().push(victim);
        }
        let mut ranked = Vec::new();
        for (number, (key, victims)) in by_index.into_iter().enumerate() {
            if number % HEADS_LEN == 0 {
                tokio::task::yield_now().await;
            }
            let Some(first) = victims.first() else {
                continue;
            };
            if is_derived(&first.name) {
                ranked.extend(victims);
                continue;
            }
            // Without a index that can be read nobody knows which of them is the newest.
            let Some(Ok((_, index))) = shared.index(&first.source, &first.name).await else {
                continue;
            };
            let newest: HashSet<u32> = index.newest_versions().collect();
            let is_named = self.indexes.get(&key) != Some(&false);
            for mut victim in victims {
                victim.is_newest = newest.contains(&victim.version);
                if !(victim.is_newest && is_named) {
                    ranked.push(victim);
                }
            }
        }
        ranked.sort_by_key(|victim| (victim.is_newest, victim.revision));
        tracing::debug!(
            elapsed_ms = self.began.elapsed().as_millis(),
            can_go = ranked.len(),
            "looked for tokens that no open record needs"
        );
        ranked.into()
    }
}
