//! Figures of this process, from `/proc`.

/// Returns the resident memory in bytes; `None` where there is no `/proc`.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns how many file descriptors are open; `None` where there is no `/proc`.
pub(super) fn open_files_len() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_running_process_has_memory_and_files() {
        assert!(super::resident_bytes().unwrap() > 1 << 20);
        assert!(super::open_files_len().unwrap() > 2);
    }
}
