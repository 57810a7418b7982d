//! Programs that examples start: each in a group of its own, which ends with it.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Longer than any example takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How a program ended, and all that it printed: standard output, then standard error.
pub(super) struct Ended {
    /// `None` if it was ended because it had printed what was waited for.
    pub(super) status: Option<ExitStatus>,
    pub(super) printed: String,
}

/// A program with all that it starts.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _gone = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _reaped = self.0.wait();
    }
}

/// Runs a program until it ends, or until it has printed what `enough` looks for.
///
/// # Errors
/// It did neither in time.
pub(super) async fn run(
    mut command: Command,
    scratch: &Path,
    enough: impl Fn(&str) -> bool,
) -> Result<Ended, String> {
    let (out, err) = (scratch.join("stdout"), scratch.join("stderr"));
    command
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .process_group(0);
    let child = command
        .spawn()
        .map_err(|error| format!("{command:?} does not start: {error}"))?;
    let mut group = Group(child);
    let read = |file: &Path| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
    let begun = Instant::now();
    loop {
        let status = group.0.try_wait().unwrap();
        let printed = read(&out) + &read(&err);
        if status.is_some() || enough(&printed) {
            return Ok(Ended { status, printed });
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!(
                "it has not ended after {PATIENCE:?}; it printed {printed:?}"
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
