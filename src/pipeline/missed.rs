//! Lives of the input that are not at its path any more: found again beside it, or never seen.

use std::cell::Cell;
use std::io;
use std::ops::RangeInclusive;

use tracing::{error, info, warn};

use super::Pipeline;
use super::input::QUIET;
use super::lane::{Lane, LaneState};
use crate::checkpoint::{GenerationState, Lost, LostReason};
use crate::domain::identity::{Files, Identity};
use crate::domain::ledger::Ledger;
use crate::domain::rotation::{self, Packing};
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
    complete: bool,
    /// When the directory was last changed, before it was listed.
    directory_ns: Option<i64>,
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
    undecided: Files,
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

/// What a rotated file that was not read itself holds, compared with the lives that are open.
enum Content {
    /// Something to be read, from where the file was put.
    New,
    /// What a lane has read.
    Read,
    /// A lane goes on in it: its own file was replaced by this one.
    More(usize),
    /// What a lane is about to read.
    About,
}

impl Pipeline {
    /// Opens the rotated files that nobody has read: those that came after the newest life that is known,
    /// which was last written at `newest`. False: not all of them yet.
    pub(super) fn open_unseen(&mut self, newest: i64) -> bool {
        let newest =
            self.rotations.unopened_since.take().map_or(newest, |before| before.min(newest));
        let waited = std::mem::take(&mut self.rotations.waiting);
        let unopened = self.amount_unopened();
        let opened = self.look_beside(|this, siblings| this.open_unseen_of(newest, siblings));
        if opened.is_none() || self.rotations.waiting > 0 {
            // The next look tries again. What is at the path waits only for a place.
            self.rotations.unopened_since = Some(newest);
        }
        if self.rotations.waiting > 0 {
            self.wait_at_path();
        }
        if self.amount_unopened() != unopened {
            self.position.moved();
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

    /// Opens rotated files that came while the file at the path stayed the same: what was copied and
    /// cut may have grown again before anyone saw that it was shorter.
    pub(super) fn open_what_came(&mut self) {
        let (fs, input) = (self.edges.fs.as_ref(), &self.settings.input);
        let directories = [input.clone(), fs.target(input)];
        let changed_ns =
            |path: &std::path::PathBuf| Some(fs.stat(path.parent()?).ok()?.modified_ns);
        let now = directories.iter().filter_map(changed_ns).max();
        let changed = std::mem::replace(&mut self.rotations.directory_ns, now) != now;
        // What came after a life that is remembered is found once something is at the path.
        if self.remembered.is_none()
            && (changed || self.rotations.is_undecided())
            && let Some(newest) = self.lanes.last().map(|lane| lane.file.modified_ns())
        {
            self.open_unseen(newest);
        }
    }

    fn open_unseen_of(&mut self, newest: i64, siblings: &Siblings) -> Result<(), Moved> {
        self.miss_the_unopened(siblings);
        let rotated = &siblings.rotated;
        let is_live = |it: &RotatedSibling| {
            let mut live = self.lanes.iter().filter(|lane| lane.state == LaneState::Live);
            live.any(|lane| lane.file.identity().is_same_file(&it.file.identity))
        };
        if self.settings.pipe.is_some() && rotated.iter().any(is_live) {
            // Ended since it was looked at: what else is new may be younger, and has to come after it.
            self.supersede("the segment is full");
        }
        let unseen = self.unseen(newest, rotated)?;
        let undecided = std::mem::take(&mut self.rotations.undecided);
        for (place, &index) in unseen.iter().enumerate() {
            let sibling = &rotated[index];
            if self.held() >= HELD_MAX {
                let left = unseen[place..].iter().map(|index| rotated[*index].file.clone());
                self.rotations.unopened.extend(left);
                self.rotations.waiting = unseen.len() - place;
                return Ok(());
            }
            if sibling.name.packing == Packing::Other {
                self.cannot_read(sibling, &"it is packed by a program other than gzip");
                continue;
            }
            match self.content_of(sibling)? {
                Ok((Content::New, file)) => self.open_rotated(file, &rotated[index + 1..]),
                Ok((Content::More(lane), file)) => {
                    let path = sibling.file.path.display();
                    if let Some(file) = self.go_on_in_copy(lane, file, |_| true) {
                        self.open_rotated(file, &rotated[index + 1..]);
                    } else {
                        info!(%path, "a file that was replaced goes on in a rotated one");
                    }
                }
                // At once: the life that it is a copy of may be gone when it is looked at again.
                Ok((Content::Read, _)) => self.rotations.seen.add(sibling.file.identity),
                Ok((Content::About, _)) => self.rotations.undecided.add(sibling.file.identity),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.cannot_read(sibling, &error);
                }
                Err(error) => {
                    let (path, identity) = (sibling.file.path.display(), sibling.file.identity);
                    if !undecided.contains(&identity) {
                        error!(%path, %error, "a rotated file can't be read; trying on");
                    }
                    self.rotations.unopened.push(sibling.file.clone());
                    self.rotations.undecided.add(identity);
                }
            }
        }
        self.saw_all(siblings);
        Ok(())
    }

    /// Whether there are rotated files that nobody has read, other than this one.
    pub(super) fn has_unseen_besides(&self, file: &FollowedFile) -> bool {
        // Where nobody can look, a segment of a journal would count as delivered: it is older than this file.
        let Ok(siblings) = self.siblings() else { return self.settings.pipe.is_some() };
        self.rotations.complete
            && siblings.rotated.iter().any(|it| {
                let identity = &it.file.identity;
                it.name.packing == Packing::Plain
                    && !identity.is_same_file(file.identity())
                    && !self.is_seen(identity)
                    && !self.rotations.undecided.contains(identity)
            })
    }

    /// Which of the rotated files nobody has read.
    fn unseen(&self, newest: i64, rotated: &[RotatedSibling]) -> Result<Vec<usize>, Moved> {
        let mut seen: Vec<bool> =
            rotated.iter().map(|it| self.is_seen(&it.file.identity)).collect();
        // Where it was opened from its start, what came before it may be unread too.
        let is_opened = |it: &RotatedSibling| self.rotations.opened.contains(&it.file.identity);
        let is_live_known = self
            .lanes
            .iter()
            .any(|lane| lane.state == LaneState::Live && self.is_known(lane.file.identity()));
        let mut known: Vec<bool> =
            rotated.iter().zip(&seen).map(|(it, seen)| *seen && !is_opened(it)).collect();
        if !known.contains(&true) && !is_live_known {
            // The newest one may have been packed or copied since.
            for index in (0..rotated.len()).rev() {
                if matches!(self.content_of(&rotated[index])?, Ok((Content::Read, _))) {
                    (seen[index], known[index]) = (true, true);
                    break;
                }
            }
        }
        let written: Vec<i64> = rotated.iter().map(|it| it.file.modified_ns).collect();
        let mut unseen = rotation::unseen(&known, &written, newest);
        // After the file at the path, if that is known, nothing comes.
        unseen.retain(|index| !seen[*index] && (known.contains(&true) || !is_live_known));
        // A copy may stand before the file that it was made of, and is younger.
        if !self.rotations.complete {
            unseen.extend((0..rotated.len()).filter(|index| {
                let file = &rotated[*index].file;
                let born = file.identity.born_ns.zip(self.rotations.born_ns);
                let is_younger = born.is_none_or(|(file, known)| file > known);
                !seen[*index] && is_younger && file.modified_ns >= newest
            }));
        }
        // Whatever their order: files that were not there when the daemon looked last. A packed one
        // may be an old one that was packed since.
        if self.rotations.complete {
            let is_new = |index: &usize| {
                let RotatedSibling { name, file } = &rotated[*index];
                name.packing == Packing::Plain || self.rotations.undecided.contains(&file.identity)
            };
            unseen.extend((0..rotated.len()).filter(|index| !seen[*index] && is_new(index)));
        }
        unseen.sort_unstable();
        unseen.dedup();
        Ok(unseen)
    }

    /// A rotated file that nobody has read is.
    fn open_rotated(&mut self, file: FollowedFile, later: &[RotatedSibling]) {
        let (path, offset, size) = (file.path().display(), file.position(), file.size());
        info!(%path, offset, size, "a rotated file that was not seen before is read");
        let suspect = self.may_be_copy(&file, |_, _| true);
        self.rotations.opened.add(*file.identity());
        // What was cut to make place for what this is a copy of comes before it.
        let live = self.lanes.last().filter(|lane| lane.state == LaneState::Live);
        let live = live.filter(|lane| lane.file.may_be_cut());
        let follows = live.map(|lane| (lane.key, lane.file.line_start()));
        let is_later = |this: &Self, lane: &Lane| {
            let identity = lane.file.identity();
            this.rotations.opened.contains(identity)
                && later.iter().any(|it| it.file.identity.is_same_file(identity))
        };
        let lane = self.add_moved(file, Ledger::default(), is_later);
        (lane.suspect, lane.follows) = (suspect, follows);
    }

    /// Opens a rotated file and compares it with the lives that are open.
    fn content_of(
        &self,
        sibling: &RotatedSibling,
    ) -> Result<io::Result<(Content, FollowedFile)>, Moved> {
        let (fs, max_line) = (self.edges.fs.as_ref(), self.settings.max_line_bytes);
        let mut file = match sibling.file.open(fs, max_line) {
            Ok(file) => file.ok_or(Moved)?,
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.compare_with_open(&mut file, |_| true).map(|content| (content, file)))
    }

    /// Compares a file, opened at its start, with some of the lives that are open, and puts it where it is
    /// to be read from.
    fn compare_with_open(
        &self,
        file: &mut FollowedFile,
        with: impl Fn(&Lane) -> bool,
    ) -> io::Result<Content> {
        let max_line = self.settings.max_line_bytes;
        if self.is_copied_never() {
            return Ok(Content::New);
        }
        let (mut from, mut more) = (0, None);
        for (index, lane) in self.lanes.iter().enumerate().filter(|(_, lane)| with(lane)) {
            if !lane.file.is_copied_in(file, max_line)? {
                continue;
            }
            if lane.file.position() == 0 {
                match lane.failing {
                    Some(_) => continue,
                    None => return Ok(Content::About),
                }
            }
            if lane.state == LaneState::Over && file.size() > lane.file.position() {
                // It was not found when that life ended: the rest is read here.
                from = lane.file.whole_lines_end();
                break;
            }
            // Where its file was replaced, that may have been by this one, which may still be written.
            let superseded = lane.state == LaneState::Superseded && lane.cut.is_none();
            let common = if superseded { lane.file.common_with(file)? } else { None };
            let goes_on = common.is_some_and(|it| {
                it.copy_more || (!it.more && !self.is_rotated(lane.file.identity()))
            });
            if goes_on {
                more = Some(index);
            } else if lane.file.position() < file.size()
                && lane.state != LaneState::Over
                && lane.file.may_be_cut()
            {
                // Where the rest is read is decided once the cut is judged.
                return Ok(Content::About);
            } else if lane.file.is_as_long_as(file) {
                return Ok(Content::Read);
            }
        }
        file.start_again(max_line);
        file.move_to(from, max_line)?;
        // Or it is a copy of one that goes on itself, and is still being made.
        let is_other = |lane: usize| self.may_be_copy(file, |index, it| index != lane && with(it));
        let more = more.filter(|lane| from == 0 && !is_other(*lane));
        Ok(more.map_or(Content::New, Content::More))
    }

    /// Whether there is a rotated file of this size that nobody had read, written in this time: what was
    /// cut before it was read can't be compared any more.
    pub(super) fn has_unseen_of_size(&self, size: u64, written: &RangeInclusive<i64>) -> bool {
        let Ok(siblings) = self.siblings() else { return false };
        let opened = &self.rotations.opened;
        siblings.rotated.iter().any(|RotatedSibling { file, .. }| {
            let identity = &file.identity;
            // Or one that was opened just for that.
            let is_unseen =
                opened.contains(identity) || (!self.is_seen(identity) && !self.is_known(identity));
            is_unseen && file.size == size && written.contains(&file.modified_ns)
        })
    }

    /// Says that what a rotated file holds is lost. How much that is, nobody knows.
    fn cannot_read(&mut self, sibling: &RotatedSibling, why: &dyn std::fmt::Display) {
        let (path, size) = (sibling.file.path.display(), sibling.file.size);
        error!(%path, size, %why, "a rotated file that was not read before can't be: its events are lost");
        let reason = LostReason::Unreadable;
        self.lost.push(Lost { generation: None, from: 0, to: size, reason });
        self.position.moved();
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

    /// Whether a file that was just opened may turn out to be a copy of one that is open.
    fn may_be_copy(&self, file: &FollowedFile, of: impl Fn(usize, &Lane) -> bool) -> bool {
        let mut lanes = self.lanes.iter().enumerate().filter(|(index, lane)| of(*index, lane));
        !self.is_copied_never()
            && lanes.any(|(_, lane)| file.is_beginning_of(&lane.file).unwrap_or(false))
    }

    /// Whether a suspect lane is known to be a life of its own. One that turned out to be a copy ends; one
    /// that stays in doubt is read in the end, since duplicates are preferred to loss.
    pub(super) fn is_cleared(&mut self, index: usize) -> bool {
        let mut suspect = self.lanes.remove(index);
        let content = self.compare_with_open(&mut suspect.file, |lane| !lane.suspect);
        let now = self.edges.clock.now();
        let quiet = now.saturating_duration_since(suspect.last_data) >= QUIET;
        let in_doubt = !quiet && self.may_be_copy(&suspect.file, |_, lane| !lane.suspect);
        match content {
            Ok(Content::Read) => {
                let path = suspect.file.path().display();
                info!(%path, "it is a copy of a file that is read already");
            }
            Ok(Content::More(lane)) => {
                let path = suspect.file.path().to_owned();
                info!(path = %path.display(), "a file that was replaced goes on in this one");
                // Should it be another one by now, it is found again.
                if let Some(file) = self.go_on_in_copy(lane, suspect.file, |_| true) {
                    self.rotations.seen.remove(file.identity());
                }
            }
            Ok(Content::About) | Err(_) => {
                suspect.file.start_again(self.settings.max_line_bytes);
                self.lanes.insert(index, suspect);
                return false;
            }
            Ok(Content::New) => {
                // It may have been put elsewhere.
                let (ledger, since) = (Ledger::default(), suspect.last_data);
                let mut lane = Lane::new(suspect.key, suspect.file, ledger, since);
                (lane.state, lane.suspect) = (suspect.state, in_doubt);
                self.lanes.insert(index, lane);
                return !in_doubt;
            }
        }
        // The lane behind it has its place now.
        self.input.look_again();
        self.position.moved();
        false
    }

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
    fn saw_all(&mut self, siblings: &Siblings) {
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
}
