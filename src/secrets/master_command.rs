//! The command that gives the master key: run once at the start, with a bound on its time and on what it prints.
//!
//! Whatever happens it is ended with its children before its run returns: after its time, when the gateway is told to stop, and
//! when the start fails.

use std::{
    io::{self, IsTerminal, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::park_timeout,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::master::{MasterKeyError, TEXT_BYTES_MAX, empty_text};

/// How long the command may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a run looks whether the gateway stops, or the command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the command and returns what it printed.
///
/// # Errors
/// [`MasterKeyError::Command`].
pub(super) fn run(
    program: &str,
    arguments: &[String],
    stop: &CancellationToken,
) -> Result<Zeroizing<String>, MasterKeyError> {
    let ran = Running::start(program, arguments).and_then(|mut running| running.result(stop));
    ran.map_err(|what| MasterKeyError::Command {
        program: program.into(),
        what,
    })
}

/// The command; dropping it ends it.
struct Running {
    child: Child,
    /// It leads a process group, with which its own children end.
    leads: bool,
    ended: bool,
    by: Instant,
}

impl Running {
    fn start(program: &str, arguments: &[String]) -> Result<Self, String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        // At a terminal the command may ask for a password, which only programs of the group in front can.
        let leads = !io::stdin().is_terminal();
        if leads {
            command.process_group(0);
        }
        let child = command.spawn();
        Ok(Self {
            child: child.map_err(|error| format!("cannot be run: {error}"))?,
            leads,
            ended: false,
            by: Instant::now() + TIMEOUT,
        })
    }

    fn result(&mut self, stop: &CancellationToken) -> Result<Zeroizing<String>, String> {
        let output = self.child.stdout.take();
        let (tell, told) = mpsc::sync_channel(1);
        // A read of a pipe has no timeout, so another thread does it; it ends with the command at the latest.
        std::thread::spawn(move || {
            let mut text = empty_text();
            let read = output.map(|output| output.take(TEXT_BYTES_MAX).read_to_string(&mut text));
            let text = matches!(read, Some(Ok(_))).then_some(text);
            // Ignore a failed send: the run may have given up.
            drop(tell.send(text));
        });
        let text = loop {
            match told.recv_timeout(LOOK_EVERY) {
                Ok(text) => break text.ok_or("printed no text")?,
                Err(RecvTimeoutError::Timeout) => self.goes_on(stop)?,
                Err(RecvTimeoutError::Disconnected) => return Err("printed no text".into()),
            }
        };
        // A command may close its output and go on.
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {
                    self.goes_on(stop)?;
                    park_timeout(LOOK_EVERY);
                }
                Err(error) => return Err(format!("cannot be waited for: {error}")),
            }
        };
        self.ended = true;
        match ExitStatus::success(&status) {
            true => Ok(text),
            false => Err(format!("failed: {status}")),
        }
    }

    fn goes_on(&self, stop: &CancellationToken) -> Result<(), String> {
        if stop.is_cancelled() {
            return Err("was ended because the gateway stops".into());
        }
        if Instant::now() >= self.by {
            return Err(format!("did not end within {} s", TIMEOUT.as_secs()));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once it was waited for, its number may be that of another process.
        if self.ended {
            return;
        }
        let killed = match self.leads {
            true => {
                kill_process_group(Pid::from_child(&self.child), Signal::KILL).map_err(Into::into)
            }
            false => self.child.kill(),
        };
        if let Err(error) = killed.and_then(|()| self.child.wait().map(drop)) {
            tracing::warn!(%error, "the command for the master key cannot be ended");
        }
    }
}
