//! Files that hold what another one held: made by a rotation, an editor, a backup.

use std::io;

use tracing::{debug, info};

use super::Pipeline;
use super::lane::{Lane, LaneState, QUIET};
use crate::checkpoint::{Lost, LostReason};
use crate::domain::identity::Identity;
use crate::domain::ledger::Ledger;
use crate::source::file::FollowedFile;
use crate::source::siblings::{Moved, RotatedSibling, Sibling, Siblings};

/// What a rotated file that was not read itself holds, compared with the lives that are open.
pub(super) enum Content {
    /// Something to be read, from where the file was put.
    New,
    /// What a lane has read.
    Read,
    /// A lane goes on in it: its own file was replaced by this one.
    More(usize),
    /// What a lane is about to read.
    About,
}

/// Where a copy of what a lane has read is.
pub(super) enum Copy {
    /// Here, put to where the lane goes on.
    At(Box<FollowedFile>),
    /// In a file that is read already.
    Read,
    /// There is none.
    Nowhere,
}

impl Pipeline {
    /// Opens a rotated file and compares it with the lives that are open.
    pub(super) fn content_of(
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

    /// Whether a file that was just opened may turn out to be a copy of one that is open.
    pub(super) fn may_be_copy(
        &self,
        file: &FollowedFile,
        of: impl Fn(usize, &Lane) -> bool,
    ) -> bool {
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

    /// The newest copy of a lane's content as far as it was read. None: one can't look for it now.
    pub(super) fn copy_of(&mut self, index: usize) -> Option<Copy> {
        let copy = |this: &mut Self, siblings: &Siblings| {
            let (fs, max_line) = (this.edges.fs.as_ref(), this.settings.max_line_bytes);
            let lane = &this.lanes[index];
            let goes_on = |copy: &mut FollowedFile| lane.file.is_copied_in(copy, max_line);
            let is_itself = |it: &Sibling| it.identity.is_same_file(lane.file.identity());
            siblings.newest(fs, max_line, is_itself, goes_on)
        };
        // One that may be a copy is open already, and may have no name any more.
        let max_line = self.settings.max_line_bytes;
        let suspects = self.lanes.iter().filter(|lane| lane.suspect);
        let mut suspects = suspects.map(|lane| lane.file.from_start(max_line));
        let lane = &self.lanes[index];
        let is_copy =
            |copy: &mut FollowedFile| lane.file.is_copied_in(copy, max_line).unwrap_or(false);
        if let Some(copy) = suspects.find_map(|mut file| is_copy(&mut file).then_some(file)) {
            return Some(Copy::At(Box::new(copy)));
        }
        let found = self.look_beside(copy)?;
        Some(match found {
            Some(file) if self.is_being_read(file.identity()) => Copy::Read,
            Some(file) => Copy::At(Box::new(file)),
            None => Copy::Nowhere,
        })
    }

    fn is_being_read(&self, identity: &Identity) -> bool {
        let mut lanes = self.lanes.iter().filter(|lane| !lane.suspect);
        lanes.any(|lane| lane.file.identity().is_same_file(identity))
    }

    /// A life before goes on in the file at the path if that is what an editor or a restored backup put
    /// in its place. None: it does.
    pub(super) fn go_on_in_place(&mut self, file: FollowedFile) -> Option<FollowedFile> {
        let mut file = Some(file);
        let lanes = if self.is_copied_never() { 0 } else { self.lanes.len() };
        for index in (0..lanes).rev() {
            let lane = &self.lanes[index];
            if lane.state != LaneState::Superseded || lane.suspect || lane.cut.is_some() {
                continue;
            }
            // Rotated, it goes on where it is: what is at the path now was written by the app.
            let (key, identity) = (lane.key, *lane.file.identity());
            file = self.go_on_in_copy(index, file?, |this| !this.is_rotated(&identity));
            if file.is_none() {
                info!("the new file is a copy of one before: that goes on");
                let index = self.lanes.iter().position(|lane| lane.key == key)?;
                let mut lane = self.lanes.remove(index);
                lane.state = LaneState::Live;
                self.lanes.push(lane);
            }
        }
        file
    }

    /// A lane whose file was replaced by a copy goes on in that, at the same place. Its writer may still
    /// have the file itself open: what comes there is read in a lane of its own. None: it does.
    pub(super) fn go_on_in_copy(
        &mut self,
        index: usize,
        mut copy: FollowedFile,
        may: impl Fn(&Self) -> bool,
    ) -> Option<FollowedFile> {
        let max_line = self.settings.max_line_bytes;
        let file = &self.lanes.get(index)?.file;
        let is_copy = file.is_copied_in(&mut copy, max_line).unwrap_or(false);
        copy.start_again(max_line);
        let common =
            (is_copy && may(self)).then(|| file.common_with(&copy).unwrap_or(None)).flatten();
        let later = common.map(|common| file.later_life(common.end, max_line));
        let Some(Ok(later)) = later else { return Some(copy) };
        self.saw(&copy);
        let mut later = self.new_lane(later, Ledger::default());
        later.state = LaneState::Superseded;
        later.follows = Some((self.lanes[index].key, later.file.position()));
        // What was cut off before the copy was made.
        let was = &self.lanes[index].file;
        let (generation, to) = (was.generation(), was.size());
        let left = was.shrunk_to().unwrap_or(to).max(copy.size());
        self.lanes[index].file.go_on_in(copy);
        self.lanes.insert(index, later);
        let (from, reason) = (left.min(to), LostReason::TruncatedUnread);
        self.lose(Lost { generation, from, to, reason });
        self.position.moved();
        None
    }

    /// A file at the path that begins with the last lines of the life before it goes on behind them.
    /// Else it is read from its start.
    pub(super) fn skip_what_was_read(&self, mut file: FollowedFile) -> FollowedFile {
        let max_line = self.settings.max_line_bytes;
        // What is in flight has to be found in this one if the bridge dies.
        let before = self.lanes.last().filter(|lane| lane.is_settled_to_line());
        let before = before.filter(|_| !self.is_copied_never());
        let Some((mark, before)) = before.and_then(|it| Some((it.file.line_mark()?, it))) else {
            return file;
        };
        if self.is_rotated(before.file.identity()) {
            return file;
        }
        let done = file.find_mark(&mark).and_then(|end| {
            let Some(end) = end else { return Ok(()) };
            info!(offset = end, "the new file begins with the last lines of the one before");
            file.move_to(end, max_line)
        });
        if let Err(error) = done {
            // It shows again when it is read.
            debug!(%error, "cannot compare the new file with the one before");
        }
        file
    }

    /// Of a journal's segments none is a copy of another one, however alike they are.
    pub(super) fn is_copied_never(&self) -> bool {
        self.settings.pipe.is_some()
    }
}
