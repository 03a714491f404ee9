//! Open files that outlive the process: systemd keeps them, and gives them to the next one.
//!
//! Without systemd, without the feature of that name, or where the unit has no `FileDescriptorStoreMax=`,
//! nothing is kept.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Files that an earlier process of this service kept, by the names that it gave them.
#[derive(Debug, Default)]
pub struct Descriptors {
    given: HashMap<String, File>,
}

impl Descriptors {
    /// Asks systemd to keep an open file.
    pub fn keep(&self, name: &str, file: BorrowedFd<'_>) {
        tell(&[("FDSTORE", "1"), ("FDNAME", name)], &[file.as_raw_fd()]);
    }

    /// Nobody will ask for it any more.
    pub fn forget(&self, name: &str) {
        tell(&[("FDSTOREREMOVE", "1"), ("FDNAME", name)], &[]);
    }

    /// Gives back a file that was kept.
    pub fn take(&mut self, name: &str) -> Option<File> {
        self.given.remove(name)
    }

    /// Those that nobody has taken.
    pub fn names(&self) -> Vec<String> {
        self.given.keys().cloned().collect()
    }

    /// What systemd has kept for this process. To be asked for once.
    #[cfg(feature = "systemd")]
    #[expect(unsafe_code, reason = "the numbers of descriptors come by the environment")]
    pub fn of_this_process() -> Self {
        use std::os::fd::{FromRawFd as _, OwnedFd};

        let Ok(given) = systemd::daemon::listen_fds_with_names() else { return Self::default() };
        let given = given.iter().map(|(number, name)| {
            // SAFETY: systemd has opened these for this process alone, and nothing else takes them.
            let file = unsafe { OwnedFd::from_raw_fd(number) };
            (name.to_string_lossy().into_owned(), File::from(file))
        });
        Self { given: given.collect() }
    }

    /// Nothing.
    #[cfg(not(feature = "systemd"))]
    pub fn of_this_process() -> Self {
        Self::default()
    }
}

#[cfg(feature = "systemd")]
fn tell(said: &[(&str, &str)], files: &[i32]) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    // Without a process id: it is this one.
    if let Err(error) = systemd::daemon::pid_notify_with_fds(0, said.iter(), files) {
        tracing::debug!(%error, "systemd can't keep a file");
    }
}

#[cfg(not(feature = "systemd"))]
fn tell(_: &[(&str, &str)], _: &[i32]) {}
