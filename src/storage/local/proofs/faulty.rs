//! A disk in memory that loses unsynced writes, tears pages, and fails on command.
//!
//! A file has pages of 4 KiB, each with its present bytes and its durable bytes. The name of a file or directory is durable
//! only after a sync of its directory. [`FaultyDisk::crash`] decides at random for everything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use ring::digest::{Context, SHA256};
use tokio::sync::watch;

use crate::storage::local::{Disk, DiskFile};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// Errno of "no space left on device".
pub(super) const ENOSPC: i32 = 28;
/// Errno of "input/output error".
pub(super) const EIO: i32 = 5;

/// Random numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// The effect of a crash on unsynced writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Everything not synced is gone: a cache that wrote nothing ahead.
    LoseAll,
    /// Only the process died. Nothing is lost, and nothing is safer than before: a crash of the machine may still come.
    Process,
    /// Each page is kept, lost, or torn between sectors; each name is the old or the new one.
    Random(u64),
}

/// The call that a [`Fault`] affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    Write,
    Read,
    Sync,
    Rename,
    SyncDir,
}

/// Calls that will fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) call: Call,
    /// Calls for other files go well; the name is the one below the data directory (`journal/0000000001.seg`).
    pub(super) file: fn(&str) -> bool,
    /// So many go well first.
    pub(super) skip: u64,
    /// So many fail.
    pub(super) times: u64,
    pub(super) errno: i32,
}

/// Says that a name is that of a segment in use.
pub(super) fn segment(name: &str) -> bool {
    name.ends_with(".seg") && !name.contains("spare")
}

/// Says that a name is anything.
pub(super) fn any(_name: &str) -> bool {
    true
}

/// What a full disk refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// New files, and writes behind the end of a file.
    Growth,
    /// Every write: a file system that copies on write.
    Everything,
}

/// Handle on the disk. Clones share it.
#[derive(Clone)]
pub(crate) struct FaultyDisk(Arc<World>);

struct World {
    state: Mutex<State>,
    released: Condvar,
    /// Number of syncs that are held back.
    held: watch::Sender<usize>,
}

#[derive(Clone, Default)]
struct State {
    /// Number of crashes. Files opened before a crash return errors.
    life: u64,
    off: bool,
    /// Calls so far that changed something.
    ops: u64,
    off_at: Option<u64>,
    /// Names of directories, and whether they would survive.
    dirs: BTreeMap<PathBuf, bool>,
    files: BTreeMap<u64, Inode>,
    files_made: u64,
    faults: Vec<Fault>,
    full: Option<Full>,
    /// Reported free bytes; `None` = plenty.
    free: Option<u64>,
    short_writes: Option<Dice>,
    syncs_held: bool,
    /// With recording on: the disk as it was before each call that changed something.
    recorded: Option<Vec<(String, State)>>,
}

#[derive(Clone, Default)]
struct Inode {
    name: Option<PathBuf>,
    name_durable: Option<PathBuf>,
    /// Names since the durable one, with the present one; empty if that is the durable one.
    names_since: Vec<Option<PathBuf>>,
    /// Another file has taken its name.
    replaced: bool,
    pages: BTreeMap<u64, Page>,
    len: u64,
    len_durable: u64,
}

#[derive(Clone)]
struct Page {
    now: Arc<[u8; PAGE]>,
    durable: Arc<[u8; PAGE]>,
    /// The next sync writes it. After a failed sync it is not set, though `durable` may lag behind: as in Linux.
    dirty: bool,
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk")
            .field("ops", &self.ops())
            .finish_non_exhaustive()
    }
}

impl FaultyDisk {
    pub(crate) fn new() -> Self {
        Self::with(State {
            dirs: BTreeMap::from([(PathBuf::new(), true)]),
            ..State::default()
        })
    }

    fn with(state: State) -> Self {
        Self(Arc::new(World {
            state: Mutex::new(state),
            released: Condvar::new(),
            held: watch::Sender::new(0),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the disk as an engine sees it, whose data directory is called `root`.
    pub(crate) fn mount(&self, root: &Path) -> Arc<dyn Disk> {
        Arc::new(Mount {
            disk: self.clone(),
            root: root.to_owned(),
            life: self.state().life,
        })
    }

    /// Returns a second disk with the same content.
    pub(super) fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.recorded = None;
        Self::with(state)
    }

    /// Returns how many calls so far changed something.
    pub(super) fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Lets `count` more calls change something; then everything fails until [`FaultyDisk::crash`].
    pub(crate) fn power_off_after(&self, count: u64) {
        let mut state = self.state();
        state.off_at = Some(state.ops + count);
    }

    /// Returns whether the power is off.
    pub(crate) fn is_off(&self) -> bool {
        self.state().off
    }

    /// From now on keeps the disk as it was before each call that changes something.
    pub(super) fn record(&self) {
        self.state().recorded = Some(Vec::new());
    }

    /// Returns what was recorded, each with the call that came next; place `n` was before call number `n`.
    pub(super) fn recorded(&self) -> Vec<(String, Self)> {
        let recorded = self.state().recorded.take().unwrap_or_default();
        recorded
            .into_iter()
            .map(|(call, state)| (call, Self::with(state)))
            .collect()
    }

    /// Adds a fault.
    pub(super) fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Takes all faults back.
    pub(super) fn heal(&self) {
        self.state().faults.clear();
    }

    /// Returns how many calls are still to fail.
    pub(super) fn faults_left(&self) -> u64 {
        self.state().faults.iter().map(|fault| fault.times).sum()
    }

    /// Fills the disk, or frees space again.
    pub(super) fn fill(&self, full: Option<Full>) {
        self.state().full = full;
    }

    /// Says from now on that so many bytes are free.
    pub(super) fn set_free(&self, bytes: u64) {
        self.state().free = Some(bytes);
    }

    /// From now on writes take only a part of what they are given.
    pub(super) fn write_short(&self, seed: u64) {
        self.state().short_writes = Some(Dice(seed));
    }

    /// Makes syncs of segments wait until they are released.
    pub(super) fn hold_syncs(&self) -> Held {
        self.state().syncs_held = true;
        Held(self.clone())
    }

    /// Returns when a sync waits.
    pub(super) async fn sync_is_held(&self) {
        let mut held = self.0.held.subscribe();
        let wait = held.wait_for(|count| *count > 0);
        tokio::time::timeout(std::time::Duration::from_secs(20), wait)
            .await
            .expect("no sync came within 20 s")
            .unwrap();
    }

    /// Returns the names of all files, as seen now.
    pub(super) fn names(&self) -> Vec<String> {
        let state = self.state();
        let names = state.files.values().filter_map(|file| file.name.as_ref());
        let mut names: Vec<_> = names.map(|name| name.display().to_string()).collect();
        names.sort();
        names
    }

    /// Returns the content of a file, as seen now.
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        let file = state.file_named(Path::new(name)).expect("a file");
        let mut content = vec![0; usize::try_from(file.len).unwrap()];
        file.read(&mut content, 0);
        content
    }

    /// Overwrites bytes behind the engine's back, durably.
    pub(super) fn damage(&self, name: &str, at: u64, bytes: &[u8]) {
        let mut state = self.state();
        let ino = state.ino_named(Path::new(name)).expect("a file");
        let file = state.files.get_mut(&ino).unwrap();
        file.write(bytes, at);
        file.sync();
    }

    /// Takes a file away, durably.
    pub(super) fn lose(&self, name: &str) {
        let mut state = self.state();
        let ino = state.ino_named(Path::new(name)).expect("a file");
        state.files.remove(&ino);
    }

    /// Cuts the power and turns it on again: what was not synced is there or not, faults are gone, and files opened
    /// before fail for ever.
    pub(crate) fn crash(&self, how: Crash) {
        let mut state = self.state();
        state.crash(how);
        state.syncs_held = false;
        drop(state);
        self.0.released.notify_all();
    }

    /// Returns a number that differs between disks of different content, now or after a crash.
    pub(super) fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let state = self.state();
        let mut hasher = DefaultHasher::new();
        // Not by that hasher: without optimisation it is fifty times slower, and there are megabytes of pages.
        let mut pages = Context::new(&SHA256);
        state.dirs.hash(&mut hasher);
        for file in state.files.values() {
            (&file.name, &file.name_durable, &file.names_since).hash(&mut hasher);
            (file.len, file.len_durable).hash(&mut hasher);
            for (number, page) in &file.pages {
                (number, page.dirty).hash(&mut hasher);
                pages.update(&page.now[..]);
                pages.update(&page.durable[..]);
            }
        }
        pages.finish().as_ref().hash(&mut hasher);
        hasher.finish()
    }
}

/// Holds syncs back. Dropped, it lets them go, so that a test which fails can end.
#[derive(Debug)]
pub(super) struct Held(FaultyDisk);

impl Held {
    pub(super) fn release(&self) {
        self.0.state().syncs_held = false;
        self.0.0.released.notify_all();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

impl State {
    fn ino_named(&self, name: &Path) -> Option<u64> {
        let found = |(_, file): &(&u64, &Inode)| file.name.as_deref() == Some(name);
        self.files.iter().find(found).map(|(ino, _)| *ino)
    }

    fn file_named(&self, name: &Path) -> Option<&Inode> {
        self.ino_named(name).map(|ino| &self.files[&ino])
    }

    /// Counts a call that changes something, and refuses it if the power is off or a fault says so.
    fn begin(&mut self, life: u64, call: Option<Call>, name: &str) -> io::Result<()> {
        if self.off_at.is_some_and(|at| self.ops >= at) {
            self.off = true;
        }
        self.alive(life)?;
        if let Some(mut recorded) = self.recorded.take() {
            recorded.push((format!("{call:?} {name}"), self.clone()));
            self.recorded = Some(recorded);
        }
        self.ops += 1;
        call.map_or(Ok(()), |call| self.fault(call, name))
    }

    fn alive(&self, life: u64) -> io::Result<()> {
        if self.off || self.life != life {
            return Err(errno(EIO));
        }
        Ok(())
    }

    fn fault(&mut self, call: Call, name: &str) -> io::Result<()> {
        let hit = |fault: &&mut Fault| fault.call == call && (fault.file)(name);
        for fault in self.faults.iter_mut().filter(hit) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Err(errno(fault.errno));
            }
        }
        Ok(())
    }

    fn name_of(&self, ino: u64) -> String {
        let name = self.files.get(&ino).and_then(|file| file.name.as_ref());
        name.map_or_else(String::new, |name| name.display().to_string())
    }

    fn file(&mut self, ino: u64) -> io::Result<&mut Inode> {
        self.files.get_mut(&ino).ok_or_else(|| errno(EIO))
    }

    fn parent_exists(&self, name: &Path) -> io::Result<()> {
        let parent = name.parent().unwrap_or(Path::new(""));
        self.dirs
            .contains_key(parent)
            .then_some(())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn crash(&mut self, how: Crash) {
        if how != Crash::Process {
            self.lose(how);
        }
        self.life += 1;
        self.ops = 0;
        self.off = false;
        self.off_at = None;
        self.faults.clear();
        self.full = None;
        self.short_writes = None;
    }

    fn lose(&mut self, how: Crash) {
        let mut dice = Dice(match how {
            Crash::Random(seed) => seed,
            Crash::LoseAll | Crash::Process => 0,
        });
        // 0 keeps the old.
        let mut choose = |count: usize| match how {
            Crash::LoseAll | Crash::Process => 0,
            Crash::Random(_) => dice.below(count),
        };
        let lost_dirs: BTreeSet<_> = self
            .dirs
            .iter()
            .filter(|(_, durable)| !**durable && choose(2) == 0)
            .map(|(dir, _)| dir.clone())
            .collect();
        let is_lost = |name: &Path| name.ancestors().any(|dir| lost_dirs.contains(dir));
        self.dirs.retain(|dir, _| !is_lost(dir));
        self.dirs.values_mut().for_each(|durable| *durable = true);

        // Those whose name went over to another file come last: they get it back only if that one is not there.
        let mut taken: BTreeSet<PathBuf> = BTreeSet::new();
        let mut files: Vec<_> = self.files.values_mut().collect();
        files.sort_by_key(|file| file.replaced);
        for file in files {
            let choice = choose(file.names_since.len() + 1);
            let mut name = match choice.checked_sub(1) {
                Some(at) => file.names_since[at].clone(),
                None => file.name_durable.clone(),
            };
            if name.is_none() && file.replaced {
                name.clone_from(&file.name_durable);
            }
            let name = name.filter(|name| !is_lost(name) && taken.insert(name.clone()));
            file.name = name;
            file.crash_content(&mut choose);
        }
        self.files.retain(|_, file| file.name.is_some());
        for file in self.files.values_mut() {
            file.name_durable.clone_from(&file.name);
            file.names_since.clear();
            file.replaced = false;
        }
    }
}

impl Inode {
    fn rename(&mut self, to: Option<PathBuf>) {
        self.name.clone_from(&to);
        self.names_since.push(to);
    }

    fn name_is_durable(&mut self) {
        self.name_durable.clone_from(&self.name);
        self.names_since.clear();
        self.replaced = false;
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> usize {
        let rest = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = buffer.len().min(rest);
        for (number, inside, place) in pages(at, len) {
            let target = &mut buffer[place.clone()];
            match self.pages.get(&number) {
                Some(page) => target.copy_from_slice(&page.now[inside..inside + place.len()]),
                None => target.fill(0),
            }
        }
        len
    }

    fn write(&mut self, bytes: &[u8], at: u64) {
        for (number, inside, place) in pages(at, bytes.len()) {
            let page = self.pages.entry(number).or_insert_with(|| {
                let zeros = Arc::new([0; PAGE]);
                Page {
                    now: zeros.clone(),
                    durable: zeros,
                    dirty: false,
                }
            });
            page.dirty = true;
            Arc::make_mut(&mut page.now)[inside..inside + place.len()]
                .copy_from_slice(&bytes[place]);
        }
        self.len = self.len.max(at + bytes.len() as u64);
    }

    /// What is cut off is zeros if a crash brings it back.
    fn truncate(&mut self, len: u64) {
        self.len = self.len.min(len);
        let from = self.len.div_ceil(PAGE as u64);
        self.pages.retain(|number, _| *number < from);
    }

    fn sync(&mut self) {
        for page in self.pages.values_mut().filter(|page| page.dirty) {
            page.durable = page.now.clone();
            page.dirty = false;
        }
        self.len_durable = self.len;
    }

    /// The kernel gives up on the pages and forgets that they are not on the disk.
    fn sync_failed(&mut self) {
        self.pages.values_mut().for_each(|page| page.dirty = false);
    }

    fn crash_content(&mut self, choose: &mut impl FnMut(usize) -> usize) {
        for page in self.pages.values_mut() {
            if page.now[..] != page.durable[..] {
                match choose(3) {
                    0 => {}
                    1 => {
                        let durable = Arc::make_mut(&mut page.durable);
                        for at in (0..PAGE).step_by(SECTOR) {
                            if choose(2) == 1 {
                                let sector = at..at + SECTOR;
                                durable[sector.clone()].copy_from_slice(&page.now[sector]);
                            }
                        }
                    }
                    _ => page.durable = page.now.clone(),
                }
            }
            page.now = page.durable.clone();
            page.dirty = false;
        }
        if self.len != self.len_durable && choose(2) == 0 {
            self.len = self.len_durable;
        }
        self.len_durable = self.len;
        let len = usize::try_from(self.len).unwrap();
        self.pages
            .retain(|number, _| usize::try_from(*number).unwrap() * PAGE < len);
        if let Some(page) = self.pages.get_mut(&((len / PAGE) as u64)) {
            Arc::make_mut(&mut page.now)[len % PAGE..].fill(0);
            page.durable = page.now.clone();
        }
    }
}

/// Cuts a range into pages: page number, place inside the page, range of the buffer.
fn pages(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let place = at + done as u64;
        let inside = usize::try_from(place % PAGE as u64).unwrap();
        let part = (PAGE - inside).min(len - done);
        let range = done..done + part;
        done += part;
        (part > 0).then_some((place / PAGE as u64, inside, range))
    })
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[derive(Debug)]
struct Mount {
    disk: FaultyDisk,
    root: PathBuf,
    life: u64,
}

impl Mount {
    fn relative(&self, path: &Path) -> io::Result<PathBuf> {
        let relative = path.strip_prefix(&self.root);
        relative
            .map(Path::to_owned)
            .map_err(|_| io::ErrorKind::NotFound.into())
    }

    fn handle(&self, ino: u64) -> Box<dyn DiskFile> {
        Box::new(Handle {
            disk: self.disk.clone(),
            life: self.life,
            ino,
        })
    }
}

impl Disk for Mount {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let name = self.relative(path)?;
        let mut state = self.disk.state();
        state.begin(self.life, Some(Call::Create), &name.display().to_string())?;
        if state.full.is_some() {
            return Err(errno(ENOSPC));
        }
        state.parent_exists(&name)?;
        if state.ino_named(&name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files_made += 1;
        let ino = state.files_made;
        let mut file = Inode::default();
        file.rename(Some(name));
        state.files.insert(ino, file);
        Ok(self.handle(ino))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let name = self.relative(path)?;
        let state = self.disk.state();
        state.alive(self.life)?;
        let ino = state.ino_named(&name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(ino))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.relative(from)?, self.relative(to)?);
        let mut state = self.disk.state();
        state.begin(self.life, Some(Call::Rename), &to.display().to_string())?;
        state.parent_exists(&to)?;
        let ino = state.ino_named(&from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(old) = state.ino_named(&to)
            && old != ino
        {
            let old = state.files.get_mut(&old).unwrap();
            old.rename(None);
            old.replaced = true;
        }
        state.file(ino)?.rename(Some(to));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = self.relative(path)?;
        let mut state = self.disk.state();
        state.begin(self.life, None, &name.display().to_string())?;
        let ino = state.ino_named(&name).ok_or(io::ErrorKind::NotFound)?;
        state.file(ino)?.rename(None);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = self.relative(dir)?;
        let state = self.disk.state();
        state.alive(self.life)?;
        if !state.dirs.contains_key(&dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let files = state.files.values().filter_map(|file| file.name.as_ref());
        let inside = files
            .chain(state.dirs.keys())
            .filter(|name| name.parent() == Some(&dir))
            .filter_map(|name| name.file_name());
        Ok(inside
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = self.relative(dir)?;
        let mut state = self.disk.state();
        state.begin(self.life, None, &dir.display().to_string())?;
        for dir in dir.ancestors() {
            state.dirs.entry(dir.to_owned()).or_insert(false);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = self.relative(dir)?;
        let mut state = self.disk.state();
        state.begin(self.life, Some(Call::SyncDir), &dir.display().to_string())?;
        if !state.dirs.contains_key(&dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |name: &Path| name.parent() == Some(&dir);
        for (_, durable) in state.dirs.iter_mut().filter(|(name, _)| inside(name)) {
            *durable = true;
        }
        for file in state.files.values_mut() {
            let name = match &file.name {
                Some(name) => Some(name),
                None => file
                    .names_since
                    .iter()
                    .rev()
                    .flatten()
                    .next()
                    .or(file.name_durable.as_ref()),
            };
            if name.is_some_and(|name| inside(name)) {
                file.name_is_durable();
            }
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.disk.state();
        state.alive(self.life)?;
        Ok(state.free.unwrap_or(u64::MAX))
    }
}

struct Handle {
    disk: FaultyDisk,
    life: u64,
    ino: u64,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.ino)
    }
}

impl DiskFile for Handle {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.alive(self.life)?;
        let name = state.name_of(self.ino);
        state.fault(Call::Read, &name)?;
        Ok(state.file(self.ino)?.read(buffer, at))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let name = state.name_of(self.ino);
        let begun = state.begin(self.life, Some(Call::Write), &name);
        if let Err(error) = begun {
            // A failed write may have done a part of its work.
            if state.alive(self.life).is_ok() {
                state.file(self.ino)?.write(&bytes[..bytes.len() / 2], at);
            }
            return Err(error);
        }
        let len = state.file(self.ino)?.len;
        let grows = at + bytes.len() as u64 > len;
        match state.full {
            Some(Full::Everything) => return Err(errno(ENOSPC)),
            Some(Full::Growth) if grows => return Err(errno(ENOSPC)),
            _ => {}
        }
        let part = match &mut state.short_writes {
            Some(dice) if bytes.len() > 1 => 1 + dice.below(bytes.len()),
            _ => bytes.len(),
        };
        state.file(self.ino)?.write(&bytes[..part], at);
        Ok(part)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.syncs_held && segment(&state.name_of(self.ino)) {
            self.disk.0.held.send_modify(|count| *count += 1);
            while state.syncs_held {
                state = self
                    .disk
                    .0
                    .released
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            self.disk.0.held.send_modify(|count| *count -= 1);
        }
        let name = state.name_of(self.ino);
        let begun = state.begin(self.life, Some(Call::Sync), &name);
        if begun.is_err() && state.alive(self.life).is_ok() {
            state.file(self.ino)?.sync_failed();
        }
        begun?;
        state.file(self.ino)?.sync();
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let name = state.name_of(self.ino);
        state.begin(self.life, None, &name)?;
        state.file(self.ino)?.truncate(len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.alive(self.life)?;
        Ok(state.file(self.ino)?.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/data";

    fn path(name: &str) -> PathBuf {
        Path::new(ROOT).join(name)
    }

    fn made(disk: &FaultyDisk) -> Box<dyn DiskFile> {
        let mount = disk.mount(Path::new(ROOT));
        mount.create_dir_all(&path("a")).unwrap();
        mount.sync_dir(&path("")).unwrap();
        let file = mount.create(&path("a/new")).unwrap();
        file.write_at(&[1; 10_000], 0).unwrap();
        file
    }

    #[test]
    fn an_unsynced_name_is_lost_and_a_synced_one_is_not() {
        let disk = FaultyDisk::new();
        let file = made(&disk);
        file.sync_data().unwrap();
        let unsynced = disk.fork();
        unsynced.crash(Crash::LoseAll);
        assert!(unsynced.names().is_empty());

        let mount = disk.mount(Path::new(ROOT));
        mount.sync_dir(&path("a")).unwrap();
        mount.rename(&path("a/new"), &path("a/final")).unwrap();
        let renamed = disk.fork();
        renamed.crash(Crash::LoseAll);
        assert_eq!(renamed.names(), ["a/new"]);
        mount.sync_dir(&path("a")).unwrap();
        disk.crash(Crash::LoseAll);
        assert_eq!(disk.names(), ["a/final"]);
        assert_eq!(disk.content("a/final"), [1; 10_000]);
        assert!(file.read_at(&mut [0], 0).is_err(), "a handle of before");
    }

    #[test]
    fn unsynced_pages_are_lost_torn_or_kept() {
        let disk = FaultyDisk::new();
        let file = made(&disk);
        file.sync_data().unwrap();
        disk.mount(Path::new(ROOT)).sync_dir(&path("a")).unwrap();
        file.write_at(&[2; 20_000], 5_000).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let disk = disk.fork();
            disk.crash(Crash::Random(seed));
            let content = disk.content("a/new");
            assert!(content[..5_000].iter().all(|byte| *byte == 1));
            let twos = content.iter().filter(|byte| **byte == 2).count();
            seen.insert((content.len(), twos));
        }
        assert!(seen.len() > 10, "{seen:?}");
    }

    #[test]
    fn after_a_failed_sync_pages_are_read_but_no_later_sync_saves_them() {
        let disk = FaultyDisk::new();
        let file = made(&disk);
        file.sync_data().unwrap();
        disk.mount(Path::new(ROOT)).sync_dir(&path("a")).unwrap();
        file.write_at(&[2; 100], 0).unwrap();
        disk.fail(Fault {
            call: Call::Sync,
            file: any,
            skip: 0,
            times: 1,
            errno: EIO,
        });
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.content("a/new")[..100], [2; 100]);
        disk.crash(Crash::LoseAll);
        assert_eq!(disk.content("a/new")[..100], [1; 100]);
    }
}
