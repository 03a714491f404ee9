//! Content that was cut: what came in its place, and where the rest of it is.

use std::io;
use std::time::Duration;

use tracing::{info, warn};

use super::Pipeline;
use super::copies::Copy;
use super::lane::{Lane, LaneState, PendingCut};
use crate::checkpoint::{Lost, LostReason};
use crate::domain::identity::Identity;
use crate::domain::ledger::Ledger;
use crate::source::file::{Cut, FollowedFile, Read};

/// A file that was cut may be being rewritten: its new content is looked at when its size has been the
/// same for so long, or at the latest after this time.
const CUT_SETTLES: Duration = Duration::from_millis(50);
const CUT_SETTLES_AT_MOST: Duration = Duration::from_millis(300);

impl Pipeline {
    /// The content that was being read is gone; what follows is another life of the same file.
    pub(super) fn on_cut(&mut self, index: usize, cut: Cut) {
        warn!(
            position = cut.unread.start,
            reason = reason_of(&cut).as_str(),
            "the input was cut: its content is another one now"
        );
        let now = self.edges.clock.now();
        let lane = &mut self.lanes[index];
        let size = lane.file.size();
        lane.cut = Some(PendingCut { cut, began: now, size, since: now });
    }

    /// Judges without waiting what was cut, also where nobody has noticed it because nothing was read. To be called when
    /// all lines in memory are taken.
    pub(super) fn end_cut_life_now(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.cut.is_none()
            && let Ok(Read::Cut(cut)) = lane.file.read()
        {
            self.on_cut(index, cut);
        }
        let long_ago = self.edges.clock.now().checked_sub(CUT_SETTLES_AT_MOST);
        if let (Some(cut), Some(long_ago)) = (&mut self.lanes[index].cut, long_ago) {
            cut.began = long_ago;
            self.end_cut_life(index);
        }
    }

    /// Ends a life that was cut, once its new content can be judged. False: not yet.
    pub(super) fn end_cut_life(&mut self, index: usize) -> bool {
        let (now, max_line) = (self.edges.clock.now(), self.settings.max_line_bytes);
        let lane = &mut self.lanes[index];
        let Some(pending) = &mut lane.cut else { return true };
        // From the open file: its path may name another one by now.
        let mut next = lane.file.next_life(max_line);
        // An error shows again when it is read.
        let size = next.refresh_size().unwrap_or(pending.size);
        if size != pending.size {
            (pending.size, pending.since) = (size, now);
        }
        // What comes meanwhile, and goes again, nobody will have read.
        let _ = lane.file.refresh_size();
        // Also one that gives an error is no longer what it was.
        if lane.file.is_intact().unwrap_or(false) {
            let cut = pending.cut;
            self.go_on_with_less(index, &cut, size);
            return true;
        }
        let last_try = now >= pending.began + CUT_SETTLES_AT_MOST;
        let settled = now >= pending.since + CUT_SETTLES || last_try;
        let (cut, state) = (pending.cut, lane.state);
        let found = go_on_behind_mark(&lane.file, &mut next, max_line).unwrap_or(None);
        // What is in flight is among those lines, and would not be found behind them if the bridge died.
        let in_flight = found.is_some() && !lane.is_settled_to_line();
        let found = found.filter(|_| !in_flight);
        let copy = match found {
            Some(_) => Some(Copy::Nowhere),
            None if settled => self.copy_of(index),
            None => None,
        };
        if (copy.is_none() || in_flight) && !last_try {
            self.input.look_at(now + CUT_SETTLES);
            return false;
        }
        if in_flight {
            next = self.lanes[index].file.next_life(max_line);
        }
        let index = match &copy {
            Some(Copy::At(copy)) => self.take_over(index, copy.identity()),
            _ => index,
        };
        self.lanes[index].cut = None;
        // As `shred` does.
        if state == LaneState::Superseded && !next.is_text().unwrap_or(true) {
            info!(
                "a file that was moved away was overwritten with what is no text: it is finished"
            );
            self.finish_or_copy(index, &cut, copy.unwrap_or(Copy::Nowhere));
            self.position.moved();
            return true;
        }
        let is_last = index + 1 == self.lanes.len();
        let lane = &mut self.lanes[index];
        if let Some(offset) = found {
            info!(offset, "it was cut to its last lines: reading goes on behind them");
            lane.file.forget_unfinished(max_line);
            lane.state = LaneState::Over;
            // What was to be read stands behind them now; or they are all that is left.
            let (generation, line_start) = (lane.file.generation(), lane.file.line_start());
            // If they stand where they stood, it was cut behind them.
            let behind = if offset == line_start { 0 } else { size.saturating_sub(offset) };
            let from = line_start + behind;
            let (to, reason) = (cut.unread.end, LostReason::TruncatedUnread);
            self.lose(Lost { generation, from: from.min(to), to, reason });
        } else {
            info!("it is read from its start");
            self.finish_or_copy(index, &cut, copy.unwrap_or(Copy::Nowhere));
        }
        let newest = self.lanes[index].file.modified_ns();
        self.begin_life(index, next, state);
        // It may have been copied and cut again before anyone looked.
        if is_last {
            self.open_unseen(newest);
        }
        self.position.moved();
        true
    }

    /// Adds a lane for what came in the place of what was cut, behind the copies of it that wait for that.
    fn begin_life(&mut self, index: usize, next: FollowedFile, state: LaneState) {
        let key = self.lanes[index].key;
        let waits = |lane: &mut Lane| lane.follows.is_some_and(|(before, _)| before == key);
        let copies: Vec<Lane> = self.lanes.extract_if(..index, waits).collect();
        let behind = index + 1 - copies.len();
        let mut next = self.new_lane(next, Ledger::default());
        (next.state, next.opened_size) = (state, 0);
        self.lanes.splice(behind..behind, copies.into_iter().chain([next]));
    }

    /// What came in the place of content that was cut, and was cut too before anyone could read it, is in a
    /// copy that was opened by now, or lost.
    pub(super) fn lose_what_vanished_again(&mut self) {
        for index in 0..self.lanes.len() {
            let Some(vanished) = self.lanes[index].file.take_vanished() else { continue };
            let (from, to) = (vanished.span.start, vanished.span.end);
            if !self.has_unseen_of_size(to, &vanished.between) {
                let reason = LostReason::TruncatedUnread;
                self.lose(Lost { generation: None, from, to, reason });
            }
        }
    }

    /// What was read is still there; what followed it may not be.
    fn go_on_with_less(&mut self, index: usize, cut: &Cut, size: u64) {
        let lane = &mut self.lanes[index];
        let generation = lane.file.generation();
        let to = cut.unread.end;
        let from = cut.left.min(size).clamp(cut.unread.start, to);
        lane.file.accept_size(size);
        lane.cut = None;
        info!(from, to, "what was read is still there: reading goes on");
        self.lose(Lost { generation, from, to, reason: LostReason::TruncatedUnread });
    }

    /// A copy in which this lane goes on is not read by another one, which waited to know what it is.
    /// Where the lane is then.
    fn take_over(&mut self, index: usize, copy: &Identity) -> usize {
        let is_copy = |lane: &Lane| lane.suspect && lane.file.identity().is_same_file(copy);
        let before = self.lanes[..index].iter().filter(|lane| is_copy(lane)).count();
        self.lanes.retain(|lane| !is_copy(lane));
        index - before
    }

    /// What was not read of a life that was cut is in a copy, or lost.
    fn finish_or_copy(&mut self, index: usize, cut: &Cut, copy: Copy) {
        let now = self.edges.clock.now();
        let lane = &mut self.lanes[index];
        if let Copy::At(copy) = copy {
            info!(path = %copy.path().display(), "it was copied before: the rest is read there");
            self.rotations.seen.add(*copy.identity());
            lane.file.go_on_in(*copy);
            (lane.state, lane.last_data) = (LaneState::Superseded, now);
            // It was made when there was less.
            let (generation, reason) = (lane.file.generation(), reason_of(cut));
            let to = cut.unread.end;
            let from = lane.file.whole_size().unwrap_or(to).clamp(cut.unread.start, to);
            self.lose(Lost { generation, from, to, reason });
            return;
        }
        let generation = lane.file.generation();
        let head = lane.file.head().map_or(0, |head| u64::from(head.length));
        let between = lane.file.modified_ns()..=lane.file.changed_ns();
        lane.finish();
        if matches!(copy, Copy::Read) {
            info!("it was copied before: the rest is read there already");
            return;
        }
        let (from, to) = (cut.unread.start, cut.unread.end);
        if from > head || !self.has_unseen_of_size(to, &between) {
            self.lose(Lost { generation, from, to, reason: reason_of(cut) });
        }
    }
}

/// Moves a new life of the same file behind the last lines of the old one, if it begins with them.
fn go_on_behind_mark(
    old: &FollowedFile,
    next: &mut FollowedFile,
    max_line: usize,
) -> io::Result<Option<u64>> {
    let Some(mark) = old.line_mark() else { return Ok(None) };
    let Some(end) = next.find_mark(&mark)? else { return Ok(None) };
    next.move_to(end, max_line)?;
    Ok(Some(end))
}

fn reason_of(cut: &Cut) -> LostReason {
    if cut.truncated { LostReason::TruncatedUnread } else { LostReason::Rewritten }
}
