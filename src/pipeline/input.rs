//! Looking at the input path and reading what is there: the open file to its end, then the next.

use std::io;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::lane::{Lane, LaneState};
use super::{Pipeline, Progress};
use crate::checkpoint::{Lost, LostReason};
use crate::domain::identity::Identity;
use crate::domain::ledger::Ledger;
use crate::domain::position::Span;
use crate::platform::fs::FileKind;
use crate::platform::mutants::{Mutant, makes};
use crate::source::file::{self, AtPath, Cut, FollowedFile, Read};

/// How often the path is looked at without any hint: wake-ups can be lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a file that was moved away must be quiet before it counts as finished: its writer may
/// still have it open.
const QUIET: Duration = Duration::from_mins(5);

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
    unread: bool,
    /// None before the first look.
    pub(super) state: Option<InputState>,
    pub(super) since_ms: i64,
    watch_failing: bool,
}

/// Whether there is an input to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputState {
    /// A file is open and followed.
    Following,
    /// There is none, for this reason.
    Waiting(Waiting),
}

/// Why there is no input to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nothing is at the path.
    Missing,
    /// Something that can't be followed is at the path.
    WrongType(FileKind),
    /// The file, or a directory on the way, can't be read.
    PermissionDenied,
    /// Another error.
    Io(String),
}

impl Waiting {
    /// The contract's name.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongType(_) => "wrong_type",
            Self::PermissionDenied => "permission_denied",
            Self::Io(_) => "io_error",
        }
    }

    fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Self::PermissionDenied
        } else {
            Self::Io(error.to_string())
        }
    }
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
            match self.read_lane(lane, &mut budget) {
                Progress::CaughtUp | Progress::NothingToRead => index += 1,
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
            let lane = &mut self.lanes[index];
            if lane.state == LaneState::Over {
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
                Ok(Read::Shrunk(unread)) => self.on_shrunk(index, unread),
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
        let lane = &mut self.lanes[index];
        let quiet = self.edges.clock.now().saturating_duration_since(lane.last_data) >= QUIET;
        let quiet = quiet || makes(Mutant::OldFileClosed);
        if lane.state == LaneState::Superseded && quiet {
            finish(lane);
            self.position.moved();
            if self.lanes[index].held.is_some() {
                return Progress::More;
            }
        }
        Progress::CaughtUp
    }

    /// Bytes that were not read are gone; the life goes on with what may follow in their place.
    fn on_shrunk(&mut self, index: usize, unread: Span) {
        let generation = self.lanes[index].file.generation();
        let (from, to, reason) = (unread.start, unread.end, LostReason::TruncatedUnread);
        self.lose(Lost { generation, from, to, reason });
    }

    /// The content that was being read is gone; what follows is another life of the same file.
    fn on_cut(&mut self, index: usize, cut: Cut) {
        let lane = &mut self.lanes[index];
        let reason =
            if cut.truncated { LostReason::TruncatedUnread } else { LostReason::Rewritten };
        warn!(
            position = cut.unread.start,
            reason = if cut.truncated { "truncated" } else { "rewritten in place" },
            "the input was cut: its new content is read from the start"
        );
        // From the open file: its path may name another one by now.
        let next = lane.file.next_life(self.settings.max_line_bytes);
        let (state, generation) = (lane.state, lane.file.generation());
        finish(lane);
        let mut next = self.new_lane(next, Ledger::default());
        next.state = state;
        next.opened_size = 0;
        self.lanes.insert(index + 1, next);
        let (from, to) = (cut.unread.start, cut.unread.end);
        self.lose(Lost { generation, from, to, reason });
        self.position.moved();
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
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            if lane.state == LaneState::Over {
                continue;
            }
            // An error shows when it is read.
            let _ = lane.file.refresh_size();
            if let Some(vanished) = lane.file.take_vanished() {
                self.on_shrunk(index, vanished);
            }
        }
        match self.edges.watch.arm() {
            Ok(()) => self.input.watch_failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.input.watch_failing, true) {
                    warn!(%error, "cannot watch the input's directory: looking once a second");
                }
            }
        }
        match file::look(self.edges.fs.as_ref(), &self.settings.input) {
            Ok(AtPath::File(identity)) => self.on_file_at_path(&identity),
            Ok(AtPath::Missing) => self.on_nothing_at_path(Waiting::Missing),
            Ok(AtPath::WrongType(kind)) => self.on_nothing_at_path(Waiting::WrongType(kind)),
            Err(error) => self.set_input(InputState::Waiting(Waiting::of(&error))),
        }
    }

    fn on_file_at_path(&mut self, identity: &Identity) {
        let open = self.lanes.iter().rposition(|lane| {
            lane.state != LaneState::Over && lane.file.identity().is_same_file(identity)
        });
        let Some(index) = open else {
            self.supersede("the input was replaced: it is read to its end, then the new file");
            self.open_live();
            return;
        };
        if self.lanes[index].state != LaneState::Live {
            // Moved back: what stood at the path meanwhile is older now.
            self.supersede("the input was replaced by a file that stood here before");
            let mut lane = self.lanes.remove(index);
            lane.state = LaneState::Live;
            self.lanes.push(lane);
            self.position.moved();
        }
        if self.lanes.last().is_some_and(|live| live.failing.is_none()) {
            self.set_input(InputState::Following);
        }
    }

    fn on_nothing_at_path(&mut self, why: Waiting) {
        self.supersede("the input was moved away or deleted: it is read to its end");
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

    /// Opens the file at the path from its start.
    fn open_live(&mut self) {
        let (fs, path) = (self.edges.fs.as_ref(), &self.settings.input);
        match FollowedFile::open(fs, path, self.settings.max_line_bytes, None) {
            Ok(Some(file)) => {
                if let Some(known) = self.remembered.take() {
                    self.adopt(file, &known);
                } else {
                    let path = self.settings.input.display();
                    info!(%path, "following a new file from its start");
                    self.add_lane(file, Ledger::default());
                    // It came while the daemon ran: reading it is no catching up.
                    if let Some(lane) = self.lanes.last_mut() {
                        lane.opened_size = 0;
                    }
                }
                self.set_input(InputState::Following);
            }
            // Gone again, or another thing by now: the next look tells.
            Ok(None) => self.input.hinted = true,
            Err(error) => self.set_input(InputState::Waiting(Waiting::of(&error))),
        }
    }

    /// Adds a lane for a file that was just opened.
    pub(super) fn add_lane(&mut self, file: FollowedFile, ledger: Ledger) {
        let lane = self.new_lane(file, ledger);
        self.lanes.push(lane);
        self.position.moved();
    }

    fn new_lane(&mut self, file: FollowedFile, ledger: Ledger) -> Lane {
        let key = self.next_lane;
        self.next_lane += 1;
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

/// Ends a life: nothing more is read, and its unfinished line is a line of its own now.
fn finish(lane: &mut Lane) {
    lane.state = LaneState::Over;
    lane.held = lane.file.finish();
}
