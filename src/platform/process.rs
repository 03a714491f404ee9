//! What this process takes of the machine.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What it takes; 0 for what can't be found out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time of all threads.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_files: usize,
    /// How many of them there may be.
    pub max_files: u64,
}

/// Looks.
pub fn usage() -> Usage {
    let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident_kb = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok()
    });
    // The directory itself is open while it is read.
    let open_files = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() - 1);
    Usage {
        cpu_seconds: cpu.as_secs_f64(),
        resident_bytes: resident_kb.unwrap_or(0) * 1024,
        open_files,
        max_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_something() {
        let usage = usage();
        assert!(usage.cpu_seconds > 0.0 && usage.resident_bytes > 1 << 20, "{usage:?}");
        assert!(usage.open_files >= 3 && usage.max_files >= 3, "{usage:?}");
    }
}
