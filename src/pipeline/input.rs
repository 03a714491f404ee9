//! Looking at the input path and reading what is there: the open file to its end, then the next.

use std::io;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::lane::{Lane, LaneState};
use super::missed::{HELD_MAX, LISTED_AGAIN};
use super::waiting::{InputState, Waiting};
use super::{Pipeline, Progress};
use crate::checkpoint::LostReason;
use crate::domain::identity::Identity;
use crate::domain::ledger::Ledger;
use crate::platform::fs::FileKind;
use crate::platform::mutants::{Mutant, makes};
use crate::source::file::{self, AtPath, FollowedFile, Read};

/// How often the path is looked at without any hint: wake-ups can be lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The same while something is waited for that nobody tells.
const SOON: Duration = Duration::from_millis(20);

/// How long a file that was moved away must be quiet before it counts as finished: its writer may
/// still have it open.
pub(super) const QUIET: Duration = Duration::from_mins(5);

/// How many lines a turn takes, so that reports and commits are never far behind.
const LINES_PER_TURN: usize = 2048;

/// How many blocks a turn reads, whether they hold whole lines or not.
const BLOCKS_PER_TURN: usize = 16;

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
    pub(super) unread: bool,
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

    /// There may be something to be seen at this time.
    pub(super) fn look_at(&mut self, at: Instant) {
        self.next_look = self.next_look.min(at);
    }

    /// There is something that is waited for.
    pub(super) fn look_soon(&mut self, now: Instant) {
        self.look_at(now + SOON);
    }

    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }
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
            self.input.hinted |= early;
            info!(path = %lane.file.path().display(), early, "a file that was moved away is finished");
            lane.finish();
            self.position.moved();
            if self.lanes[index].held.is_some() {
                return Progress::More;
            }
        }
        Progress::CaughtUp
    }

    fn look_if_due(&mut self) {
        let now = self.edges.clock.now();
        if !self.input.hinted && now < self.input.next_look {
            return;
        }
        self.input.hinted = false;
        self.input.next_look = now + LOOK_INTERVAL;
        self.input.unread = true;
        self.see_how_far_pipe_is();
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
            Ok(AtPath::WrongType(FileKind::Fifo)) => self.on_pipe_at_path(),
            Ok(AtPath::WrongType(kind)) => self.on_nothing_at_path(Waiting::WrongType(kind)),
            Err(error) => self.set_input(InputState::Waiting(Waiting::of(&error))),
        }
        self.look_where_pipe_was();
        self.wait_for_copies();
        self.lose_what_vanished_again();
        self.store_deleted();
    }

    /// What came to a file behind what its copy has, which took its place, comes after that, also where a
    /// start found both.
    fn wait_for_copies(&mut self) {
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            let Some(after) = lane.file.after() else { continue };
            let mut behind = self.lanes[index + 1..].iter();
            let copy = behind.find(|it| it.file.generation() == Some(after));
            if let Some(copy) = copy.filter(|_| lane.is_unread()) {
                self.lanes[index].follows = Some((copy.key, lane.began));
            }
        }
    }

    fn on_file_at_path(&mut self, identity: &Identity) {
        self.leaving &= self.settings.pipe.is_some();
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
            }
            let Some(index) = self.lanes.iter().rposition(is_it) else { return };
            self.supersede("the input was replaced by a file that stood here before");
            let mut lane = self.lanes.remove(index);
            (lane.state, lane.suspect) = (LaneState::Live, false);
            self.lanes.push(lane);
            self.position.moved();
        }
        self.open_again(identity);
        self.open_what_came();
        if self.lanes.last().is_some_and(|live| live.failing.is_none()) {
            self.set_input(InputState::Following);
        }
    }

    /// The open descriptor leads to what was there when it was opened. A copy of its disk may be there by
    /// now, or another disk in the place of one that failed: the same inode on another device.
    fn open_again(&mut self, identity: &Identity) {
        let Some(live) = self.lanes.last_mut() else { return };
        // One failed read may heal where it is.
        if live.file.identity().dev == identity.dev && live.failures < 2 {
            return;
        }
        let (fs, path) = (self.edges.fs.as_ref(), &self.settings.input);
        let again = FollowedFile::open(fs, path, self.settings.max_line_bytes, None);
        let Ok(Some(again)) = again else { return };
        let is_other_device = live.file.identity().dev != identity.dev;
        match live.file.open_again(again) {
            Ok(true) => {
                debug!(position = live.file.position(), "the input was opened again");
                self.position.moved();
            }
            Ok(false) if is_other_device => {
                self.supersede("another disk with another content is there: it is read to its end");
                self.open_live();
            }
            // It is told where it is read.
            Ok(false) | Err(_) => {}
        }
    }

    fn on_nothing_at_path(&mut self, why: Waiting) {
        self.supersede("the input was moved away or deleted: it is read to its end");
        self.open_what_came();
        self.set_input(InputState::Waiting(why));
    }

    /// What is left of the file comes before what the pipe brings, which is followed in another way.
    fn on_pipe_at_path(&mut self) {
        self.leaving = true;
        self.supersede("a named pipe took the input's place: what came before it is read first");
        if let Some(known) = self.remembered.take_if(|known| known.offset < known.size) {
            self.take_up(&known, LostReason::MovedAway);
        }
        self.open_what_came();
    }

    /// The live lane's file is no longer at the path; its writer may still append to it.
    pub(super) fn supersede(&mut self, message: &str) {
        let message = if self.settings.pipe.is_some() { "the segment is full" } else { message };
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
        } else if let Some(file) = self.go_on_in_place(file) {
            let file = self.skip_what_was_read(file);
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
        let after_pipe = self.comes_after_pipe(&file);
        let mut lane = Lane::new(key, file, ledger, self.edges.clock.now());
        lane.after_pipe = after_pipe;
        lane
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
