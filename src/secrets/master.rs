//! The master key: from a command, else from the environment, else from a file that is made at the first start.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::config;

/// How long the command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// More than any spelling of a key has.
const TEXT_BYTES_MAX: u64 = 4096;

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
    /// Blocks for as long as the command takes, 30 s at most; call it before the runtime serves anyone.
    ///
    /// # Errors
    /// Each variant of [`MasterKeyError`] says what to change.
    pub fn load(settings: &config::Secrets, data_dir: &Path) -> Result<Self, MasterKeyError> {
        if let Some((program, arguments)) = settings.master_key_command.split_first() {
            let text = run(program, arguments)?;
            return Self::parse(&text, || format!("the command {program}"));
        }
        if let Some(name) = &settings.master_key_env {
            let text = std::env::var(name).map(Zeroizing::new);
            let text = text.map_err(|_| MasterKeyError::EnvMissing(name.clone()))?;
            return Self::parse(&text, || format!("environment variable {name}"));
        }
        let path = match &settings.master_key_file {
            Some(path) => path.clone(),
            None => data_dir.join("master.key"),
        };
        match read_file(&path)? {
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

fn read_file(path: &Path) -> Result<Option<Zeroizing<String>>, MasterKeyError> {
    let failed = |source| MasterKeyError::File {
        doing: "read",
        path: path.into(),
        source,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(MasterKeyError::Exposed {
            path: path.into(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(TEXT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Some(text))
}

/// Writes beside the file and renames, so that a crash leaves a whole key or none.
fn write_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
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

fn run(program: &str, arguments: &[String]) -> Result<Zeroizing<String>, MasterKeyError> {
    let failed = |what: String| MasterKeyError::Command {
        program: program.into(),
        what,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    let output = child.stdout.take();
    let (tell, told) = mpsc::sync_channel(1);
    // A read of a pipe has no timeout, so another thread does it; it ends with the child at the latest.
    std::thread::spawn(move || {
        let mut text = Zeroizing::new(String::new());
        let read = output.map(|output| output.take(TEXT_BYTES_MAX).read_to_string(&mut text));
        let text = matches!(read, Some(Ok(_))).then_some(text);
        drop(tell.send(text));
    });
    let Ok(text) = told.recv_timeout(COMMAND_TIMEOUT) else {
        drop(child.kill());
        drop(child.wait());
        return Err(failed(format!(
            "did not end within {} s",
            COMMAND_TIMEOUT.as_secs()
        )));
    };
    // Its output has ended; one that closes it and goes on would be waited for without a bound.
    let ended = match text {
        Some(_) => child.wait(),
        None => child.kill().and_then(|()| child.wait()),
    };
    match (ended, text) {
        (Ok(status), Some(text)) if status.success() => Ok(text),
        (Ok(status), Some(_)) => Err(failed(format!("failed: {status}"))),
        (Ok(_), None) => Err(failed("printed no text".into())),
        (Err(error), _) => Err(failed(format!("cannot be waited for: {error}"))),
    }
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

    #[test]
    fn the_file_is_made_once_for_the_owner_alone_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let made = MasterKey::load(&config::Secrets::default(), dir.path()).unwrap();
        assert!(made.made_now());
        let path = dir.path().join("master.key");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = MasterKey::load(&config::Secrets::default(), dir.path()).unwrap();
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
        let refused = MasterKey::load(&file(path.clone()), dir.path()).unwrap_err();
        assert!(matches!(
            refused,
            MasterKeyError::Exposed { mode: 0o644, .. }
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(MasterKey::load(&file(path.clone()), dir.path()).is_ok());
        for wrong in ["", "short", &BASE64.encode(&[1; 31]), "!!!!"] {
            fs::write(&path, wrong).unwrap();
            let refused = MasterKey::load(&file(path.clone()), dir.path()).unwrap_err();
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
        let refused = MasterKey::load(&settings, dir.path()).unwrap_err();
        assert!(matches!(refused, MasterKeyError::EnvMissing(_)));
        let key = BASE64.encode(&[9; 32]);
        settings.master_key_command = vec!["echo".into(), key];
        let loaded = MasterKey::load(&settings, dir.path()).unwrap();
        assert_eq!(loaded.bytes(), &[9; 32]);
        for (command, said) in [
            (vec!["false".into()], "failed"),
            (vec!["/no/such/program".into()], "cannot be run"),
        ] {
            settings.master_key_command = command;
            let refused = MasterKey::load(&settings, dir.path()).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
        }
        assert_eq!(format!("{loaded:?}"), "MasterKey(***)");
    }
}
