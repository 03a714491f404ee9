//! Looking at the input path: the file that stands there is followed, what stood there before is read first.

use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::Pipeline;
use super::lane::{Lane, LaneState};
use super::rotations::LISTED_AGAIN;
use super::waiting::{InputState, Waiting};
use crate::checkpoint::LostReason;
use crate::domain::identity::Identity;
use crate::domain::ledger::Ledger;
use crate::platform::fs::FileKind;
use crate::source::file::{self, AtPath, FollowedFile};

/// How often the path is looked at without any hint: wake-ups can be lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The same while something is waited for that nobody tells.
const SOON: Duration = Duration::from_millis(20);

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
    /// Looks at the path and at what is open, after a hint or when it is time to.
    pub(super) fn look_if_due(&mut self) {
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
