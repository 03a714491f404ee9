//! Looking at the input path and reading what is there: the open file to its end, then the next.

use std::io;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::lane::{Lane, LaneState, PendingCut};
use super::missed::{HELD_MAX, LISTED_AGAIN};
use super::waiting::{InputState, Waiting};
use super::{Pipeline, Progress};
use crate::checkpoint::{Lost, LostReason};
use crate::domain::identity::Identity;
use crate::domain::ledger::Ledger;
use crate::platform::mutants::{Mutant, makes};
use crate::source::file::{self, AtPath, Cut, FollowedFile, Read};

/// How often the path is looked at without any hint: wake-ups can be lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a file that was moved away must be quiet before it counts as finished: its writer may
/// still have it open.
pub(super) const QUIET: Duration = Duration::from_mins(5);

/// How many lines a turn takes, so that reports and commits are never far behind.
const LINES_PER_TURN: usize = 2048;

/// How many blocks a turn reads, whether they hold whole lines or not.
const BLOCKS_PER_TURN: usize = 16;

/// A file that was cut may be being rewritten: its new content is looked at when its size has been the
/// same for so long, or at the latest after this time.
const CUT_SETTLES: Duration = Duration::from_millis(50);
const CUT_SETTLES_AT_MOST: Duration = Duration::from_millis(300);

/// What is left of a turn.
struct Budget {
    lines: usize,
    blocks: usize,
}

/// What is known about the input path.
pub(super) struct InputWatch {
    /// A hint came, or the timer.
    hinted: bool,
    next_look: Instant,
    /// There may be unread bytes.
    unread: bool,
    /// None before the first look.
    pub(super) state: Option<InputState>,
    pub(super) since_ms: i64,
    watch_failing: bool,
}

impl InputWatch {
    pub(super) fn new(now: Instant, now_ms: i64) -> Self {
        Self {
            hinted: true,
            next_look: now,
            unread: true,
            state: None,
            since_ms: now_ms,
            watch_failing: false,
        }
    }

    pub(super) fn look_again(&mut self) {
        self.hinted = true;
    }

    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }
}

impl Pipeline {
    /// Reads what there is and what there is room for.
    pub(super) fn read(&mut self) -> Progress {
        self.look_if_due();
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
                    index += 1;
                }
                progress => return progress,
            }
        }
        self.input.unread = false;
        Progress::CaughtUp
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
            if self.lanes[index].suspect && !self.is_cleared(index) {
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
        let lane = &mut self.lanes[index];
        if lane.state != LaneState::Superseded {
            return Progress::CaughtUp;
        }
        let quiet = self.edges.clock.now().saturating_duration_since(lane.last_data) >= QUIET;
        // Where others wait for its place, what is settled goes before its time, the oldest first.
        let early = lane.is_settled() && others_wait;
        if quiet || early || lane.is_kept || makes(Mutant::OldFileClosed) {
            self.rotations.waiting = self.rotations.waiting.saturating_sub(1);
            self.input.hinted |= early;
            info!(path = %lane.file.path().display(), early, "a file that was moved away is finished");
            finish(lane);
            self.position.moved();
            if self.lanes[index].held.is_some() {
                return Progress::More;
            }
        }
        Progress::CaughtUp
    }

    /// The content that was being read is gone; what follows is another life of the same file.
    fn on_cut(&mut self, index: usize, cut: Cut) {
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

    /// Ends a life that was cut, once its new content can be judged. False: not yet.
    fn end_cut_life(&mut self, index: usize) -> bool {
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
        // Also one that gives an error is no longer what it was.
        if lane.file.is_intact().unwrap_or(false) {
            let (cut, generation) = (pending.cut, lane.file.generation());
            let (from, to) = (cut.left.min(size).max(cut.unread.start), cut.unread.end);
            lane.file.accept_size(size);
            lane.cut = None;
            info!(from, to, "what was read is still there: reading goes on");
            self.lose(Lost { generation, from, to, reason: LostReason::TruncatedUnread });
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
            Some(_) => Some(None),
            None if settled => self.copy_of(index),
            None => None,
        };
        if (copy.is_none() || in_flight) && !last_try {
            self.input.next_look = now + CUT_SETTLES;
            return false;
        }
        if in_flight {
            next = self.lanes[index].file.next_life(max_line);
        }
        self.lanes[index].cut = None;
        let is_last = index + 1 == self.lanes.len();
        let lane = &mut self.lanes[index];
        if let Some(offset) = found {
            info!(offset, "it was cut to its last lines: reading goes on behind them");
            lane.file.forget_unfinished(max_line);
            lane.state = LaneState::Over;
        } else {
            info!("it is read from its start");
            self.finish_or_copy(index, &cut, copy.flatten());
        }
        let mut next = self.new_lane(next, Ledger::default());
        next.state = state;
        next.opened_size = 0;
        let newest = self.lanes[index].file.modified_ns();
        self.lanes.insert(index + 1, next);
        // It may have been copied and cut again before anyone looked.
        if is_last {
            self.open_unseen(newest);
        }
        self.position.moved();
        true
    }

    /// What was not read of a life that was cut is in a copy, or lost.
    fn finish_or_copy(&mut self, index: usize, cut: &Cut, copy: Option<FollowedFile>) {
        let lane = &mut self.lanes[index];
        if let Some(copy) = copy {
            info!(path = %copy.path().display(), "it was copied before: the rest is read there");
            lane.file.go_on_in(copy);
            let identity = *lane.file.identity();
            self.rotations.seen.push(identity);
            let lane = &mut self.lanes[index];
            lane.state = LaneState::Superseded;
            lane.last_data = self.edges.clock.now();
        } else {
            let generation = lane.file.generation();
            let head = lane.file.head().map_or(0, |head| u64::from(head.length));
            let between = lane.file.modified_ns()..=lane.file.changed_ns();
            finish(lane);
            let (from, to) = (cut.unread.start, cut.unread.end);
            if from > head || !self.has_unseen_of_size(to, &between) {
                self.lose(Lost { generation, from, to, reason: reason_of(cut) });
            }
        }
    }

    fn look_if_due(&mut self) {
        let now = self.edges.clock.now();
        if !self.input.hinted && now < self.input.next_look {
            return;
        }
        self.input.hinted = false;
        self.input.next_look = now + LOOK_INTERVAL;
        self.input.unread = true;
        // Also while there is no room to read: what is not read yet must be missed if it vanishes.
        for lane in self.lanes.iter_mut().filter(|lane| lane.state != LaneState::Over) {
            // An error shows when it is read.
            let _ = lane.file.refresh_size();
        }
        match self.edges.watch.arm() {
            Ok(()) => self.input.watch_failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.input.watch_failing, true) {
                    warn!(%error, "cannot watch the input's directory: looking once a second");
                }
            }
        }
        self.take_up_again();
        match file::look(self.edges.fs.as_ref(), &self.settings.input) {
            Ok(AtPath::File(identity)) => self.on_file_at_path(&identity),
            Ok(AtPath::Missing) => self.on_nothing_at_path(Waiting::Missing),
            Ok(AtPath::WrongType(kind)) => self.on_nothing_at_path(Waiting::WrongType(kind)),
            Err(error) => self.set_input(InputState::Waiting(Waiting::of(&error))),
        }
    }

    fn on_file_at_path(&mut self, identity: &Identity) {
        let is_it = |lane: &Lane| {
            lane.state != LaneState::Over && lane.file.identity().is_same_file(identity)
        };
        let Some(index) = self.lanes.iter().rposition(is_it) else {
            self.supersede("the input was replaced: it is read to its end, then the new file");
            self.open_live();
            return;
        };
        if self.lanes[index].state != LaneState::Live {
            // Moved back: what stood at the path meanwhile, or before that, is older now.
            if let Some(known) = self.remembered.take() {
                self.take_up(&known, LostReason::MovedAway);
                self.read_next_life(&known);
            }
            let Some(index) = self.lanes.iter().rposition(is_it) else { return };
            self.supersede("the input was replaced by a file that stood here before");
            let mut lane = self.lanes.remove(index);
            (lane.state, lane.suspect) = (LaneState::Live, false);
            self.lanes.push(lane);
            self.position.moved();
        }
        self.open_what_came();
        if self.lanes.last().is_some_and(|live| live.failing.is_none()) {
            self.set_input(InputState::Following);
        }
    }

    fn on_nothing_at_path(&mut self, why: Waiting) {
        self.supersede("the input was moved away or deleted: it is read to its end");
        self.open_what_came();
        self.set_input(InputState::Waiting(why));
    }

    /// The live lane's file is no longer at the path; its writer may still append to it.
    fn supersede(&mut self, message: &str) {
        let now = self.edges.clock.now();
        for lane in self.lanes.iter_mut().filter(|lane| lane.state == LaneState::Live) {
            info!(position = lane.file.position(), "{message}");
            lane.state = LaneState::Superseded;
            lane.last_data = now;
        }
    }

    /// Opens the file at the path, and before it those that stood there since the last look.
    fn open_live(&mut self) {
        for _ in 0..LISTED_AGAIN {
            let newest = self.lanes.last().map_or(i64::MIN, |lane| lane.file.modified_ns());
            if self.remembered.is_none() && !self.open_unseen(newest) {
                // And a place for the file at the path.
                self.rotations.waiting += 1;
                return;
            }
            let (fs, path) = (self.edges.fs.as_ref(), &self.settings.input);
            match FollowedFile::open(fs, path, self.settings.max_line_bytes, None) {
                // It may be a later one than stood there when the others were listed.
                Ok(Some(file)) if self.remembered.is_none() && self.has_unseen_besides(&file) => {}
                Ok(Some(file)) => {
                    self.follow(file);
                    return;
                }
                Ok(None) => break,
                Err(error) => {
                    self.set_input(InputState::Waiting(Waiting::of(&error)));
                    return;
                }
            }
        }
        // Gone again, another thing by now, or rotated all the time: the next look tells.
        self.input.hinted = true;
    }

    /// Follows the file at the path, which was not known so far.
    fn follow(&mut self, file: FollowedFile) {
        if let Some(known) = self.remembered.take() {
            let newest = known.modified_ns;
            self.adopt(file, &known, newest);
        } else if let Some(mut file) = self.go_on_in_place(file) {
            if let Some(before) = self.lanes.last() {
                self.skip_what_was_read(&mut file, before);
            }
            let path = self.settings.input.display();
            info!(%path, offset = file.position(), "following a new file");
            self.add_lane(file, Ledger::default());
            // It came while the daemon ran: reading it is no catching up.
            if let Some(lane) = self.lanes.last_mut() {
                lane.opened_size = 0;
            }
        }
        self.set_input(InputState::Following);
    }

    /// Adds a lane for a file that was just opened.
    pub(super) fn add_lane(&mut self, file: FollowedFile, ledger: Ledger) {
        let lane = self.new_lane(file, ledger);
        self.lanes.push(lane);
        self.position.moved();
    }

    pub(super) fn new_lane(&mut self, file: FollowedFile, ledger: Ledger) -> Lane {
        let key = self.next_lane;
        self.next_lane += 1;
        self.saw(&file);
        Lane::new(key, file, ledger, self.edges.clock.now())
    }

    /// Records a change of state, and logs it once.
    pub(super) fn set_input(&mut self, state: InputState) {
        if self.input.state.as_ref() == Some(&state) {
            return;
        }
        let path = self.settings.input.display().to_string();
        match &state {
            InputState::Following => {
                info!(
                    path,
                    size = self.lanes.last().map(|lane| lane.file.size()),
                    "following the input"
                );
            }
            InputState::Waiting(Waiting::Missing) => {
                info!(path, reason = "missing", "waiting for the input: it does not exist yet");
            }
            InputState::Waiting(Waiting::WrongType(kind)) => {
                error!(
                    path,
                    reason = "wrong_type",
                    found = kind.as_str(),
                    "waiting for the input: it is not a regular file"
                );
            }
            InputState::Waiting(why) => {
                let detail = if let Waiting::Io(detail) = why { detail } else { "" };
                error!(
                    path,
                    reason = why.as_str(),
                    detail,
                    "waiting for the input: it can't be read"
                );
            }
        }
        self.input.state = Some(state);
        self.input.since_ms = self.edges.clock.unix_ms();
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

/// Ends a life: nothing more is read, and its unfinished line is a line of its own now.
fn finish(lane: &mut Lane) {
    lane.state = LaneState::Over;
    lane.held = lane.file.finish();
}
