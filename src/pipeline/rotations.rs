//! The files beside the input: which of them are known, and how to look at them.

use std::cell::Cell;
use std::io;

use tracing::error;

use super::Pipeline;
use super::lane::{Lane, LaneState};
use crate::checkpoint::GenerationState;
use crate::domain::identity::{Files, Identity};
use crate::domain::ledger::Ledger;
use crate::source::file::FollowedFile;
use crate::source::siblings::{Moved, RotatedSibling, Sibling, Siblings};

/// How many files are held open at most. More wait in their directory.
pub(super) const HELD_MAX: usize = 64;

/// How often the directory is listed again because files were renamed meanwhile.
pub(super) const LISTED_AGAIN: usize = 16;

/// Rotated files, as the owner knows them.
#[derive(Default)]
pub(super) struct Rotations {
    /// Those that were read, are being read, or were there before the daemon.
    pub(super) seen: Files,
    /// `seen` is whole: what is not in it is new.
    pub(super) complete: bool,
    /// When the directory was last changed, before it was listed.
    pub(super) directory_ns: Option<i64>,
    /// When the oldest life that the start knew and did not find was born, or the one at the path:
    /// nanoseconds since 1970.
    pub(super) born_ns: Option<i64>,
    /// Those that nobody has read, and that found no place or can't be read now.
    pub(super) unopened: Vec<Sibling>,
    /// Those that nobody had read and that were opened.
    pub(super) opened: Files,
    /// The lives that the start knew, oldest first.
    pub(super) known: Vec<GenerationState>,
    /// To be looked at again: copies of what a lane has not begun to read, so that it is not decided
    /// whether that is read there or here, and what could not be opened.
    pub(super) undecided: Files,
    /// Told that the directory can't be listed.
    failing: Cell<bool>,
    /// It could not be listed, or not all that is unseen was opened: that was written after this.
    pub(super) unopened_since: Option<i64>,
    /// Files that need a place among the open ones.
    pub(super) waiting: usize,
}

impl Rotations {
    /// Whether there may be files that nobody has read.
    pub(super) fn is_undecided(&self) -> bool {
        !self.undecided.is_empty() || self.unopened_since.is_some() || self.waiting > 0
    }
}

impl Pipeline {
    /// Remembers which rotated files were there before the daemon.
    pub(super) fn remember_rotated(&mut self) {
        // What came after a life that is not found yet can't be told before something is at the path.
        let is_known = self.remembered.is_none() && !self.rotations.is_undecided();
        if !self.rotations.complete
            && is_known
            && let Ok(siblings) = self.siblings()
        {
            self.saw_all(&siblings);
        }
    }

    /// Everything that is there is known now; what is gone can be forgotten.
    pub(super) fn saw_all(&mut self, siblings: &Siblings) {
        let rotated = siblings.rotated.iter().map(|it| it.file.identity);
        let open = self.lanes.iter().map(|lane| *lane.file.identity());
        let is_decided = |it: &Identity| !self.rotations.undecided.contains(it);
        self.rotations.seen = rotated.chain(open).filter(is_decided).collect();
        self.rotations.complete = true;
    }

    /// A file is read from now on.
    pub(super) fn saw(&mut self, file: &FollowedFile) {
        self.rotations.seen.add(*file.identity());
    }

    pub(super) fn is_seen(&self, identity: &Identity) -> bool {
        let mut untaken = self.untaken.iter().map(|(known, _)| &known.identity);
        untaken.any(|known| known.is_same_file(identity)) || self.rotations.seen.contains(identity)
    }

    /// Whether the start knew a life of this file.
    pub(super) fn is_known(&self, identity: &Identity) -> bool {
        self.rotations.known.iter().any(|known| known.identity.is_same_file(identity))
    }

    /// Whether the file of a life that the start knew holds a later one that it knew too.
    pub(super) fn has_later_life(&self, known: &GenerationState) -> bool {
        let lives = self.rotations.known.iter();
        let mut lives = lives.filter(|life| life.identity.is_same_file(&known.identity));
        lives.next_back().is_some_and(|life| life.generation != known.generation)
    }

    pub(super) fn is_open(&self, identity: &Identity) -> bool {
        self.lanes.iter().any(|lane| lane.file.identity().is_same_file(identity))
    }

    /// How many files are open.
    pub(super) fn held(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.state != LaneState::Over).count()
    }

    /// Does what `with` does beside the input, again if files are renamed meanwhile. None: they
    /// were, each time, or one can't look there now.
    pub(super) fn look_beside<T>(
        &mut self,
        mut with: impl FnMut(&mut Self, &Siblings) -> Result<T, Moved>,
    ) -> Option<T> {
        (0..LISTED_AGAIN).find_map(|_| {
            let siblings = self.siblings().ok()?;
            with(self, &siblings).ok()
        })
    }

    /// What is beside the input now. That it can't be looked at is told.
    pub(super) fn siblings(&self) -> io::Result<Siblings> {
        match Siblings::of(self.edges.fs.as_ref(), &self.settings.input) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Siblings::default()),
            Err(error) => {
                if !self.rotations.failing.replace(true) {
                    error!(%error, "cannot look for rotated files; trying on");
                }
                Err(error)
            }
            listed => {
                self.rotations.failing.set(false);
                listed
            }
        }
    }

    /// Whether a file with this identity is beside the input, under whatever name.
    pub(super) fn is_beside(&self, identity: &Identity) -> bool {
        self.siblings().is_ok_and(|siblings| siblings.by_identity(identity).is_some())
    }

    /// The same, under a name that rotations give.
    pub(super) fn is_rotated(&self, identity: &Identity) -> bool {
        let is_it = |it: &RotatedSibling| it.file.identity.is_same_file(identity);
        self.siblings().is_ok_and(|siblings| siblings.rotated.iter().any(is_it))
    }

    /// Adds a lane for a file that is not at the path any more, before that of the one that is and of
    /// those that are known to be later ones.
    pub(super) fn add_moved(
        &mut self,
        file: FollowedFile,
        ledger: Ledger,
        is_later: impl Fn(&Self, &Lane) -> bool,
    ) -> &mut Lane {
        let mut lane = self.new_lane(file, ledger);
        lane.state = LaneState::Superseded;
        let is_later = |it: &Lane| it.state == LaneState::Live || is_later(self, it);
        let index = self.lanes.iter().position(is_later).unwrap_or(self.lanes.len());
        self.lanes.insert(index, lane);
        self.position.moved();
        &mut self.lanes[index]
    }
}
