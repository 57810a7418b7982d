//! The master key: from a command, else from the environment, else from a file that is made at the first start.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use rustix::fs::OFlags;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::master_command;
use crate::config;

/// More than any spelling of a key has.
pub(super) const TEXT_BYTES_MAX: u64 = 4096;

/// 32 bytes from which all keys of the secrets come. Wiped from memory when dropped.
pub struct MasterKey {
    bytes: Zeroizing<[u8; 32]>,
    made_now: bool,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// Why there is no master key. None of the texts holds a part of it.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The environment variable that the settings name is not there.
    #[error("environment variable {0} with the master key is not set")]
    EnvMissing(String),
    /// The command could not be run, failed, or took longer than 30 s.
    #[error("the master key command {program} {what}")]
    Command {
        /// Its first word.
        program: String,
        /// What it did.
        what: String,
    },
    /// What was found is no key.
    #[error("the master key from {from} is not 32 bytes as base64")]
    Malformed {
        /// Where it came from.
        from: String,
    },
    /// Others than the owner may read or write the file.
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
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no random numbers.
    #[error("the system has no random numbers for a master key")]
    NoRandom,
}

impl MasterKey {
    /// Finds the key: command, else environment, else file. A missing file is made, readable by its owner alone, and
    /// is durable when this returns, so no secret is ever sealed with a key that a crash could take away.
    ///
    /// Blocks for as long as the command takes, 30 s at most; call it before the runtime serves anyone. When `stop` fires, the
    /// command is ended: it must not outlive the process that asked.
    ///
    /// # Errors
    /// Each variant of [`MasterKeyError`] says what to change.
    pub fn load(
        settings: &config::Secrets,
        data_dir: &Path,
        stop: &CancellationToken,
    ) -> Result<Self, MasterKeyError> {
        if let Some((program, arguments)) = settings.master_key_command.split_first() {
            let text = master_command::run(program, arguments, stop)?;
            return Self::parse(&text, || format!("the command {program}"));
        }
        if let Some(name) = &settings.master_key_env {
            let text = std::env::var(name).map(Zeroizing::new);
            let text = text.map_err(|_| MasterKeyError::EnvMissing(name.clone()))?;
            return Self::parse(&text, || format!("environment variable {name}"));
        }
        let (path, links) = match &settings.master_key_file {
            Some(path) => (path.clone(), Links::Followed),
            None => (data_dir.join("master.key"), Links::Refused),
        };
        match read_file(&path, links)? {
            Some(text) => Self::parse(&text, || path.display().to_string()),
            None => Self::make(&path),
        }
    }

    /// Takes a key that the caller has.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            bytes: Zeroizing::new(bytes),
            made_now: false,
        }
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Returns whether there was no key file, so that this key is new.
    pub(super) fn made_now(&self) -> bool {
        self.made_now
    }

    fn parse(text: &str, from: impl Fn() -> String) -> Result<Self, MasterKeyError> {
        let malformed = || MasterKeyError::Malformed { from: from() };
        let decoded = BASE64.decode(text.trim().as_bytes());
        let decoded = Zeroizing::new(decoded.map_err(|_| malformed())?);
        let bytes = <[u8; 32]>::try_from(&decoded[..]).map_err(|_| malformed())?;
        Ok(Self::from_bytes(bytes))
    }

    fn make(path: &Path) -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(|_| MasterKeyError::NoRandom)?;
        let text = Zeroizing::new(BASE64.encode(&*bytes) + "\n");
        write_file(path, text.as_bytes()).map_err(|source| MasterKeyError::File {
            doing: "make",
            path: path.into(),
            source,
        })?;
        Ok(Self {
            bytes,
            made_now: true,
        })
    }
}

/// What a link in the place of the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    /// Somebody named the file, and mounted secrets are links.
    Followed,
    /// Nobody but us makes the file of that name.
    Refused,
}

fn read_file(path: &Path, links: Links) -> Result<Option<Zeroizing<String>>, MasterKeyError> {
    let failed = |source| MasterKeyError::File {
        doing: "read",
        path: path.into(),
        source,
    };
    let mut options = fs::OpenOptions::new();
    options.read(true);
    if links == Links::Refused {
        let no_link = OFlags::NOFOLLOW.bits();
        options.custom_flags(i32::try_from(no_link).unwrap_or_default());
    }
    let file = match options.open(path) {
        Ok(file) => file,
        // A link that leads nowhere names a key that is elsewhere, perhaps not mounted yet.
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

/// A text with room for any key: one that grows leaves copies of its beginning in memory.
pub(super) fn empty_text() -> Zeroizing<String> {
    let room = usize::try_from(TEXT_BYTES_MAX).unwrap_or_default();
    Zeroizing::new(String::with_capacity(room + 1))
}

/// Writes beside the file and renames, so that a crash leaves a whole key or none.
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
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: PathBuf) -> config::Secrets {
        config::Secrets {
            master_key_file: Some(path),
            ..config::Secrets::default()
        }
    }

    fn load(settings: &config::Secrets, dir: &Path) -> Result<MasterKey, MasterKeyError> {
        MasterKey::load(settings, dir, &CancellationToken::new())
    }

    #[test]
    fn a_link_is_followed_only_where_the_settings_name_the_file() {
        use std::os::unix::fs::symlink;
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = load(&config::Secrets::default(), elsewhere.path()).unwrap();
        let key = elsewhere.path().join("master.key");
        let (own, named) = (dir.path().join("master.key"), dir.path().join("named"));
        symlink(&key, &own).unwrap();
        symlink(&key, &named).unwrap();
        let refused = load(&config::Secrets::default(), dir.path()).unwrap_err();
        assert!(matches!(
            refused,
            MasterKeyError::File { doing: "read", .. }
        ));
        assert_eq!(
            load(&file(named.clone()), dir.path()).unwrap().bytes(),
            made.bytes()
        );
        // A key that is not there yet is not replaced by another one.
        fs::remove_file(&key).unwrap();
        let refused = load(&file(named.clone()), dir.path()).unwrap_err();
        assert!(matches!(
            refused,
            MasterKeyError::File { doing: "read", .. }
        ));
        assert!(fs::symlink_metadata(&named).unwrap().is_symlink());
    }

    #[test]
    fn the_file_is_made_once_for_the_owner_alone_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let made = load(&config::Secrets::default(), dir.path()).unwrap();
        assert!(made.made_now());
        let path = dir.path().join("master.key");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = load(&config::Secrets::default(), dir.path()).unwrap();
        assert!(!read.made_now());
        assert_eq!(read.bytes(), made.bytes());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_holds_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        fs::write(&path, BASE64.encode(&[1; 32])).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = load(&file(path.clone()), dir.path()).unwrap_err();
        assert!(matches!(
            refused,
            MasterKeyError::Exposed { mode: 0o644, .. }
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load(&file(path.clone()), dir.path()).is_ok());
        for wrong in ["", "short", &BASE64.encode(&[1; 31]), "!!!!"] {
            fs::write(&path, wrong).unwrap();
            let refused = load(&file(path.clone()), dir.path()).unwrap_err();
            assert!(
                matches!(refused, MasterKeyError::Malformed { .. }),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_command_wins_over_the_environment_and_that_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = config::Secrets {
            master_key_env: Some("SYNCGATE_TEST_NO_SUCH_VARIABLE".into()),
            ..config::Secrets::default()
        };
        let refused = load(&settings, dir.path()).unwrap_err();
        assert!(matches!(refused, MasterKeyError::EnvMissing(_)));
        let key = BASE64.encode(&[9; 32]);
        settings.master_key_command = vec!["echo".into(), key];
        let loaded = load(&settings, dir.path()).unwrap();
        assert_eq!(loaded.bytes(), &[9; 32]);
        for (command, said) in [
            (vec!["false".into()], "failed"),
            (vec!["/no/such/program".into()], "cannot be run"),
        ] {
            settings.master_key_command = command;
            let refused = load(&settings, dir.path()).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
        }
        assert_eq!(format!("{loaded:?}"), "MasterKey(***)");
    }
}
