//! Reading what is there: lane by lane, the oldest first, as far as a turn and the limits allow.

use std::io;

use tracing::{error, info};

use super::lane::{Lane, LaneState, QUIET};
use super::rotations::HELD_MAX;
use super::waiting::{InputState, Waiting};
use super::{Pipeline, Progress};
use crate::platform::mutants::{Mutant, makes};
use crate::source::file::Read;

/// How many lines a turn takes, so that reports and commits are never far behind.
const LINES_PER_TURN: usize = 2048;

/// How many blocks a turn reads, whether they hold whole lines or not.
const BLOCKS_PER_TURN: usize = 16;

/// What is left of a turn.
struct Budget {
    lines: usize,
    blocks: usize,
}

impl Pipeline {
    /// Reads what there is and what there is room for.
    pub(super) fn read(&mut self) -> Progress {
        self.look_if_due();
        self.send_requeued();
        if !self.input.unread {
            return Progress::NothingToRead;
        }
        let mut budget = Budget { lines: LINES_PER_TURN, blocks: BLOCKS_PER_TURN };
        let mut index = 0;
        // A cut adds a lane behind the one that was cut.
        while index < self.lanes.len() {
            let newest_first = makes(Mutant::NewFileFirst);
            let lane = if newest_first { self.lanes.len() - 1 - index } else { index };
            let key = self.lanes[index].key;
            if self.lanes[index].after_pipe.is_some() {
                index += 1;
                continue;
            }
            match self.read_lane(lane, &mut budget) {
                Progress::CaughtUp | Progress::NothingToRead => {
                    // It is gone if it was only a copy.
                    let Some(lane) = self.lanes.get(index).filter(|lane| lane.key == key) else {
                        continue;
                    };
                    // What follows a cut comes after what was cut.
                    if lane.cut.is_some() {
                        return Progress::NothingToRead;
                    }
                    if self.holds_back_others(index) {
                        break;
                    }
                    index += 1;
                }
                progress => return progress,
            }
        }
        // What waits for another lane is read once that is settled.
        self.input.unread = self.lanes.iter().any(|lane| lane.follows.is_some());
        self.read_after_pipe()
    }

    /// Whether what comes before a lane, in another one, is not settled yet.
    fn is_too_early(&mut self, index: usize) -> bool {
        let Some((before, end)) = self.lanes[index].follows else { return false };
        let waits_for =
            |lane: &Lane| lane.key == before && lane.settled() < end && !lane.is_done_so_far();
        let waits = self.lanes.iter().any(waits_for);
        self.lanes[index].follows = Some((before, end)).filter(|_| waits);
        waits
    }

    /// Whether the lanes behind this one have to wait, because one before them waits for another one to be
    /// settled. Not where that can't be read: it may never be.
    fn holds_back_others(&self, index: usize) -> bool {
        let lanes = &self.lanes[..=index];
        let is_there = |key| lanes.iter().any(|lane| lane.key == key && lane.failing.is_none());
        lanes.iter().filter_map(|lane| lane.follows).any(|(before, _)| is_there(before))
    }

    /// Reads one lane to its end, as far as the turn and the limits allow.
    fn read_lane(&mut self, index: usize, budget: &mut Budget) -> Progress {
        loop {
            while let Some(lane) = self.lanes.get_mut(index) {
                let Some(frame) = lane.held.take().or_else(|| lane.file.next_frame()) else {
                    break;
                };
                let whole = lane.state != LaneState::Over;
                if self.take_line(index, frame, whole) == Progress::Full {
                    return Progress::Full;
                }
                budget.lines = budget.lines.saturating_sub(1);
                if budget.lines == 0 {
                    return Progress::More;
                }
            }
            if self.is_too_early(index) || (self.lanes[index].suspect && !self.is_cleared(index)) {
                return Progress::CaughtUp;
            }
            let lane = &mut self.lanes[index];
            if lane.state == LaneState::Over {
                return Progress::CaughtUp;
            }
            if lane.cut.is_some() {
                if self.end_cut_life(index) {
                    continue;
                }
                return Progress::CaughtUp;
            }
            // A line without an end, or a hole, is no reason to leave others unserved.
            if budget.blocks == 0 {
                return Progress::More;
            }
            let read = lane.file.read();
            if read.is_ok() {
                lane.failures = 0;
            }
            if read.is_ok() && lane.failing.take().is_some() && lane.state == LaneState::Live {
                self.set_input(InputState::Following);
            }
            match read {
                Ok(Read::Data) => {
                    // Only these count: of any number of files with nothing new, each is asked.
                    budget.blocks -= 1;
                    self.lanes[index].last_data = self.edges.clock.now();
                }
                Ok(Read::End) => return self.at_end(index),
                Ok(Read::Cut(cut)) => self.on_cut(index, cut),
                Err(error) => {
                    self.on_read_failed(index, &error);
                    return Progress::CaughtUp;
                }
            }
        }
    }

    fn on_read_failed(&mut self, index: usize, error: &io::Error) {
        let lane = &mut self.lanes[index];
        let why = Waiting::of(error);
        let told = lane.failing.replace(why.clone()).is_some();
        lane.failures += 1;
        if lane.state == LaneState::Live {
            self.set_input(InputState::Waiting(why));
        } else if !told {
            error!(%error, "a file that was moved away can't be read; trying on");
        }
    }

    /// A file that was moved away is finished once it has been quiet for long.
    fn at_end(&mut self, index: usize) -> Progress {
        let others_wait =
            self.rotations.waiting > 0 || (!self.untaken.is_empty() && self.held() >= HELD_MAX);
        let stands = self.is_where_pipe_was(self.lanes[index].file.identity());
        let lane = &mut self.lanes[index];
        if lane.state != LaneState::Superseded || stands {
            return Progress::CaughtUp;
        }
        let quiet = self.edges.clock.now().saturating_duration_since(lane.last_data) >= QUIET
            && lane.is_settled_to_line();
        // Where others wait for its place, what is settled goes before its time, the oldest first.
        let early = lane.is_settled() && others_wait;
        // Nobody writes to a segment that the journal has ended.
        let over = lane.is_kept
            || (self.settings.pipe.is_some() && self.settings.is_segment(lane.file.path()));
        if quiet || early || over || makes(Mutant::OldFileClosed) {
            self.rotations.waiting = self.rotations.waiting.saturating_sub(1);
            if early {
                self.input.look_again();
            }
            info!(path = %lane.file.path().display(), early, "a file that was moved away is finished");
            lane.finish();
            self.position.moved();
            if self.lanes[index].held.is_some() {
                return Progress::More;
            }
        }
        Progress::CaughtUp
    }
}
