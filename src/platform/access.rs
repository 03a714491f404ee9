//! What this process may do with a path, how much room there is, and how many files it may open.

use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Who this process acts as.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this process may do with `path` what `wanted` says: some of `rwx`. Links are followed.
///
/// # Errors
/// The system's answer to an attempt, as far as permissions and a read-only mount decide it.
pub fn may(path: &Path, wanted: &str) -> io::Result<()> {
    let mut access = Access::EXISTS;
    access.set(Access::READ_OK, wanted.contains('r'));
    access.set(Access::WRITE_OK, wanted.contains('w'));
    access.set(Access::EXEC_OK, wanted.contains('x'));
    Ok(rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS)?)
}

/// Opens a pipe for one write, which is whole or not at all; a pipe that nobody reads is an error.
///
/// # Errors
/// The system's.
pub fn open_without_waiting(pipe: &Path) -> io::Result<std::fs::File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    std::fs::OpenOptions::new().write(true).custom_flags(flags).open(pipe)
}

/// Makes a file that root made belong to whom the directory belongs to: the daemon, most often, has to read it.
///
/// # Errors
/// The system's; a file that is not there is none.
pub fn give_to_owner_of(directory: &Path, file: &Path) -> io::Result<()> {
    let owner = std::fs::metadata(directory)?;
    let there = match std::fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if user_id() != 0 || (there.uid(), there.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    std::os::unix::fs::lchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Bytes that this process could still write to the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Lets this process have as many open files as it may, and says how many those are.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if raised.is_ok() { hard } else { soft }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_those_that_an_attempt_would_meet() {
        let directory = tempfile::tempdir().unwrap();
        for wanted in ["", "r", "rwx"] {
            may(directory.path(), wanted).unwrap();
        }
        let none = directory.path().join("none");
        assert_eq!(may(&none, "r").unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&none, "").unwrap();
        let error = may(&none, "x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "not even root runs such a file");
        assert!(free_bytes(directory.path()).unwrap() > 0);
    }

    #[test]
    fn the_file_limit_is_raised_to_what_is_allowed() {
        let allowed = raise_file_limit();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), allowed);
    }
}
