//! Wake-ups: a hint that something may have changed in the input's directory, never more.
//!
//! The parent directory is watched, not the file: a file that is renamed over the input makes no
//! event on the input itself. Events can be lost, folded or late (queue overflow, NFS), so the
//! owner looks at the file on its own timer as well, and arms the watch again when the directory
//! was replaced.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, EventKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::platform::fs::Fs;

/// Called on the watcher's thread for each hint.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Watches the directory of one path.
pub struct DirectoryWatch {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    name: Option<OsString>,
    /// None: nothing is watched.
    wake: Option<Wake>,
    armed: Option<Armed>,
}

struct Armed {
    /// Inotify stops when this is dropped.
    _watcher: RecommendedWatcher,
    /// Device and inode of the directory that is watched.
    directory: (u64, u64),
}

impl DirectoryWatch {
    /// A watch for changes of `path`; [`DirectoryWatch::arm`] starts it.
    pub fn new(fs: Arc<dyn Fs>, path: &Path, wake: Wake) -> Self {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_owned();
        let name = path.file_name().map(OsString::from);
        Self { fs, directory, name, wake: Some(wake), armed: None }
    }

    /// No watch of its own: hints come by another way, or not at all.
    pub fn none(fs: Arc<dyn Fs>, path: &Path) -> Self {
        Self { wake: None, ..Self::new(fs, path, Arc::new(|| ())) }
    }

    /// Makes sure that the directory at the path is the one being watched.
    ///
    /// # Errors
    /// The reason in words if there is no watch now; the timer behind it goes on.
    pub fn arm(&mut self) -> Result<(), String> {
        let facts = self.fs.stat(&self.directory).map_err(|error| {
            self.armed = None;
            error.to_string()
        })?;
        let directory = (facts.dev, facts.ino);
        if self.armed.as_ref().is_some_and(|armed| armed.directory == directory) {
            return Ok(());
        }
        self.armed = None;
        let Some(wake) = &self.wake else { return Ok(()) };
        let watcher = self.watch(wake).map_err(|error| error.to_string())?;
        self.armed = Some(Armed { _watcher: watcher, directory });
        // What happened before the watch began made no event.
        wake();
        Ok(())
    }

    fn watch(&self, wake: &Wake) -> notify::Result<RecommendedWatcher> {
        let (wake, name) = (Arc::clone(wake), self.name.clone());
        let on_event = move |event: notify::Result<Event>| match event {
            Ok(event) if !is_hint(&event, name.as_ref()) => {}
            // An error is no reason to sleep: looking costs little.
            _ => wake(),
        };
        let mut watcher = RecommendedWatcher::new(on_event, Config::default())?;
        watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Our own reading makes events as well (open, close); they would wake us for ever.
fn is_hint(event: &Event, name: Option<&OsString>) -> bool {
    if event.need_rescan() || event.paths.is_empty() {
        return true;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(notify::event::AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    let concerns = |path: &PathBuf| path.file_name().map(OsString::from).as_ref() == name;
    matches!(event.kind, EventKind::Remove(notify::event::RemoveKind::Folder))
        || event.paths.iter().any(concerns)
}
