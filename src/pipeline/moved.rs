//! Lives whose file is not at the input path any more, found again: by inode, by content, in a copy.

use std::path::Path;

use tracing::info;

use super::Pipeline;
use super::lane::Lane;
use super::rotations::HELD_MAX;
use crate::checkpoint::{GenerationState, Lost, LostReason};
use crate::domain::identity::{Identity, Resume};
use crate::domain::ledger::Ledger;
use crate::domain::position::Generation;
use crate::source::file::{AtPath, FollowedFile, Known, look};
use crate::source::siblings::{Moved, Sibling, Siblings};

/// What is known of a life, for comparing a file with it.
pub(super) fn known_of(state: &GenerationState) -> Known<'_> {
    Known {
        identity: &state.identity,
        head: state.head.as_ref(),
        mark: &state.mark,
        offset: state.offset,
        size: state.size,
        generation: state.generation,
        after: state.after,
    }
}

/// What became of a life whose file is not at the input path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakenUp {
    /// It is read on.
    Found,
    /// It is nowhere any more.
    Gone,
    /// It can't be looked for now; it is tried again.
    Later,
}

impl Pipeline {
    /// Goes on with a life whose file is not at the input path any more, wherever it is now, and with the
    /// one that came after it in the same file. What can't be read any more is lost, for `reason`.
    pub(super) fn take_up(&mut self, known: &GenerationState, reason: LostReason) -> TakenUp {
        let taken = self.take_up_itself(known, reason);
        if taken != TakenUp::Later {
            self.read_next_life(known);
        }
        taken
    }

    fn take_up_itself(&mut self, known: &GenerationState, reason: LostReason) -> TakenUp {
        if self.held() >= HELD_MAX {
            self.untaken.push((known.clone(), reason));
            return TakenUp::Later;
        }
        if self.take_up_kept(known) {
            return TakenUp::Found;
        }
        match self.look_beside(|this, siblings| this.find(known, siblings)) {
            Some(Some(file)) => {
                self.give_way(file.identity());
                let (path, offset) = (file.path().display(), file.position());
                let size = file.whole_size();
                info!(%path, offset, size, "resumed: a rotated file is read to its end");
                if file.position() == known.offset && file.generation() == known.generation {
                    self.add_taken_up(file, known.ledger, known);
                } else {
                    self.closed += known.ledger;
                    self.add_taken_up(file, Ledger::default(), known);
                    // It may be another one, which others came before.
                    let since = self.rotations.unopened_since.unwrap_or(i64::MAX);
                    self.rotations.unopened_since = Some(since.min(known.modified_ns));
                }
                if let Some(size) = size {
                    self.lose_cut_off(known, size);
                }
                return TakenUp::Found;
            }
            Some(None) => {}
            None => {
                let mut known = known.clone();
                let siblings = self.siblings().ok();
                let there = siblings.as_ref().and_then(|it| it.by_identity(&known.identity));
                known.size = known.size.max(there.map_or(0, |file| file.size));
                self.untaken.push((known, reason));
                return TakenUp::Later;
            }
        }
        self.closed += known.ledger;
        // A copy may have been taken for a file that nobody had read.
        let is_copied = |lane: &Lane| lane.file.holds(&known_of(known)).unwrap_or(false);
        if self.lanes.iter().any(is_copied) {
            info!(
                offset = known.offset,
                "a file is not there any more: what was missing of it is in a copy"
            );
            return TakenUp::Gone;
        }
        let (from, to) = (known.offset, known.size.max(known.offset));
        if from == to {
            info!(
                offset = from,
                "a file is not there any more; as far as is known it was delivered whole"
            );
        }
        self.lose(Lost { generation: known.generation, from, to, reason });
        self.position.moved();
        TakenUp::Gone
    }

    /// The same, where an earlier run kept what there is of it. False: none did.
    pub(super) fn take_up_kept(&mut self, known: &GenerationState) -> bool {
        if let Some(file) = self.find_kept(known) {
            info!(offset = known.offset, "resumed: what was kept of a file that is gone is read");
            self.add_taken_up(file, known.ledger, known).is_kept = true;
            return true;
        }
        if let Some(file) = self.find_stored(known) {
            let (offset, size) = (known.offset, file.size());
            info!(offset, size, "resumed: a deleted file that an earlier run held open is read");
            self.add_taken_up(file, known.ledger, known).is_stored = true;
            self.lose_cut_off(known, size);
            return true;
        }
        false
    }

    /// Adds a lane for a life that was known, before those that were known to come later.
    fn add_taken_up(
        &mut self,
        file: FollowedFile,
        ledger: Ledger,
        known: &GenerationState,
    ) -> &mut Lane {
        let place = self.known_place(&known.identity, known.generation);
        self.add_moved(file, ledger, |this, lane| {
            let other = this.known_place(lane.file.identity(), lane.file.generation());
            place.is_some_and(|place| other.is_none_or(|other| other > place))
        })
    }

    /// Where a life stands among those that the start knew, the oldest being the first. One that came later in
    /// the same file stands where that one does.
    fn known_place(&self, identity: &Identity, life: Option<Generation>) -> Option<usize> {
        let known = &self.rotations.known;
        let by_life =
            life.and_then(|life| known.iter().rposition(|it| it.generation == Some(life)));
        by_life.or_else(|| known.iter().rposition(|it| it.identity.is_same_file(identity)))
    }

    /// A file that was cut and then moved away holds another life.
    fn read_next_life(&mut self, known: &GenerationState) {
        if self.is_open(&known.identity) || self.has_later_life(known) {
            return;
        }
        let next = self.look_beside(|this, siblings| {
            let (fs, max_line) = (this.edges.fs.as_ref(), this.settings.max_line_bytes);
            let Some(sibling) = siblings.by_identity(&known.identity) else { return Ok(None) };
            let mut file = sibling.open(fs, max_line).or(Err(Moved))?.ok_or(Moved)?;
            let resume = file.resume(&known_of(known), max_line).or(Err(Moved))?;
            let is_next = matches!(resume, Resume::Truncated | Resume::Rewritten);
            Ok(is_next.then_some(file))
        });
        if let Some(file) = next.flatten() {
            info!(path = %file.path().display(), "it was cut before: it is read from its start");
            self.rotations.opened.add(*file.identity());
            self.add_taken_up(file, Ledger::default(), known);
        }
    }

    /// Of a life that goes on, what is behind its present end was seen and is not there any more.
    pub(super) fn lose_cut_off(&mut self, known: &GenerationState, size: u64) {
        let (generation, reason) = (known.generation, LostReason::TruncatedUnread);
        if size < known.size {
            self.lose(Lost { generation, from: size, to: known.size, reason });
        }
    }

    /// Tries again what could not be looked for.
    pub(super) fn take_up_again(&mut self) {
        self.see_untaken();
        let at_path = look(self.edges.fs.as_ref(), &self.settings.input);
        for (known, reason) in std::mem::take(&mut self.untaken) {
            // One that came back is compared with what is known of it when it is opened.
            let is_back = matches!(at_path, Ok(AtPath::File(it)) if it.is_same_file(&known.identity))
                && !self.is_open(&known.identity);
            if is_back && self.remembered.is_none() {
                self.remembered = Some(known);
            } else {
                self.take_up(&known, reason);
            }
        }
    }

    /// What was written since to files that wait to be taken up would be missing too if they went.
    fn see_untaken(&mut self) {
        if self.untaken.is_empty() {
            return;
        }
        let Ok(siblings) = self.siblings() else { return };
        let mut untaken = std::mem::take(&mut self.untaken);
        for (known, _) in &mut untaken {
            let file = siblings.by_identity(&known.identity);
            let file = file.filter(|file| file.size > known.size && !self.has_later_life(known));
            if let Some(file) = file {
                known.size = file.size;
                self.position.moved();
            }
        }
        self.untaken = untaken;
    }

    /// By its inode, under whatever name, or by its content: a copy, or packed.
    fn find(
        &self,
        known: &GenerationState,
        siblings: &Siblings,
    ) -> Result<Option<FollowedFile>, Moved> {
        let (fs, max_line) = (self.edges.fs.as_ref(), self.settings.max_line_bytes);
        let remembered = known_of(known);
        if !self.is_open(&known.identity)
            && !self.has_later_life(known)
            && let Some(sibling) = siblings.by_identity(&known.identity)
            && let Some(file) = self.goes_on_in(known, sibling)?
        {
            return Ok(Some(file));
        }
        if let Some(pipe) = &self.settings.pipe {
            return self.find_beside_pipe(known, pipe);
        }
        // A copy has a life of its own where it is known itself.
        let is_other = |sibling: &Sibling| {
            let identity = &sibling.identity;
            let is_taken = self.is_open(identity) || self.is_seen(identity);
            (is_taken && !self.gives_way(identity, known))
                || self.is_known(identity)
                || (remembered.is_weak() && sibling.modified_ns < known.modified_ns)
        };
        // Of a copy of several, one of which something is missing goes on in it; else one of which more is known.
        let missing = |it: &GenerationState| it.offset < it.size;
        let is_stronger = |it: &GenerationState| remembered.is_weak() && !known_of(it).is_weak();
        let goes_first =
            |it: &&GenerationState| !missing(known) && (missing(it) || is_stronger(it));
        let is_others = |file: &FollowedFile| {
            let is_of =
                |other| file.from_start(max_line).resume_if_alike(&known_of(other), max_line);
            let mut others = self.rotations.known.iter().filter(goes_first);
            others.any(|other| is_of(other).unwrap_or(false))
        };
        if !remembered.is_weak() {
            let goes_on = |file: &mut FollowedFile| {
                let is_it = !is_others(file) && file.resume_as_copy(&remembered, max_line)?;
                if is_it {
                    file.go_back_to_line_start(max_line)?;
                }
                Ok(is_it)
            };
            return siblings.newest(fs, max_line, is_other, goes_on);
        }
        // Where little was read, it has to be the only one that begins like that.
        let goes_on = |file: &mut FollowedFile| {
            Ok(!is_others(file) && file.resume_if_alike(&remembered, max_line)?)
        };
        let input = FollowedFile::open(fs, &self.settings.input, max_line, None).ok().flatten();
        if input.is_some_and(|mut input| goes_on(&mut input).unwrap_or(false)) {
            return Ok(None);
        }
        let mut only = siblings.only(fs, max_line, is_other, goes_on)?;
        // And if it was another one after all, what it holds has another name, and is read whole.
        if let Some(file) = &mut only {
            file.start_again(max_line);
        }
        Ok(only)
    }

    /// Whether a copy that was taken for another life, of which less is missing, is not read yet: it is read
    /// from where more is.
    fn gives_way(&self, copy: &Identity, known: &GenerationState) -> bool {
        let mut lanes = self.lanes.iter().filter(|lane| lane.file.identity().is_same_file(copy));
        lanes.next().is_some_and(|lane| lane.is_unread() && lane.began > known.offset)
            && lanes.next().is_none()
    }

    /// Leaves a file to another lane.
    fn give_way(&mut self, to: &Identity) {
        let closed = &mut self.closed;
        self.lanes.retain(|lane| {
            let goes = lane.file.identity().is_same_file(to);
            if goes {
                *closed += lane.ledger;
            }
            !goes
        });
    }

    /// A file that a pipe took the place of may be under another name now, or back. Its writer may still have it open.
    fn find_beside_pipe(
        &self,
        known: &GenerationState,
        pipe: &Path,
    ) -> Result<Option<FollowedFile>, Moved> {
        if self.is_open(&known.identity) || self.settings.is_segment(&known.path) {
            return Ok(None);
        }
        let fs = self.edges.fs.as_ref();
        let at_path = Sibling::at(fs, pipe).or(Err(Moved))?;
        let at_path = at_path.filter(|it| it.identity.is_same_file(&known.identity));
        let siblings = Siblings::of(fs, pipe).unwrap_or_default();
        match at_path.as_ref().or_else(|| siblings.by_identity(&known.identity)) {
            Some(sibling) => self.goes_on_in(known, sibling),
            None => Ok(None),
        }
    }

    /// The file that a life was in, if its content goes on there. What can't be read now may be later.
    fn goes_on_in(
        &self,
        known: &GenerationState,
        sibling: &Sibling,
    ) -> Result<Option<FollowedFile>, Moved> {
        let (fs, max_line) = (self.edges.fs.as_ref(), self.settings.max_line_bytes);
        let mut file = sibling.open(fs, max_line).or(Err(Moved))?.ok_or(Moved)?;
        let resume = file.resume(&known_of(known), max_line).or(Err(Moved))?;
        Ok((resume == Resume::Continue).then_some(file))
    }
}
