//! The state directory: lock, checkpoint, previous checkpoint, notes.
//!
//! A commit is: write `checkpoint.tmp`, fsync, keep the present checkpoint as
//! `checkpoint.prev.json` under a second name, rename over `checkpoint.json`, fsync the directory.
//! At every moment one of the two is complete. After an error the temporary file is thrown away
//! and the next commit begins with a new one: a failed fsync must not be tried again on the same
//! file, the kernel has forgotten by then what it could not write.
//!
//! A note is the same text written in turn into two small files, in place and without fsync: it
//! survives the death of the process, not that of the machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Checkpoint;
use super::format::{self, FormatError};
use crate::platform::fs::{Fs, StateFile};
use crate::platform::mutants::{Mutant, makes};

/// The newest committed checkpoint.
pub const CHECKPOINT: &str = "checkpoint.json";
/// The one before.
pub const PREVIOUS: &str = "checkpoint.prev.json";
/// Written in turn between commits.
pub const NOTES: [&str; 2] = ["checkpoint.note.0", "checkpoint.note.1"];
const TEMPORARY: &str = "checkpoint.tmp";
const PREVIOUS_TEMPORARY: &str = "checkpoint.prev.tmp";
/// Held by the process that works with the directory.
pub const LOCK: &str = "lock";

/// Larger than any checkpoint can become: 64 generations, 16 switches, some thousand lost ranges.
const SIZE_LIMIT: u64 = 16 << 20;

/// Why the state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process works with it.
    #[error("{path}: another process ({holder}) holds the state directory", path = path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// Written by a newer bridge.
    #[error("{path}: {source}", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Which version.
        source: FormatError,
    },
    /// Every copy that is there is damaged.
    #[error("{path}: no copy of the checkpoint is readable", path = path.display())]
    Unreadable {
        /// The state directory.
        path: PathBuf,
    },
    /// The directory can't be used for a reason that only the admin can change.
    #[error("{path}: {what}: {source}", path = path.display())]
    Forbidden {
        /// The directory or file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// An I/O error that may heal.
    #[error("{path}: {what}: {source}", path = path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl StateError {
    fn new(path: &Path, what: &'static str, source: io::Error) -> Self {
        use io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
        let path = path.to_owned();
        match source.kind() {
            AlreadyExists | NotADirectory | PermissionDenied | ReadOnlyFilesystem => {
                Self::Forbidden { path, what, source }
            }
            _ => Self::Io { path, what, source },
        }
    }
}

/// The lock on a state directory, held until dropped.
pub struct Lock {
    file: Box<dyn StateFile>,
    path: PathBuf,
}

/// What a start found.
#[derive(Debug)]
pub struct Loaded {
    /// The newest valid checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The file it is from.
    pub from: Option<&'static str>,
    /// Files that could not be understood.
    pub damaged: Vec<(&'static str, FormatError)>,
}

/// The files of one state directory.
#[derive(Clone)]
pub struct Store {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
}

impl Store {
    /// The store in `directory`, which need not exist yet.
    pub fn new(fs: Arc<dyn Fs>, directory: &Path) -> Self {
        Self { fs, directory: directory.to_owned() }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Creates the directory where it is missing.
    pub fn create(&self) -> Result<(), StateError> {
        self.fs.create_directory(&self.directory).map_err(|source| {
            StateError::new(&self.directory, "cannot create the state directory", source)
        })
    }

    /// Takes the lock, so that no other process works with this state.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.directory.join(LOCK);
        let wrong = |what, source| StateError::new(&path, what, source);
        let file =
            self.fs.open_state(&path).map_err(|error| wrong("cannot open the lock", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut text = [0; 64];
                let length = file.read_at(&mut text, 0).unwrap_or(0);
                let holder = String::from_utf8_lossy(&text[..length]).trim().to_owned();
                return Err(StateError::Held { path, holder });
            }
            Err(error) => return Err(wrong("cannot lock", error)),
        }
        // Who holds it is a courtesy to the reader of an error message; a full disk may refuse it.
        let holder = format!("pid {}\n", std::process::id());
        let _ = file.set_size(0).and_then(|()| file.write_all_at(holder.as_bytes(), 0));
        Ok(Lock { file, path })
    }

    /// The names that a position may be under.
    pub fn copies(&self) -> [&'static str; 4] {
        [CHECKPOINT, PREVIOUS, NOTES[0], NOTES[1]]
    }

    /// Reads all copies and chooses the newest valid one.
    ///
    /// # Errors
    /// [`StateError::Newer`] if any copy is of a newer version, [`StateError::Unreadable`] if there
    /// are copies and none is valid, [`StateError::Io`] if one can't be read.
    pub fn load(&self) -> Result<Loaded, StateError> {
        let mut loaded = Loaded { checkpoint: None, from: None, damaged: Vec::new() };
        for name in self.copies() {
            let path = self.directory.join(name);
            let content = match self.fs.read(&path, SIZE_LIMIT) {
                Ok(content) => content,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    loaded.damaged.push((name, FormatError::Damaged("far too large")));
                    continue;
                }
                Err(error) => return Err(StateError::new(&path, "cannot read", error)),
            };
            match format::decode(&content) {
                Ok(checkpoint) => {
                    let newest = loaded.checkpoint.as_ref().map(|newest| newest.sequence);
                    if newest.is_none_or(|newest| checkpoint.sequence > newest) {
                        loaded.checkpoint = Some(checkpoint);
                        loaded.from = Some(name);
                    }
                }
                Err(source @ FormatError::NewerVersion(_)) => {
                    return Err(StateError::Newer { path, source });
                }
                Err(error) => loaded.damaged.push((name, error)),
            }
        }
        if loaded.checkpoint.is_none() && !loaded.damaged.is_empty() {
            return Err(StateError::Unreadable { path: self.directory.clone() });
        }
        Ok(loaded)
    }

    /// Puts a damaged file aside under a name that tells what it is. Returns the new name.
    pub fn quarantine(&self, name: &str) -> io::Result<PathBuf> {
        let taken = self.fs.list(&self.directory)?;
        let mut number = 1;
        loop {
            let aside = self.directory.join(format!("{name}.corrupt-{number}"));
            if !taken.contains(&aside) {
                self.fs.rename(&self.directory.join(name), &aside)?;
                return Ok(aside);
            }
            number += 1;
        }
    }

    /// Makes a checkpoint durable, the one before kept.
    pub fn commit(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let text = format::encode(checkpoint)?;
        let temporary = self.directory.join(TEMPORARY);
        let written = self.write_temporary(&temporary, &text).and_then(|()| {
            self.keep_previous()?;
            self.fs.rename(&temporary, &self.directory.join(CHECKPOINT))?;
            if makes(Mutant::NameUnsynced) {
                return Ok(());
            }
            self.fs.sync_directory(&self.directory)
        });
        if written.is_err() {
            let _ = self.fs.remove(&temporary);
        }
        written
    }

    /// Replaces every copy, so that an older one can't come back.
    pub fn commit_to_both(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.commit(checkpoint)?;
        self.commit(checkpoint)?;
        for note in NOTES {
            match self.fs.remove(&self.directory.join(note)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.fs.sync_directory(&self.directory)
    }

    /// Opens one of the two notes.
    pub fn open_note(&self, index: usize) -> io::Result<Box<dyn StateFile>> {
        self.fs.open_state(&self.directory.join(NOTES[index % NOTES.len()]))
    }

    /// Whether the lock still locks: its file is the one at its path.
    pub fn still_holds(&self, lock: &Lock) -> bool {
        match (lock.file.facts(), self.fs.stat(&lock.path)) {
            (Ok(held), Ok(there)) => (held.dev, held.ino) == (there.dev, there.ino),
            _ => false,
        }
    }

    fn write_temporary(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        match self.fs.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.fs.create_new(path)?;
        file.write_all_at(text, 0)?;
        if makes(Mutant::SavedUnsynced) { Ok(()) } else { file.sync() }
    }

    /// Gives the present checkpoint the name of the previous one; it keeps its own as well.
    fn keep_previous(&self) -> io::Result<()> {
        let temporary = self.directory.join(PREVIOUS_TEMPORARY);
        match self.fs.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match self.fs.hard_link(&self.directory.join(CHECKPOINT), &temporary) {
            Ok(()) => self.fs.rename(&temporary, &self.directory.join(PREVIOUS)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;
    use crate::platform::fs::RealFs;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(Arc::new(RealFs), directory.path());
        (directory, store)
    }

    #[test]
    fn an_empty_directory_has_no_checkpoint() {
        let (_directory, store) = store();
        let loaded = store.load().unwrap();
        assert!(loaded.checkpoint.is_none() && loaded.from.is_none() && loaded.damaged.is_empty());
    }

    #[test]
    fn the_previous_checkpoint_is_kept_and_used_when_the_newest_is_damaged() {
        let (directory, store) = store();
        store.commit(&example(1)).unwrap();
        store.commit(&example(2)).unwrap();
        assert_eq!(store.load().unwrap().from, Some(CHECKPOINT));
        std::fs::write(directory.path().join(CHECKPOINT), "{\"version\":1,").unwrap();
        let loaded = store.load().unwrap();
        assert_eq!((loaded.from, loaded.checkpoint), (Some(PREVIOUS), Some(example(1))));
        assert_eq!(loaded.damaged.len(), 1);
    }

    #[test]
    fn the_newest_valid_copy_counts_whichever_file_it_is_in() {
        let (_directory, store) = store();
        store.commit(&example(5)).unwrap();
        let note = store.open_note(1).unwrap();
        note.write_all_at(&format::encode(&example(9)).unwrap(), 0).unwrap();
        let old = store.open_note(0).unwrap();
        old.write_all_at(&format::encode(&example(3)).unwrap(), 0).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!((loaded.from, loaded.checkpoint), (Some(NOTES[1]), Some(example(9))));
    }

    #[test]
    fn ck_08_all_copies_damaged_is_told_and_can_be_put_aside() {
        let (directory, store) = store();
        std::fs::write(directory.path().join(CHECKPOINT), "garbage\n").unwrap();
        std::fs::write(directory.path().join(PREVIOUS), "").unwrap();
        assert!(matches!(store.load(), Err(StateError::Unreadable { .. })));
        std::fs::write(directory.path().join("checkpoint.json.corrupt-1"), "").unwrap();
        let aside = store.quarantine(CHECKPOINT).unwrap();
        assert!(aside.ends_with("checkpoint.json.corrupt-2"), "{}", aside.display());
    }

    #[test]
    fn ck_10_a_newer_version_is_refused_and_left_alone() {
        let (directory, store) = store();
        let newer = "{\"version\":999,\"position\":1}\n";
        std::fs::write(directory.path().join(CHECKPOINT), newer).unwrap();
        assert!(matches!(store.load(), Err(StateError::Newer { .. })));
        assert_eq!(std::fs::read_to_string(directory.path().join(CHECKPOINT)).unwrap(), newer);
    }

    #[test]
    fn ck_11_a_second_lock_names_the_holder() {
        let (_directory, store) = store();
        let lock = store.lock().unwrap();
        let Err(StateError::Held { holder, .. }) = store.lock() else { panic!("locked twice") };
        assert_eq!(holder, format!("pid {}", std::process::id()));
        drop(lock);
        store.lock().unwrap();
    }

    #[test]
    fn ck_12_a_deleted_lock_no_longer_holds() {
        let (directory, store) = store();
        let lock = store.lock().unwrap();
        assert!(store.still_holds(&lock));
        std::fs::remove_file(directory.path().join(LOCK)).unwrap();
        assert!(!store.still_holds(&lock));
    }

    #[test]
    fn sec_05_a_planted_link_is_not_followed() {
        let (directory, store) = store();
        let victim = directory.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        for name in [TEMPORARY, NOTES[0], PREVIOUS_TEMPORARY] {
            std::os::unix::fs::symlink(&victim, directory.path().join(name)).unwrap();
        }
        store.commit(&example(1)).unwrap();
        store.commit(&example(2)).unwrap();
        assert!(store.open_note(0).is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    }

    #[test]
    fn both_copies_are_replaced_and_notes_removed_on_demand() {
        let (directory, store) = store();
        store.commit(&example(1)).unwrap();
        store.open_note(0).unwrap();
        store.commit_to_both(&example(2)).unwrap();
        std::fs::remove_file(directory.path().join(CHECKPOINT)).unwrap();
        assert_eq!(store.load().unwrap().checkpoint, Some(example(2)));
        assert!(!directory.path().join(NOTES[0]).exists());
    }
}
