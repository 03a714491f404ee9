//! What comes to a path and goes from it, told at once. Only a hint: behind it stands a timer.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Watches the names in a path's directory, and nothing that is written: who writes to a pipe wakes nobody here.
pub struct NameWatch {
    inotify: OwnedFd,
    directory: PathBuf,
    name: OsString,
}

impl NameWatch {
    /// A watch for `path`; [`NameWatch::arm`] starts it.
    ///
    /// # Errors
    /// The system's: a user may only have so many.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_owned();
        Ok(Self { inotify, directory, name: path.file_name().unwrap_or_default().to_owned() })
    }

    /// Watches the directory that is there now. One that is watched already stays so.
    pub fn arm(&self) {
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        // Where it can't be watched, the timer is left.
        let _ = inotify::add_watch(&self.inotify, &self.directory, names | WatchFlags::ONLYDIR);
    }

    /// Whether the name came or went since this was asked last.
    pub fn has_changed(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = false;
        while let Ok(event) = events.next() {
            // Without a name, it is that some were left out.
            let name = event.file_name();
            changed |= name.is_none_or(|name| name.to_bytes() == self.name.as_bytes());
        }
        changed
    }
}

impl AsFd for NameWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_told_and_what_is_written_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let watch = NameWatch::new(&path).unwrap();
        watch.arm();
        assert!(!watch.has_changed());
        std::fs::write(&path, "one").unwrap();
        assert!(watch.has_changed());
        std::fs::write(&path, "two").unwrap();
        std::fs::write(directory.path().join("other"), "one").unwrap();
        watch.arm();
        assert!(!watch.has_changed());
        let away = directory.path().join("away");
        for (from, to) in [(&path, &away), (&away, &path)] {
            std::fs::rename(from, to).unwrap();
            assert!(watch.has_changed());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(watch.has_changed());
    }
}
