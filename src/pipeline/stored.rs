//! Deleted files that are held open outlive a process that is killed, where somebody keeps them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tracing::info;

use super::Pipeline;
use super::lane::{Lane, LaneState};
use super::moved::known_of;
use crate::checkpoint::GenerationState;
use crate::domain::identity::{Identity, Resume};
use crate::domain::ledger::Ledger;
use crate::platform::fs::InputFile;
use crate::source::file::FollowedFile;

/// Who keeps open files for the next process.
pub trait FileStore: Send {
    /// Keeps an open file under a name.
    fn keep(&mut self, name: &str, file: BorrowedFd<'_>);
    /// It is not needed any more.
    fn forget(&mut self, name: &str);
    /// A file that an earlier process kept, if nobody has asked for it yet.
    fn take(&mut self, name: &str) -> Option<Arc<dyn InputFile>>;
    /// The names of those.
    fn names(&self) -> Vec<String>;
}

/// Nobody.
impl FileStore for () {
    fn keep(&mut self, _: &str, _: BorrowedFd<'_>) {}
    fn forget(&mut self, _: &str) {}
    fn take(&mut self, _: &str) -> Option<Arc<dyn InputFile>> {
        None
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The same for the same inode in the same use.
fn name_of(identity: &Identity) -> String {
    format!("input-{}-{}", identity.ino, identity.born_ns.unwrap_or(0))
}

impl Pipeline {
    /// Has deleted files kept that are not settled: nobody else can open them again.
    pub(super) fn store_deleted(&mut self) {
        for lane in &mut self.lanes {
            let is_candidate =
                lane.state == LaneState::Superseded && !lane.is_kept && !lane.is_stored;
            if is_candidate
                && lane.file.is_deleted()
                && let Some(file) = lane.file.descriptor()
            {
                self.edges.store.keep(&name_of(lane.file.identity()), file);
                lane.is_stored = true;
            }
        }
    }

    /// A lane that is over needs no copy of its file.
    pub(super) fn forget_stored(store: &mut dyn FileStore, lane: &Lane) {
        if lane.is_stored {
            store.forget(&name_of(lane.file.identity()));
        }
    }

    /// Whether an earlier process had a file kept.
    pub(super) fn is_stored(&self, identity: &Identity) -> bool {
        self.edges.store.names().contains(&name_of(identity))
    }

    /// Goes on with a file that has no name any more and was kept.
    pub(super) fn find_stored(&mut self, known: &GenerationState) -> Option<FollowedFile> {
        let (name, max_line) = (name_of(&known.identity), self.settings.max_line_bytes);
        let file = self.edges.store.take(&name)?;
        let mut file = FollowedFile::of_open(file, &known.path, max_line).ok()?;
        let goes_on = matches!(file.resume(&known_of(known), max_line), Ok(Resume::Continue));
        if !goes_on {
            self.edges.store.forget(&name);
        }
        goes_on.then_some(file)
    }

    /// Files that were kept and of which no checkpoint knows: whole, since duplicates are preferred to loss.
    /// One that is beside the input is read there.
    pub(super) fn take_stored(&mut self) {
        // What is known is asked for where it is taken up, now or later.
        let known: Vec<_> = self.rotations.known.iter().map(|it| name_of(&it.identity)).collect();
        for name in self.edges.store.names().into_iter().filter(|name| !known.contains(name)) {
            let (input, max_line) = (self.settings.input.clone(), self.settings.max_line_bytes);
            let file = self.edges.store.take(&name);
            let file = file.and_then(|file| FollowedFile::of_open(file, &input, max_line).ok());
            let Some(file) = file.filter(FollowedFile::is_deleted) else {
                self.edges.store.forget(&name);
                continue;
            };
            info!(size = file.size(), "a deleted file that an earlier run held open is read");
            let lane = self.add_moved(file, Ledger::default(), |_, _| false);
            lane.is_stored = true;
        }
    }
}
