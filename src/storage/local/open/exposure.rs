//! Finds files of a data directory that other users may read or change. Older releases created files with the umask only.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Group and all others.
const OTHERS: u32 = 0o077;
/// Bound of reported names. The command that repairs the modes is the same for all.
const NAMES_LEN_MAX: usize = 100;
/// Bound of names in the queue. A data directory has a few thousand at most.
const WAITING_LEN_MAX: usize = 1_000_000;

/// Files and directories that are open to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposed {
    /// Number of such files and directories.
    pub len: usize,
    /// The first hundred.
    pub paths: Vec<PathBuf>,
}

/// Returns the permission bits of a directory if others than its owner have any.
pub(in crate::storage) fn mode_for_others(dir: &Path) -> Option<u32> {
    let mode = fs::metadata(dir).ok()?.mode() & 0o777;
    (mode & OTHERS != 0).then_some(mode)
}

/// Looks through a directory. Links are not followed, as their own mode says nothing. What cannot be looked at, such as
/// the `lost+found` of a mounted disk, is left out.
pub(in crate::storage) fn look(dir: &Path) -> Exposed {
    let mut exposed = Exposed::default();
    let mut waiting = vec![dir.to_owned()];
    let mut looks = 0;
    while let Some(path) = waiting.pop() {
        looks += 1;
        // The data directory itself may be a link.
        let found = match looks {
            1 => fs::metadata(&path),
            _ => fs::symlink_metadata(&path),
        };
        let Ok(found) = found else { continue };
        if found.is_symlink() {
            continue;
        }
        if found.mode() & OTHERS != 0 {
            exposed.len += 1;
            if exposed.paths.len() < NAMES_LEN_MAX {
                exposed.paths.push(path.clone());
            }
        }
        if found.is_dir() && waiting.len() < WAITING_LEN_MAX {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.map(|entry| entry.path()));
        }
    }
    exposed.paths.sort_unstable();
    exposed
}
