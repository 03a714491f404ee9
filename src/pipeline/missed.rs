//! Lives of the input that came and went before anyone looked: opened, read, or told as lost.

use std::io;
use std::ops::RangeInclusive;

use tracing::{error, info, warn};

use super::Pipeline;
use super::copies::Content;
use super::lane::{Lane, LaneState};
use super::rotations::HELD_MAX;
use crate::checkpoint::{Lost, LostReason};
use crate::domain::ledger::Ledger;
use crate::domain::rotation::{self, Packing};
use crate::source::file::FollowedFile;
use crate::source::siblings::{Moved, RotatedSibling, Siblings};

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
}
