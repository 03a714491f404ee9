//! Lines that outlive their file.
//!
//! What is not settled at a stop is read again by the next start, from its file. Where that was cut or
//! deleted meanwhile, it is kept in the state directory instead: in a file of the same shape, with
//! each line at its own offset and holes between them, so that it is read on like any other.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::Pipeline;
use super::lane::{Lane, LaneState};
use super::moved::known_of;
use crate::checkpoint::{Checkpoint, GenerationState, Lost, LostReason};
use crate::domain::framing::Content;
use crate::domain::identity::Resume;
use crate::domain::ledger::Ledger;
use crate::domain::position::{Generation, Span};
use crate::platform::fs::{Fs, StateFile};
use crate::source::file::{BLOCK_BYTES, FollowedFile};

/// In the state directory.
const DIRECTORY: &str = "pending";

/// How much is copied of a deleted file: a stop has not much time.
const COPIED_MAX: u64 = 256 << 20;

impl Pipeline {
    /// Keeps what the next start could not read again. To be called when nothing is read any more.
    pub fn keep_pending(&mut self) {
        self.leave_to_copies();
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            let Some(generation) = lane.file.generation() else { continue };
            let everything = lane.is_settled() && lane.file.position() >= lane.file.size();
            if everything || lane.is_kept {
                continue;
            }
            let unread = lane.file.position() == 0;
            // What can't be read now is there, for all one knows.
            let kept = if unread || lane.file.is_intact().unwrap_or(true) {
                if !lane.file.is_deleted() {
                    continue;
                }
                self.copy(index, generation)
            } else if lane.is_settled() {
                continue;
            } else {
                self.write(index, generation)
            };
            match kept {
                Ok(bytes) => {
                    info!(%generation, bytes, "kept for the next start: it can't be read again");
                }
                Err(error) => {
                    error!(%generation, %error, "cannot keep what can't be read again");
                    self.lose_unkept(index, generation);
                }
            }
        }
    }

    /// A replaced file that has no more than the copy that is read on in its place is needed no more.
    fn leave_to_copies(&mut self) {
        let stands_in_a_copy = |lane: &&Lane| {
            let is_copy = |it: &&Lane| it.file.generation() == lane.file.after();
            let copy = lane.file.after().and_then(|_| self.lanes.iter().find(is_copy));
            let common = copy.and_then(|it| lane.file.common_with(&it.file).ok().flatten());
            lane.is_settled_to_line() && common.is_some_and(|common| !common.more)
        };
        let deleted = self.lanes.iter().filter(|lane| lane.file.is_deleted());
        let left: Vec<u64> = deleted.filter(stands_in_a_copy).map(|lane| lane.key).collect();
        for lane in self.lanes.extract_if(.., |lane| left.contains(&lane.key)) {
            self.closed += lane.ledger;
            self.position.moved();
        }
    }

    /// What could not be kept is lost. The lane may have gone on in a copy since, which is there.
    fn lose_unkept(&mut self, index: usize, generation: Generation) {
        // Half of it would be read as if it were all.
        let _ = self.edges.fs.remove(&self.path_of(generation));
        let is_it = |lane: &&Lane| lane.file.generation() == Some(generation);
        let Some(lane) = self.lanes.get(index).filter(is_it) else { return };
        let (from, to) = (lane.settled(), lane.file.size().max(lane.file.position()));
        let (generation, reason) = (Some(generation), LostReason::TruncatedUnread);
        self.lose(Lost { generation, from, to, reason });
    }

    /// The rest of a file that has no name any more.
    fn copy(&mut self, index: usize, generation: Generation) -> io::Result<u64> {
        let (lane, file) = (&self.lanes[index], self.create(generation)?);
        let (from, mut to) = (lane.settled(), lane.settled());
        while to < from + COPIED_MAX {
            let block = lane.file.peek(to, BLOCK_BYTES)?;
            if block.is_empty() {
                break;
            }
            file.write_all_at(&block, to)?;
            to += block.len() as u64;
        }
        self.finish_keeping(file.as_ref())?;
        // More of it was seen, and went.
        let seen = lane.file.size();
        let left = lane.file.shrunk_to().unwrap_or(to).clamp(from, to);
        let (generation, reason) = (Some(generation), LostReason::TruncatedUnread);
        if left < seen {
            self.lose(Lost { generation, from: left, to: seen, reason });
        }
        Ok(to - from)
    }

    /// The lines that are still in memory.
    fn write(&mut self, index: usize, generation: Generation) -> io::Result<u64> {
        let key = self.lanes[index].key;
        let mut lines = InMemory::default();
        for (tracked, _) in self.tracker.iter().filter(|(tracked, _)| tracked.lane == key) {
            if let Some(line) = &tracked.line {
                lines.add(line.bytes.as_slice(), line.offset);
            } else if tracked.class.is_none() {
                // On its way to the rejects, which can't be written.
                let start = tracked.end - tracked.amount.bytes;
                lines.lost.push(Span { start, end: tracked.end });
            }
        }
        lines.take_from(&mut self.lanes[index]);
        if self.lanes[index].state != LaneState::Over {
            // What was not read is told now or never: the next start goes on in what is kept.
            self.end_cut_life_now(index);
            let lane = self.lanes.iter_mut().find(|lane| lane.key == key);
            // All of it may be in a copy, where the next start finds it.
            let Some(lane) = lane.filter(|lane| !lane.file.is_intact().unwrap_or(false)) else {
                return Ok(0);
            };
            lines.take_from(lane);
        }
        let file = self.create(generation)?;
        for (bytes, offset) in &lines.kept {
            file.write_all_at(bytes, *offset)?;
        }
        self.finish_keeping(file.as_ref())?;
        for Span { start: from, end: to } in lines.lost {
            let (generation, reason) = (Some(generation), LostReason::TruncatedUnread);
            self.lose(Lost { generation, from, to, reason });
        }
        Ok(lines.kept.iter().map(|(bytes, _)| bytes.len() as u64).sum())
    }

    fn create(&self, generation: Generation) -> io::Result<Box<dyn StateFile>> {
        let fs = self.edges.fs.as_ref();
        fs.create_directory(&self.kept_in())?;
        let file = fs.open_state(&self.path_of(generation))?;
        file.set_size(0)?;
        Ok(file)
    }

    fn finish_keeping(&self, file: &dyn StateFile) -> io::Result<()> {
        file.sync()?;
        self.edges.fs.sync_directory(&self.kept_in())
    }

    fn kept_in(&self) -> PathBuf {
        self.settings.state_dir.join(DIRECTORY)
    }

    fn path_of(&self, generation: Generation) -> PathBuf {
        self.kept_in().join(generation.to_string())
    }

    /// Opens what was kept of a life, to go on at its offset.
    pub(super) fn find_kept(&self, known: &GenerationState) -> Option<FollowedFile> {
        let kept = self.open_kept(known.generation?).map(|mut file| {
            file.go_on_without(&known_of(known), self.settings.max_line_bytes);
            file
        });
        kept.or_else(|| self.open_journaled(known))
    }

    /// A line that a pipe's last writer did not end is in the journal, which is not followed any more.
    fn open_journaled(&self, known: &GenerationState) -> Option<FollowedFile> {
        let (fs, max_line) = (self.edges.fs.as_ref(), self.settings.max_line_bytes);
        if self.settings.pipe.is_some() || !self.settings.is_segment(&known.path) {
            return None;
        }
        let mut file = FollowedFile::open(fs, &known.path, max_line, None).ok().flatten()?;
        (file.resume(&known_of(known), max_line).ok()? == Resume::Continue).then_some(file)
    }

    fn open_kept(&self, generation: Generation) -> Option<FollowedFile> {
        let (path, max_line) = (self.path_of(generation), self.settings.max_line_bytes);
        FollowedFile::open(self.edges.fs.as_ref(), &path, max_line, None).ok().flatten()
    }

    /// What was kept by an earlier run. Of what the checkpoint does not know any more, nothing is
    /// missing; without a checkpoint, all of it may be.
    pub(super) fn take_kept(&mut self, checkpoint: Option<&Checkpoint>) {
        let fs = Arc::clone(&self.edges.fs);
        for path in fs.list(&self.kept_in()).unwrap_or_default() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Ok(generation) = name.parse::<Generation>() else { continue };
            match checkpoint {
                None => {
                    if let Some(mut file) = self.open_kept(generation) {
                        file.go_on_as(generation);
                        info!(%generation, "what was kept of a file that is gone is read");
                        self.add_moved(file, Ledger::default(), |_, _| false).is_kept = true;
                    }
                }
                Some(checkpoint) => {
                    let mut known = checkpoint.generations.iter();
                    if !known.any(|known| known.generation == Some(generation)) {
                        let _ = fs.remove(&path);
                    }
                }
            }
        }
    }

    /// Removes what was kept and is delivered.
    pub(super) fn forget_kept(fs: &Arc<dyn Fs>, lane: &Lane) {
        if lane.is_kept
            && let Err(error) = fs.remove(lane.file.path())
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "cannot remove what was kept and is delivered");
        }
    }
}

/// Lines of a life whose file has them no more.
#[derive(Default)]
struct InMemory {
    /// Each with its end, and where it stood.
    kept: Vec<(Vec<u8>, u64)>,
    /// What is not there as a whole.
    lost: Vec<Span>,
}

impl InMemory {
    /// A line as it stood there. Its line end may have been longer, or missing: NULs are skipped.
    fn add(&mut self, line: &[u8], offset: u64) {
        self.kept.push(([line, b"\n"].concat(), offset));
    }

    /// The lines that nobody has taken yet. Of one that is too long, only the beginning is there.
    fn take_from(&mut self, lane: &mut Lane) {
        while let Some(frame) = lane.held.take().or_else(|| lane.file.next_frame()) {
            let offset = frame.span.start + frame.skipped;
            match &frame.content {
                // One that was torn by the cut has no end.
                Content::Line(line) if frame.span.end == offset + line.as_slice().len() as u64 => {
                    self.kept.push((line.as_slice().to_vec(), offset));
                }
                Content::Line(line) => self.add(line.as_slice(), offset),
                Content::Oversize(_) => self.lost.push(frame.span),
                Content::Blank => {}
            }
        }
    }
}
