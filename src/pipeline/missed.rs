//! Lives of the input that are not at its path any more: found again beside it, or never seen.

use std::io;

use tracing::{debug, error, info, warn};

use super::Pipeline;
use super::input::QUIET;
use super::lane::{Lane, LaneState};
use crate::checkpoint::{GenerationState, Lost, LostReason};
use crate::domain::identity::{Identity, Resume};
use crate::domain::ledger::Ledger;
use crate::domain::rotation::{self, Packing};
use crate::source::file::{FollowedFile, Known};
use crate::source::siblings::{Moved, RotatedSibling, Siblings};

/// How many files are held open at most. More wait in their directory.
pub(super) const HELD_MAX: usize = 64;

/// How often the directory is listed again because files were renamed meanwhile.
pub(super) const LISTED_AGAIN: usize = 16;

/// What is known of a life, for comparing a file with it.
pub(super) fn known_of(state: &GenerationState) -> Known<'_> {
    Known {
        identity: &state.identity,
        head: state.head.as_ref(),
        mark: &state.mark,
        offset: state.offset,
        generation: state.generation,
        after: state.after,
    }
}

/// Rotated files, as the owner knows them.
#[derive(Default)]
pub(super) struct Rotations {
    /// Those that were read, are being read, or were there before the daemon.
    pub(super) seen: Vec<Identity>,
    /// `seen` is whole: what is not in it is new.
    complete: bool,
    /// Those that nobody has read and that found no place, with their sizes.
    unopened: Vec<(Identity, u64)>,
    /// Copies of what a lane has not begun to read: whether that is read there or here, is not decided.
    undecided: Vec<Identity>,
    /// Files that need a place among the open ones.
    pub(super) waiting: usize,
}

impl Rotations {
    pub(super) fn is_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }
}

/// What a rotated file that was not read itself holds.
enum Content {
    /// Nothing that is known.
    New(Box<FollowedFile>),
    /// What a lane has read.
    Read,
    /// What a lane is about to read.
    About,
}

impl Pipeline {
    /// Goes on with a life whose file is not at the input path any more, wherever it is now. What can't
    /// be read any more is lost, for `reason`.
    pub(super) fn take_up(&mut self, known: &GenerationState, reason: LostReason) {
        if let Some(file) = self.find_kept(known) {
            info!(offset = known.offset, "resumed: what was kept of a file that is gone is read");
            self.add_moved(file, known.ledger).is_kept = true;
            return;
        }
        if let Some(file) = self.look_beside(|this, siblings| this.find(known, siblings)).flatten()
        {
            let (path, offset) = (file.path().display(), known.offset);
            info!(%path, offset, size = file.size(), "resumed: a rotated file is read to its end");
            self.add_moved(file, known.ledger);
            return;
        }
        self.closed += known.ledger;
        let (from, to) = (known.offset, known.size.max(known.offset));
        if from == to {
            info!(
                offset = from,
                "a file is not there any more; as far as is known it was delivered whole"
            );
        }
        self.lose(Lost { generation: known.generation, from, to, reason });
        self.position.moved();
    }

    /// By its inode, under whatever name, or by its content: a copy, or packed.
    fn find(
        &self,
        known: &GenerationState,
        siblings: &Siblings,
    ) -> Result<Option<FollowedFile>, Moved> {
        let (fs, max_line) = (self.edges.fs.as_ref(), self.settings.max_line_bytes);
        let remembered = known_of(known);
        if let Some(sibling) = siblings.by_identity(&known.identity)
            && let Ok(mut file) = sibling.open(fs, max_line)
        {
            let resume = file.as_mut().ok_or(Moved)?.resume(&remembered, max_line);
            if matches!(resume, Ok(Resume::Continue)) {
                return Ok(file);
            }
        }
        let is_other = |identity: &Identity| self.is_open(identity);
        let goes_on = |file: &mut FollowedFile| file.resume_as_copy(&remembered, max_line);
        siblings.newest(fs, max_line, |sibling| is_other(&sibling.identity), goes_on)
    }

    /// Whether a file with this identity is beside the input.
    pub(super) fn is_beside(&self, identity: &Identity) -> bool {
        self.siblings().by_identity(identity).is_some()
    }

    /// The newest copy of a lane's content as far as it was read, opened to be read on.
    pub(super) fn copy_of(&mut self, index: usize) -> Option<FollowedFile> {
        let copy = |this: &mut Self, siblings: &Siblings| {
            let (fs, max_line) = (this.edges.fs.as_ref(), this.settings.max_line_bytes);
            let lane = &this.lanes[index];
            let goes_on = |copy: &mut FollowedFile| lane.file.is_copied_in(copy, max_line);
            siblings.newest(fs, max_line, |_| false, goes_on)
        };
        self.look_beside(copy).flatten()
    }

    /// Opens the rotated files that nobody has read: those that came after the newest life that is known,
    /// which was last written at `newest`. False: not all of them yet.
    pub(super) fn open_unseen(&mut self, newest: i64) -> bool {
        let waited = std::mem::take(&mut self.rotations.waiting);
        let opened = self.look_beside(|this, siblings| this.open_unseen_of(newest, siblings));
        if opened.is_none() {
            // The next look tries again.
            self.rotations.waiting = 1;
        }
        if waited == 0 && self.rotations.waiting > 0 {
            let (open, waiting) = (self.held(), self.rotations.waiting);
            warn!(
                open,
                waiting, "too many rotated files are not delivered yet: others have to wait"
            );
        }
        self.rotations.waiting == 0
    }

    fn open_unseen_of(&mut self, newest: i64, siblings: &Siblings) -> Result<(), Moved> {
        self.miss_the_unopened(siblings);
        self.rotations.undecided.clear();
        let rotated = &siblings.rotated;
        let unseen = self.unseen(newest, rotated)?;
        for (place, &index) in unseen.iter().enumerate() {
            let sibling = &rotated[index];
            if self.held() >= HELD_MAX {
                let left = unseen[place..].iter().map(|index| &rotated[*index].file);
                self.rotations.unopened = left.map(|file| (file.identity, file.size)).collect();
                self.rotations.waiting = self.rotations.unopened.len();
                return Ok(());
            }
            if sibling.name.packing == Packing::Other {
                self.cannot_read(sibling, &"it is packed by a program other than gzip");
                continue;
            }
            match self.content_of(sibling)? {
                Ok(Content::New(file)) => {
                    let (path, size) = (sibling.file.path.display(), file.size());
                    info!(%path, size, "a rotated file that was not seen before is read whole");
                    let suspect = self.may_be_copy(&file);
                    self.add_moved(*file, Ledger::default()).suspect = suspect;
                }
                // At once: the life that it is a copy of may be gone when it is looked at again.
                Ok(Content::Read) => self.rotations.seen.push(sibling.file.identity),
                Ok(Content::About) => self.rotations.undecided.push(sibling.file.identity),
                Err(error) => self.cannot_read(sibling, &error),
            }
        }
        self.saw_all(siblings);
        Ok(())
    }

    /// Whether there are rotated files that nobody has read, other than this one.
    pub(super) fn has_unseen_besides(&self, file: &FollowedFile) -> bool {
        self.rotations.complete
            && self.siblings().rotated.iter().any(|it| {
                let identity = &it.file.identity;
                it.name.packing == Packing::Plain
                    && !identity.is_same_file(file.identity())
                    && !self.is_seen(identity)
                    && !self.rotations.undecided.iter().any(|it| it.is_same_file(identity))
            })
    }

    /// Which of the rotated files nobody has read.
    fn unseen(&self, newest: i64, rotated: &[RotatedSibling]) -> Result<Vec<usize>, Moved> {
        let mut seen: Vec<bool> =
            rotated.iter().map(|it| self.is_seen(&it.file.identity)).collect();
        if !seen.contains(&true) {
            // The newest one may have been packed or copied since.
            for index in (0..rotated.len()).rev() {
                if matches!(self.content_of(&rotated[index])?, Ok(Content::Read)) {
                    seen[index] = true;
                    break;
                }
            }
        }
        let written: Vec<i64> = rotated.iter().map(|it| it.file.modified_ns).collect();
        let mut unseen = rotation::unseen(&seen, &written, newest);
        // Whatever their order: files that were not there when the daemon looked last. A packed one
        // may be an old one that was packed since.
        if self.rotations.complete {
            let is_plain = |index: &usize| rotated[*index].name.packing == Packing::Plain;
            unseen.extend((0..rotated.len()).filter(|index| !seen[*index] && is_plain(index)));
            unseen.sort_unstable();
            unseen.dedup();
        }
        Ok(unseen)
    }

    /// Opens a rotated file and compares it with the lives that are open.
    fn content_of(&self, sibling: &RotatedSibling) -> Result<io::Result<Content>, Moved> {
        let (fs, max_line) = (self.edges.fs.as_ref(), self.settings.max_line_bytes);
        let mut file = match sibling.file.open(fs, max_line) {
            Ok(file) => file.ok_or(Moved)?,
            Err(error) => return Ok(Err(error)),
        };
        for lane in &self.lanes {
            match lane.file.is_copied_in(&mut file, max_line) {
                Ok(false) => {}
                Ok(true) if lane.file.position() == 0 => return Ok(Ok(Content::About)),
                Ok(true) => return Ok(Ok(Content::Read)),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(Content::New(Box::new(file))))
    }

    /// Whether there is a rotated file of this size that nobody has read: what was cut before it was
    /// read at all can't be compared any more.
    pub(super) fn has_unseen_of_size(&self, size: u64) -> bool {
        let siblings = self.siblings();
        let mut unseen = siblings.rotated.iter().filter(|it| !self.is_seen(&it.file.identity));
        unseen.any(|it| it.file.size == size)
    }

    /// Files that were seen and found no place are lost if they are gone by now.
    fn miss_the_unopened(&mut self, siblings: &Siblings) {
        for (identity, size) in std::mem::take(&mut self.rotations.unopened) {
            if siblings.by_identity(&identity).is_none() && !self.is_open(&identity) {
                let reason = LostReason::MovedAway;
                self.lose(Lost { generation: None, from: 0, to: size, reason });
            }
        }
    }

    /// Says that what a rotated file holds is lost. How much that is, nobody knows.
    fn cannot_read(&mut self, sibling: &RotatedSibling, why: &dyn std::fmt::Display) {
        let (path, size) = (sibling.file.path.display(), sibling.file.size);
        error!(%path, size, %why, "a rotated file that was not read before can't be: its events are lost");
        let reason = LostReason::Unreadable;
        self.lost.push(Lost { generation: None, from: 0, to: size, reason });
        self.position.moved();
    }

    /// Adds a lane for a file that is not at the path any more, before that of the one that is.
    pub(super) fn add_moved(&mut self, file: FollowedFile, ledger: Ledger) -> &mut Lane {
        let mut lane = self.new_lane(file, ledger);
        lane.state = LaneState::Superseded;
        let live = self.lanes.iter().position(|lane| lane.state == LaneState::Live);
        let index = live.unwrap_or(self.lanes.len());
        self.lanes.insert(index, lane);
        self.position.moved();
        &mut self.lanes[index]
    }

    /// Whether a file that was just opened may turn out to be a copy of one that is open.
    fn may_be_copy(&self, file: &FollowedFile) -> bool {
        self.lanes.iter().any(|lane| file.is_beginning_of(&lane.file).unwrap_or(false))
    }

    /// Whether a suspect lane is known to be a life of its own. One that turned out to be a copy ends; one
    /// that stays in doubt is read in the end, since duplicates are preferred to loss.
    pub(super) fn is_cleared(&mut self, index: usize) -> bool {
        let mut suspect = self.lanes.remove(index);
        let max_line = self.settings.max_line_bytes;
        let others = || self.lanes.iter().filter(|lane| !lane.suspect);
        let is_copy = others()
            .any(|lane| lane.file.is_copied_in(&mut suspect.file, max_line).unwrap_or(false));
        let quiet = self.edges.clock.now().saturating_duration_since(suspect.last_data) >= QUIET;
        let in_doubt =
            others().any(|lane| suspect.file.is_beginning_of(&lane.file).unwrap_or(false));
        suspect.suspect = is_copy || (in_doubt && !quiet);
        let cleared = !suspect.suspect;
        if is_copy {
            info!(path = %suspect.file.path().display(), "it is a copy of a file that is read already");
            self.position.moved();
            // The lane behind it has its place now.
            self.input.look_again();
        } else {
            self.lanes.insert(index, suspect);
        }
        cleared
    }

    /// Remembers which rotated files were there before the daemon.
    pub(super) fn remember_rotated(&mut self) {
        if !self.rotations.complete && self.rotations.waiting == 0 {
            let siblings = self.siblings();
            self.saw_all(&siblings);
        }
    }

    /// Everything that is there is known now; what is gone can be forgotten.
    fn saw_all(&mut self, siblings: &Siblings) {
        let rotated = siblings.rotated.iter().map(|it| it.file.identity);
        let open = self.lanes.iter().map(|lane| *lane.file.identity());
        let undecided = &self.rotations.undecided;
        let is_decided = |it: &Identity| !undecided.iter().any(|other| other.is_same_file(it));
        self.rotations.seen = rotated.chain(open).filter(is_decided).collect();
        self.rotations.complete = true;
    }

    /// A file is read from now on.
    pub(super) fn saw(&mut self, file: &FollowedFile) {
        self.rotations.seen.push(*file.identity());
    }

    fn is_seen(&self, identity: &Identity) -> bool {
        self.rotations.seen.iter().any(|seen| seen.is_same_file(identity))
    }

    fn is_open(&self, identity: &Identity) -> bool {
        self.lanes.iter().any(|lane| lane.file.identity().is_same_file(identity))
    }

    /// How many files are open.
    pub(super) fn held(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.state != LaneState::Over).count()
    }

    /// Does what `with` does beside the input, again if files are renamed meanwhile. None: they
    /// were, each time.
    fn look_beside<T>(
        &mut self,
        mut with: impl FnMut(&mut Self, &Siblings) -> Result<T, Moved>,
    ) -> Option<T> {
        (0..LISTED_AGAIN).find_map(|_| {
            let siblings = self.siblings();
            with(self, &siblings).ok()
        })
    }

    /// What is beside the input now. Nothing, told, if it can't be looked at.
    fn siblings(&self) -> Siblings {
        match Siblings::of(self.edges.fs.as_ref(), &self.settings.input) {
            Ok(siblings) => siblings,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Siblings::default(),
            Err(error) => {
                error!(%error, "cannot look for rotated files: unread ones may be missed");
                Siblings::default()
            }
        }
    }

    /// A file at the path that has the content of the life before it, as an editor or a restored
    /// backup leaves it, goes on where that was; one that begins with its last lines goes on behind
    /// them. Else it is read from its start.
    pub(super) fn skip_what_was_read(&self, file: &mut FollowedFile, before: &Lane) {
        let max_line = self.settings.max_line_bytes;
        let done = before.file.is_copied_in(file, max_line).and_then(|copied| {
            if copied {
                let offset = file.position();
                info!(offset, "the new file is a copy of the one before: it goes on");
            } else if let Some(mark) = before.file.line_mark()
                && let Some(end) = file.find_mark(&mark)?
            {
                info!(offset = end, "the new file begins with the last lines of the one before");
                file.move_to(end, max_line)?;
            }
            Ok(())
        });
        if let Err(error) = done {
            // It shows again when it is read.
            debug!(%error, "cannot compare the new file with the one before");
        }
    }
}
