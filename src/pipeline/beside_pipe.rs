//! A file that stands where a pipe was, while that one, which has writers yet, is still read.
//!
//! It is held open from when it is seen, so that nothing of it is missed whatever becomes of its name, and is
//! read once all that was in the pipe then has been read.

use tracing::info;

use super::lane::Lane;
use super::rotations::HELD_MAX;
use super::unopened::unread;
use super::{Pipeline, Progress};
use crate::checkpoint::LostReason;
use crate::domain::identity::Identity;
use crate::domain::ledger::Ledger;
use crate::source::file::FollowedFile;
use crate::source::siblings::Sibling;

/// What is known of such files.
#[derive(Default)]
pub(super) struct BesidePipe {
    /// The one that stood at the path at the last look.
    at_path: Option<Identity>,
    /// How far the pipe was emptied before the last look, as [`crate::source::fifo::PipeState::rounds`] says.
    emptied: u64,
}

impl Pipeline {
    /// To be called before the journal is looked at.
    pub(super) fn see_how_far_pipe_is(&mut self) {
        // Nothing more comes from one that has ended.
        let rounds = self.edges.pipe.as_ref().filter(|_| !self.leaving).map(|pipe| pipe.rounds());
        self.beside_pipe.emptied = rounds.unwrap_or(u64::MAX);
    }

    /// Opens the file that stands where the pipe was.
    pub(super) fn look_where_pipe_was(&mut self) {
        let Some(path) = self.settings.pipe.clone() else { return };
        let fs = self.edges.fs.as_ref();
        // That one can't look says nothing of it.
        let Ok(there) = Sibling::at(fs, &path) else { return };
        self.beside_pipe.at_path = there.as_ref().map(|file| file.identity);
        let Some(there) = there else { return };
        let mut untaken = self.untaken.iter().map(|(known, _)| &known.identity);
        if self.is_open(&there.identity) || untaken.any(|it| it.is_same_file(&there.identity)) {
            return;
        }
        if self.held() >= HELD_MAX {
            self.untaken.push((unread(&there), LostReason::MovedAway));
            self.position.moved();
            return;
        }
        match FollowedFile::open(fs, &path, self.settings.max_line_bytes, None) {
            Ok(Some(file)) if !self.is_open(file.identity()) => {
                let (path, size) = (path.display(), file.size());
                info!(%path, size, "a file stands where the pipe was: it is read after what was in that");
                self.beside_pipe.at_path = Some(*file.identity());
                let is_segment =
                    |this: &Self, lane: &Lane| this.settings.is_segment(lane.file.path());
                self.add_moved(file, Ledger::default(), is_segment);
            }
            // Gone again, or it is tried again.
            _ => {}
        }
    }

    /// What a lane for a file waits for: with this, that which fills the journal knows what was in the pipe.
    pub(super) fn comes_after_pipe(&self, file: &FollowedFile) -> Option<u64> {
        let pipe = self.edges.pipe.as_ref()?;
        (!file.path().starts_with(&self.settings.state_dir)).then(|| pipe.ask())
    }

    /// Whether it stands where the pipe was: more may come to it at any time.
    pub(super) fn is_where_pipe_was(&self, identity: &Identity) -> bool {
        self.beside_pipe.at_path.is_some_and(|it| it.is_same_file(identity))
    }

    /// Everything else is read: what waited for that is next.
    pub(super) fn read_after_pipe(&mut self) -> Progress {
        // Segments that found no place would wait for these, too.
        if self.rotations.is_undecided() && self.held() < HELD_MAX {
            return Progress::CaughtUp;
        }
        let emptied = self.beside_pipe.emptied;
        let mut progress = Progress::CaughtUp;
        for lane in self.lanes.iter_mut().filter(|lane| lane.after_pipe.is_some()) {
            lane.after_pipe = lane.after_pipe.filter(|asked| *asked > emptied);
            if lane.after_pipe.is_some() {
                self.input.look_soon(self.edges.clock.now());
            } else {
                (self.input.unread, progress) = (true, Progress::More);
            }
        }
        progress
    }
}
