//! Going on where the last run stopped.

use std::io;
use std::path::Path;
use std::time::Instant;

use tracing::{error, info};

use super::beside_pipe::BesidePipe;
use super::input::InputWatch;
use super::lane::Lane;
use super::moved::{TakenUp, known_of};
use super::position::PositionKeeper;
use super::report::Reporter;
use super::requeue::Requeue;
use super::rotations::Rotations;
use super::waiting::InputState;
use super::{Edges, Pipeline, Settings};
use crate::checkpoint::{Checkpoint, GenerationState, Lost, LostReason};
use crate::domain::acks::AckTracker;
use crate::domain::identity::{Fingerprint, Resume};
use crate::domain::ledger::Ledger;
use crate::platform::fs::Fs;
use crate::source::file::{AtPath, FollowedFile, Known, look};
use crate::telemetry::snapshot::{Counted, Reasons};

/// Where the first start begins to read a file that already has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At its first byte.
    Beginning,
    /// Just after its last LF.
    End,
}

/// What a start knows of the past.
#[derive(Debug)]
pub enum Start {
    /// Nothing: this is the first start with this state directory.
    First,
    /// The last position.
    From(Box<Checkpoint>),
    /// There was a position, but no copy of it is readable.
    Unreadable,
}

/// What stands at the input path, compared with what is known.
enum Found {
    /// The same content: it goes on at the offset.
    Same,
    /// Its last lines, which end here: it goes on behind them.
    Its(u64),
    /// Another one. What was not read of the one that is known is lost for this reason, if it is
    /// nowhere else.
    Another(LostReason),
}

impl Pipeline {
    /// A pipeline that goes on from `start`. Nothing is read before [`Pipeline::turn`].
    pub fn new(settings: Settings, edges: Edges, start: &Start) -> Self {
        let (now, now_ms) = (edges.clock.now(), edges.clock.unix_ms());
        let mut checkpoint = match start {
            Start::From(checkpoint) => Some((**checkpoint).clone()),
            Start::First | Start::Unreadable => None,
        };
        let switched = checkpoint
            .as_mut()
            .is_some_and(|checkpoint| checkpoint.enter_mode(settings.mode, now_ms));
        let first = checkpoint.is_none();
        let mut pipeline = Self {
            lanes: Vec::new(),
            remembered: None,
            rotations: Rotations::default(),
            beside_pipe: BesidePipe::default(),
            untaken: Vec::new(),
            next_lane: 0,
            tracker: AckTracker::new(settings.in_flight),
            ledger: Ledger::default(),
            closed: checkpoint
                .as_ref()
                .map_or_else(Ledger::default, |checkpoint| checkpoint.closed),
            lost: checkpoint.as_ref().map(|checkpoint| checkpoint.lost.clone()).unwrap_or_default(),
            input: InputWatch::new(now, now_ms),
            position: PositionKeeper::new(checkpoint.as_ref(), switched || first, first, now_ms),
            outcomes: Vec::new(),
            turn_ms: now_ms,
            turn_us: 0,
            began: now,
            counted: Counted::default(),
            reasons: Reasons::default(),
            lines_behind_watermark: 0,
            stopping: false,
            leaving: false,
            left: false,
            rejects_failing: None,
            counted_buffer: None,
            rejects_untold: 0,
            rejects_told: None,
            requeue: Requeue::new(checkpoint.as_ref()),
            reporter: Reporter::new(edges.latest.clone(), settings.state_dir.clone(), now_ms),
            settings,
            edges,
        };
        if let Some(checkpoint) = &checkpoint {
            pipeline.go_on(checkpoint);
        }
        pipeline.take_kept(checkpoint.as_ref());
        pipeline.take_stored();
        if checkpoint.is_none() {
            pipeline.begin(matches!(start, Start::First));
        }
        pipeline.remember_rotated();
        pipeline.ledger = pipeline.settled_so_far();
        pipeline
    }

    /// The first start, or one that lost its position.
    fn begin(&mut self, first: bool) {
        let from_end = first && self.settings.start_at == StartAt::End;
        // Which of them were delivered, nobody knows. Of a journal everything is this daemon's to deliver. Where
        // they find no place, the file at the path waits for them.
        if (!first || self.settings.pipe.is_some()) && !self.open_unseen(i64::MIN) {
            return;
        }
        let Some(mut file) = self.open_at_start() else { return };
        let max_line = self.settings.max_line_bytes;
        if from_end && let Err(error) = file.move_to_line_end(u64::MAX, max_line) {
            error!(%error, "cannot find the end of the input: reading it from its start");
        }
        let (offset, size) = (file.position(), file.size());
        info!(offset, size, "no earlier position: the input is read from here");
        self.add_lane(file, Ledger::default());
        self.set_input(InputState::Following);
    }

    /// Compares what the checkpoint knows with what is there.
    fn go_on(&mut self, checkpoint: &Checkpoint) {
        let mut generations = checkpoint.generations.clone();
        // One that stood at the path before may stand there again.
        if let Ok(AtPath::File(identity)) = look(self.edges.fs.as_ref(), &self.settings.input)
            && let Some(index) =
                generations.iter().rposition(|life| life.identity.is_same_file(&identity))
        {
            let live = generations.remove(index);
            generations.push(live);
        }
        let Some((live, older)) = generations.split_last() else {
            // What came to the path since then and went is beside it.
            self.open_unseen(checkpoint.committed_at_ms.saturating_mul(1_000_000));
            if let Some(file) = self.open_at_start() {
                self.add_lane(file, Ledger::default());
            }
            return;
        };
        self.rotations.known.clone_from(&generations);
        // What is not found may be in a copy that was made after it was last seen.
        let mut newest = live.modified_ns;
        self.rotations.born_ns = live.identity.born_ns;
        for known in older {
            if self.take_up(known, LostReason::MovedAway) == TakenUp::Gone {
                newest = newest.min(known.modified_ns);
                self.rotations.born_ns = self.rotations.born_ns.min(known.identity.born_ns);
            }
        }
        if let Some(file) = self.open_at_start() {
            self.adopt(file, live, newest);
        } else if self.is_beside(&live.identity)
            || self.find_kept(live).is_some()
            || self.is_stored(&live.identity)
        {
            self.take_up(live, LostReason::MovedAway);
            self.open_unseen(newest);
        } else {
            // Perhaps its file system is not mounted yet, or it may not be read for now: what is
            // known of it is kept until something is there to compare it with.
            self.remembered = Some(live.clone());
        }
    }

    /// Goes on with a file that is there, where what is known of the input says so.
    pub(super) fn adopt(&mut self, mut file: FollowedFile, live: &GenerationState, newest: i64) {
        let max_line = self.settings.max_line_bytes;
        let resume = match self.compare(&mut file, live) {
            Ok(resume) => resume,
            Err(error) => {
                // It may heal; the next look tries again.
                error!(%error, "cannot compare the input with the checkpoint; trying on");
                self.remembered = Some(live.clone());
                return;
            }
        };
        let lost = match resume {
            Found::Same => {
                let is_copy = !file.identity().is_same_file(&live.identity);
                if is_copy && self.take_up_kept(live) {
                    self.go_on_behind_kept(file, live);
                    return;
                }
                let (offset, size) = (live.offset, file.size());
                info!(offset, size, "resumed: the input goes on from here");
                self.resume_lane(file, live, newest);
                return;
            }
            Found::Its(end) => {
                info!(offset = end, "the input was cut to its last lines: it goes on behind them");
                self.closed += live.ledger;
                let (generation, reason) = (live.generation, LostReason::TruncatedUnread);
                let from = live.offset + file.size().saturating_sub(end);
                let to = live.size.max(live.offset);
                self.lose(Lost { generation, from: from.min(to), to, reason });
                if let Err(error) = file.move_to(end, max_line) {
                    error!(%error, "cannot go there: reading it from its start");
                }
                self.add_lane(file, Ledger::default());
                return;
            }
            Found::Another(reason) => reason,
        };
        // It may be rotated at any moment, and is not to be read twice.
        self.saw(&file);
        self.take_up(live, lost);
        if self.open_unseen(newest) {
            // Ended since it was opened, it comes before younger segments that were opened just now.
            if self.settings.pipe.is_some() && self.is_rotated(file.identity()) {
                self.rotations.seen.remove(file.identity());
                self.open_unseen(newest);
                self.input.look_again();
                return;
            }
            info!("another content is at the input path: it is read from its start");
            self.add_lane(file, Ledger::default());
        } else {
            // It waits for a place, and may be rotated before it gets one.
            self.rotations.seen.remove(file.identity());
        }
    }

    /// A copy at the path of a file whose rest was kept goes on behind what both have. The kept one may have
    /// more, written to it while the copy stood here.
    fn go_on_behind_kept(&mut self, mut copy: FollowedFile, live: &GenerationState) {
        let max_line = self.settings.max_line_bytes;
        let kept = self.lanes.iter().find(|lane| lane.file.generation() == live.generation);
        let common = kept.and_then(|kept| copy.common_with(&kept.file).ok().flatten());
        let offset = common.map_or(live.offset, |common| common.end);
        copy.start_again(max_line);
        info!(offset, "a copy of it is at the input path: it is read behind what both have");
        if let Err(error) = copy.move_to(offset, max_line) {
            error!(%error, "cannot go there: reading it from its start");
        }
        self.add_lane(copy, Ledger::default());
    }

    /// What the file at the path is to the life that is known.
    fn compare(&self, file: &mut FollowedFile, live: &GenerationState) -> io::Result<Found> {
        let (known, max_line) = (known_of(live), self.settings.max_line_bytes);
        let reason = match file.resume(&known, max_line)? {
            Resume::Continue => return Ok(Found::Same),
            Resume::Replaced if self.is_copied_never() || self.is_beside(&live.identity) => {
                return Ok(Found::Another(LostReason::MovedAway));
            }
            // A copy that an editor or a backup put there.
            Resume::Replaced if file.resume_as_copy(&known, max_line)? => {
                file.go_back_to_line_start(max_line)?;
                return Ok(Found::Same);
            }
            Resume::Replaced => LostReason::MovedAway,
            Resume::Truncated => LostReason::TruncatedUnread,
            Resume::Rewritten => LostReason::Rewritten,
        };
        let found = if known.is_weak() { None } else { file.find_mark(&live.mark)? };
        Ok(found.map_or(Found::Another(reason), Found::Its))
    }

    fn resume_lane(&mut self, file: FollowedFile, known: &GenerationState, newest: i64) {
        let nothing_new = self.position.is_committed() && file.size() >= known.size;
        let size = file.size();
        self.add_lane(file, known.ledger);
        self.lose_cut_off(known, size);
        if nothing_new {
            // Nothing is new: a start that finds what it left writes nothing.
            self.position.unchanged(known.size);
        }
        // Of a file of which little was read nobody can tell whether it was copied and cut meanwhile.
        if known_of(known).is_weak() || newest < known.modified_ns {
            self.open_unseen(newest);
        }
    }

    /// The ledger of everything behind the watermark.
    pub(super) fn settled_so_far(&self) -> Ledger {
        let untaken = self.untaken.iter().map(|(known, _)| known);
        let remembered = self.remembered.iter().chain(untaken).map(|known| known.ledger);
        let ledgers = self.lanes.iter().map(|lane| lane.ledger).chain(remembered);
        ledgers.fold(self.closed, |mut sum, ledger| {
            sum += ledger;
            sum
        })
    }

    /// Opens the input, if there is one. What is in the way is told by the first look.
    fn open_at_start(&mut self) -> Option<FollowedFile> {
        let (fs, path) = (self.edges.fs.as_ref(), &self.settings.input);
        FollowedFile::open(fs, path, self.settings.max_line_bytes, None).ok().flatten()
    }
}

/// What a checkpoint says of the file at `path` when it is to be read from `offset` on, moved back
/// to a line end. `known` is what the checkpoint said before. None: there is no regular file.
///
/// # Errors
/// The system's, if the file can't be read.
pub fn state_at(
    fs: &dyn Fs,
    path: &Path,
    max_line_bytes: usize,
    offset: u64,
    known: Option<&GenerationState>,
) -> io::Result<Option<GenerationState>> {
    let former = known.map(|known| (known.identity, known.generation));
    let Some(mut file) = FollowedFile::open(fs, path, max_line_bytes, former)? else {
        return Ok(None);
    };
    if let Some(known) = known {
        let whole = Known {
            identity: &known.identity,
            head: known.head.as_ref(),
            mark: &Fingerprint::of_mark(b""),
            offset: 0,
            size: 0,
            generation: known.generation,
            after: known.after,
        };
        // The same life keeps its name, so its events keep their ids.
        file.resume(&whole, max_line_bytes)?;
    }
    file.move_to_line_end(offset, max_line_bytes)?;
    Ok(Some(Lane::new(0, file, Ledger::default(), Instant::now()).checkpoint()))
}
