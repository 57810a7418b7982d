//! The master key: from a command, else from the environment, else from a file.
//!
//! A start makes a missing file, but only while nothing is sealed. [`KeySource::find`] makes none; the caller checks the
//! stored secrets first and then writes a new key ([`MasterKey::keep`]).

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use rustix::{
    fs::{CWD, OFlags, RenameFlags, renameat_with},
    io::Errno,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{master_command, settings::Settings};
use crate::runtime::files;

/// More bytes than any encoding of a key has.
pub(super) const TEXT_BYTES_MAX: u64 = 4096;

/// Where the master key comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A command prints the key.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// The key is in an environment variable.
    Variable(String),
    /// The key is in a file.
    File(KeyFile),
}

/// A file with a master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
    links: Links,
}

/// Result of [`KeySource::find`].
#[derive(Debug)]
pub enum Found {
    /// The key.
    Key(MasterKey),
    /// The file is missing.
    Missing(KeyFile),
}

/// 32 bytes from which all keys of the secrets are derived. Wiped from memory when dropped.
pub struct MasterKey {
    bytes: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// Why there is no master key. No text contains a part of the key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The environment variable of the settings is not set, or is empty.
    #[error("environment variable {0} with the master key is not set, or is empty")]
    EnvMissing(String),
    /// The file is missing, and sealed tokens need it.
    #[error(
        "the master key file {} is missing, and tokens are sealed with it ({sealed_len}); put it back, or give these tokens \
         up: `syncgate doctor --data {} --forget-secrets`; no new key was made",
        path.display(),
        data_dir.display()
    )]
    Missing {
        /// Where the file should be.
        path: PathBuf,
        /// Number of sealed tokens.
        sealed_len: usize,
        /// The data directory with these tokens.
        data_dir: PathBuf,
    },
    /// Tokens are sealed with another key.
    #[error(
        "the master key from {from} is not the one that the stored tokens were sealed with; put that one in its place, or \
         give these tokens up: `syncgate doctor --data {} --forget-secrets`",
        data_dir.display()
    )]
    Wrong {
        /// Where the key comes from.
        from: String,
        /// The data directory with these tokens.
        data_dir: PathBuf,
    },
    /// The command did not start, failed, or took longer than 30 s.
    #[error("the master key command {program} {what}")]
    Command {
        /// Its first word.
        program: String,
        /// What the command did, for example `failed`.
        what: String,
    },
    /// The value is not a key.
    #[error("the master key from {from} is not 32 bytes as base64; put the right key there")]
    Malformed {
        /// Where it came from.
        from: String,
    },
    /// Users other than the owner may read or write the file.
    #[error("the master key file {} is open to others (mode {mode:o}); chmod 600 it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file could not be read or made.
    #[error("cannot {doing} the master key file {}", path.display())]
    File {
        /// `read` or `make`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The system gave no random numbers.
    #[error("the system has no random numbers for a master key")]
    NoRandom,
}

impl KeySource {
    /// Returns the source of the key by the settings.
    #[must_use]
    pub fn of(settings: &Settings, data_dir: &Path) -> Self {
        if let Some((program, arguments)) = settings.master_key_command.split_first() {
            return Self::Command {
                program: program.clone(),
                arguments: arguments.to_vec(),
            };
        }
        if let Some(name) = &settings.master_key_env {
            return Self::Variable(name.clone());
        }
        Self::File(match &settings.master_key_file {
            Some(path) => KeyFile {
                path: path.clone(),
                links: Links::Followed,
            },
            None => KeyFile::in_dir(data_dir),
        })
    }

    /// Finds the key.
    ///
    /// Blocks while the command runs, 30 s at most, so call it before the runtime serves requests. When `stop` fires, the
    /// command is killed, because it must not outlive its caller.
    ///
    /// # Errors
    /// Each variant of [`MasterKeyError`] says what to change.
    pub fn find(&self, stop: &CancellationToken) -> Result<Found, MasterKeyError> {
        let text = match self {
            Self::Command { program, arguments } => master_command::run(program, arguments, stop)?,
            Self::Variable(name) => {
                let text = std::env::var(name).map(Zeroizing::new);
                let text = text.ok().filter(|text| !text.trim().is_empty());
                text.ok_or_else(|| MasterKeyError::EnvMissing(name.clone()))?
            }
            Self::File(file) => match read_file(file)? {
                Some(text) => text,
                None => return Ok(Found::Missing(file.clone())),
            },
        };
        MasterKey::parse(&text, self).map(Found::Key)
    }
}

/// Shows only the program of a command, because an argument may be a secret.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { program, .. } => write!(f, "the command {program}"),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
            Self::File(file) => write!(f, "the file {}", file.path.display()),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySource({self})")
    }
}

impl KeyFile {
    /// Name of the file in a data directory.
    pub const NAME: &str = "master.key";

    /// Returns the default file in a data directory.
    #[must_use]
    pub fn in_dir(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join(Self::NAME),
            links: Links::Refused,
        }
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl MasterKey {
    /// Makes a new key and writes no file.
    ///
    /// # Errors
    /// [`MasterKeyError::NoRandom`].
    pub fn random() -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(|_| MasterKeyError::NoRandom)?;
        Ok(Self { bytes })
    }

    /// Makes a key of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            bytes: Zeroizing::new(bytes),
        }
    }

    /// Writes the key to a new file, for its owner alone. The file is durable on return, so that a crash never loses the key
    /// of a sealed secret.
    ///
    /// # Errors
    /// [`MasterKeyError::File`], also for a file that another process has made meanwhile.
    pub fn keep(&self, file: &KeyFile) -> Result<(), MasterKeyError> {
        let text = Zeroizing::new(BASE64.encode(&*self.bytes) + "\n");
        let written = write_file(&file.path, text.as_bytes()).and_then(|()| {
            // Read back, because two processes may write the same file beside it, and rename each other's.
            match fs::read(&file.path)? == text.as_bytes() {
                true => Ok(()),
                false => Err(io::ErrorKind::AlreadyExists.into()),
            }
        });
        written.map_err(|source| MasterKeyError::File {
            doing: "make",
            path: file.path.clone(),
            source,
        })
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    fn parse(text: &str, from: &KeySource) -> Result<Self, MasterKeyError> {
        let malformed = || MasterKeyError::Malformed {
            from: from.to_string(),
        };
        let decoded = BASE64.decode(text.trim().as_bytes());
        let decoded = Zeroizing::new(decoded.map_err(|_| malformed())?);
        let bytes = <[u8; 32]>::try_from(&decoded[..]).map_err(|_| malformed())?;
        Ok(Self::from_bytes(bytes))
    }
}

/// How a symbolic link in place of the file is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    /// The settings name the file, and mounted secrets are often links.
    Followed,
    /// Only the gateway makes the file of that name, so a link is suspicious.
    Refused,
}

fn read_file(file: &KeyFile) -> Result<Option<Zeroizing<String>>, MasterKeyError> {
    let path = file.path();
    let failed = |source| MasterKeyError::File {
        doing: "read",
        path: path.into(),
        source,
    };
    let flags = match file.links {
        Links::Followed => OFlags::empty(),
        Links::Refused => OFlags::NOFOLLOW,
    };
    let file = match files::open(fs::OpenOptions::new().read(true), flags, path) {
        Ok(file) => file,
        // A dangling link is an error and not a missing file: its key may not be mounted yet.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(MasterKeyError::Exposed {
            path: path.into(),
            mode,
        });
    }
    let mut text = empty_text();
    file.take(TEXT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Some(text))
}

/// Returns a text with room for any key. A text that grows would leave copies of its beginning in memory.
pub(super) fn empty_text() -> Zeroizing<String> {
    let room = usize::try_from(TEXT_BYTES_MAX).unwrap_or_default();
    Zeroizing::new(String::with_capacity(room + 1))
}

/// Writes a new file and renames it, so that a crash leaves a whole key or none. An existing key stays.
fn write_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut dirs = fs::DirBuilder::new();
    dirs.recursive(true).mode(0o700).create(dir)?;
    let beside = path.with_extension("key.new");
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let named = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| rename(&beside, path));
    if named.is_err() {
        let _removed = fs::remove_file(&beside).is_ok();
    }
    named?;
    fs::File::open(dir)?.sync_all()
}

/// Renames a file, unless another file has the name already.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems cannot look and rename at once.
        Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(to).is_err() => {
            fs::rename(from, to)
        }
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: PathBuf) -> Settings {
        Settings {
            master_key_file: Some(path),
            ..Settings::default()
        }
    }

    fn find(settings: &Settings, dir: &Path) -> Result<Found, MasterKeyError> {
        KeySource::of(settings, dir).find(&CancellationToken::new())
    }

    #[track_caller]
    fn found(settings: &Settings, dir: &Path) -> [u8; 32] {
        match find(settings, dir).unwrap() {
            Found::Key(key) => *key.bytes(),
            Found::Missing(file) => panic!("{file:?}"),
        }
    }

    #[test]
    fn a_link_is_followed_only_where_the_settings_name_the_file() {
        use std::os::unix::fs::symlink;
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = MasterKey::random().unwrap();
        made.keep(&KeyFile::in_dir(elsewhere.path())).unwrap();
        let key = elsewhere.path().join("master.key");
        let (own, named) = (dir.path().join("master.key"), dir.path().join("named"));
        symlink(&key, &own).unwrap();
        symlink(&key, &named).unwrap();
        let refused = find(&Settings::default(), dir.path()).unwrap_err();
        assert!(matches!(
            refused,
            MasterKeyError::File { doing: "read", .. }
        ));
        assert_eq!(&found(&file(named.clone()), dir.path()), made.bytes());
        // A key that is not there yet is not replaced by another one.
        fs::remove_file(&key).unwrap();
        let refused = find(&file(named.clone()), dir.path()).unwrap_err();
        assert!(matches!(
            refused,
            MasterKeyError::File { doing: "read", .. }
        ));
        assert!(fs::symlink_metadata(&named).unwrap().is_symlink());
    }

    #[test]
    fn the_file_is_made_once_for_the_owner_alone_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::default();
        let missing = find(&settings, dir.path()).unwrap();
        assert!(matches!(missing, Found::Missing(_)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let made = MasterKey::random().unwrap();
        made.keep(&KeyFile::in_dir(dir.path())).unwrap();
        let path = dir.path().join("master.key");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(&found(&settings, dir.path()), made.bytes());
        // Another process may have made one meanwhile.
        let late = MasterKey::random().unwrap();
        assert!(late.keep(&KeyFile::in_dir(dir.path())).is_err());
        assert_eq!(&found(&settings, dir.path()), made.bytes());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_holds_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        fs::write(&path, BASE64.encode(&[1; 32])).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = find(&file(path.clone()), dir.path()).unwrap_err();
        assert!(matches!(
            refused,
            MasterKeyError::Exposed { mode: 0o644, .. }
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(find(&file(path.clone()), dir.path()).is_ok());
        for wrong in ["", "short", &BASE64.encode(&[1; 31]), "!!!!"] {
            fs::write(&path, wrong).unwrap();
            let refused = find(&file(path.clone()), dir.path()).unwrap_err();
            assert!(
                matches!(refused, MasterKeyError::Malformed { .. }),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_command_wins_over_the_environment_and_that_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            master_key_env: Some("SYNCGATE_TEST_NO_SUCH_VARIABLE".into()),
            ..Settings::default()
        };
        let refused = find(&settings, dir.path()).unwrap_err();
        assert!(matches!(refused, MasterKeyError::EnvMissing(_)));
        let key = BASE64.encode(&[9; 32]);
        settings.master_key_command = vec!["echo".into(), key.clone()];
        assert_eq!(found(&settings, dir.path()), [9; 32]);
        let source = KeySource::of(&settings, dir.path());
        for shown in [format!("{source:?}"), source.to_string()] {
            assert!(shown.contains("echo") && !shown.contains(&key), "{shown}");
        }
        for (command, said) in [
            (vec!["false".into()], "failed"),
            (vec!["/no/such/program".into()], "cannot be run"),
        ] {
            settings.master_key_command = command;
            let refused = find(&settings, dir.path()).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
        }
        let loaded = MasterKey::from_bytes([9; 32]);
        assert_eq!(format!("{loaded:?}"), "MasterKey(***)");
    }
}
