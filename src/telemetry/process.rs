//! Figures of this process, from `/proc`; `None` if there is no `/proc`.

use rustix::process::{Resource, getrlimit};

/// Ticks per second of CPU time in `/proc`, on every architecture that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the CPU time so far, in user mode and in the kernel.
pub(super) fn cpu_seconds() -> Option<f64> {
    cpu_seconds_of(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// The program's name, in brackets, may hold any byte, so fields are counted after the last bracket. The two times
/// follow 11 fields later.
fn cpu_seconds_of(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, kernel): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) + f64::from(kernel)) / TICKS_PER_SECOND)
}

/// Returns the resident memory in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    Some(status("VmRSS:")? * 1024)
}

/// Returns the virtual memory in bytes.
pub(super) fn virtual_bytes() -> Option<u64> {
    Some(status("VmSize:")? * 1024)
}

/// Returns the number of threads.
pub(super) fn threads_len() -> Option<u64> {
    status("Threads:")
}

/// Returns a number of `/proc/self/status`; sizes are in KiB there.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Returns the number of open file descriptors.
pub(super) fn open_files_len() -> Option<u64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

/// Returns the greatest number of open file descriptors; `None` also without a limit.
pub(super) fn files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_files_and_threads() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(virtual_bytes().unwrap() > resident_bytes().unwrap());
        assert!(open_files_len().unwrap() > 2);
        assert!(files_max().unwrap() >= open_files_len().unwrap());
        assert!(threads_len().unwrap() >= 1);
        assert!(cpu_seconds().is_some());
    }

    #[test]
    fn a_program_may_have_any_name() {
        let stat = "7 (a) b (c 1 2) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 9";
        assert_eq!(cpu_seconds_of(stat), Some(3.0));
        assert_eq!(cpu_seconds_of("7 (x) S 1"), None);
    }
}
