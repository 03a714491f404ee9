//! The state-writer thread: the only one that waits for the disk.
//!
//! The owner of the pipeline hands it checkpoints, notes and rejected lines and goes on; what
//! became of them comes back as a [`StateEvent`]. Whatever piled up while the disk was busy is
//! done in one go: all waiting rejects with one fsync, the newest checkpoint only. What is done with
//! it is the [`Scribe`]'s, which knows of no thread and no time, so that it can be driven step by step.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::store::{Lock, Store};
use super::{Checkpoint, Committer, format};
use crate::domain::acks::RecordId;
use crate::platform::fs::StateFile;
use crate::platform::panics::on_purpose;

/// How long the thread waits before it tries a failed write of rejects again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A rejected line, encoded for the rejects file.
#[derive(Debug)]
pub struct RejectedLine {
    /// The record that waits for it.
    pub record: RecordId,
    /// One line of JSON, LF included.
    pub text: Vec<u8>,
}

/// What became of lines that were sent again, encoded for their list.
#[derive(Debug)]
pub struct Requeued {
    /// Lines of the list.
    pub outcomes: Vec<u8>,
    /// The request that is done with these, to be removed.
    pub request: Option<PathBuf>,
}

/// What became of work handed to the state writer.
#[derive(Debug)]
pub enum StateEvent {
    /// The checkpoint with this sequence number is durable.
    Committed(u64),
    /// A checkpoint could not be made durable; the one before still counts.
    CommitFailed(io::Error),
    /// These rejected lines are durable.
    RejectsDurable(Vec<RecordId>),
    /// What became of lines that were sent again is durable.
    RequeueNoted,
    /// It could not be made durable; it is tried again until it is.
    RequeueFailed(io::Error),
    /// Rejected lines could not be made durable; it is tried again until they are.
    RejectsFailed(io::Error),
}

/// Makes encoded rejects durable, all or none.
pub type AppendRejects = Box<dyn FnMut(&[RejectedLine]) -> io::Result<()> + Send>;

/// What is done once a checkpoint is durable.
pub type AfterCommit = Box<dyn FnMut(&Checkpoint) + Send>;

/// Notes durably what became of lines that were sent again.
pub type NoteRequeued = Box<dyn FnMut(&Requeued) -> io::Result<()> + Send>;

/// What waits to be written. Only the newest checkpoint and the newest note count.
#[derive(Default)]
pub struct Work {
    commit: Option<Checkpoint>,
    note: Option<Checkpoint>,
    rejects: Vec<RejectedLine>,
    requeued: Vec<Requeued>,
}

impl Work {
    /// Whether there is nothing.
    pub fn is_idle(&self) -> bool {
        let no_position = self.commit.is_none() && self.note.is_none();
        no_position && self.rejects.is_empty() && self.requeued.is_empty()
    }
}

impl Committer for Work {
    fn commit(&mut self, checkpoint: Checkpoint) {
        self.commit = Some(checkpoint);
    }

    fn note(&mut self, checkpoint: Checkpoint) {
        self.note = Some(checkpoint);
    }

    fn reject(&mut self, line: RejectedLine) {
        self.rejects.push(line);
    }

    fn requeued(&mut self, requeued: Requeued) {
        self.requeued.push(requeued);
    }
}

/// Does the work, and knows what of it is left over from failures.
pub struct Scribe {
    store: Store,
    lock: Lock,
    notes: [Option<Box<dyn StateFile>>; 2],
    next_note: usize,
    append_rejects: AppendRejects,
    note_requeued: NoteRequeued,
    unnoted: Vec<Requeued>,
    committed: Option<AfterCommit>,
    /// Lines that could not be made durable yet. Nothing steps over them.
    unwritten: Vec<RejectedLine>,
}

impl Scribe {
    /// One for the directory that `lock` locks.
    pub fn new(
        store: Store,
        lock: Lock,
        append_rejects: AppendRejects,
        note_requeued: NoteRequeued,
    ) -> Self {
        Self {
            store,
            lock,
            notes: [None, None],
            next_note: 0,
            append_rejects,
            note_requeued,
            unnoted: Vec::new(),
            committed: None,
            unwritten: Vec::new(),
        }
    }

    /// Calls this after each checkpoint that is durable.
    #[must_use]
    pub fn then(self, committed: AfterCommit) -> Self {
        Self { committed: Some(committed), ..self }
    }

    /// Does all of `work`, once. Rejects that failed stay here and are tried again by the next
    /// call; the checkpoint is written all the same, for the lines that need no reject.
    pub fn work(&mut self, work: Work, report: &mut dyn FnMut(StateEvent)) {
        self.unwritten.extend(work.rejects);
        if !self.unwritten.is_empty() {
            report(self.write_rejects());
        }
        self.unnoted.extend(work.requeued);
        self.note_requeued(report);
        if let Some(checkpoint) = &work.note {
            self.write_note(checkpoint);
        }
        if let Some(checkpoint) = &work.commit {
            report(match self.commit(checkpoint) {
                Ok(()) => {
                    self.committed.iter_mut().for_each(|committed| committed(checkpoint));
                    StateEvent::Committed(checkpoint.sequence)
                }
                Err(error) => StateEvent::CommitFailed(error),
            });
        }
    }

    /// Whether lines are left over that could not be made durable.
    pub fn is_behind(&self) -> bool {
        !self.unwritten.is_empty() || !self.unnoted.is_empty()
    }

    fn note_requeued(&mut self, report: &mut dyn FnMut(StateEvent)) {
        while let Some(requeued) = self.unnoted.first() {
            if let Err(error) = (self.note_requeued)(requeued) {
                return report(StateEvent::RequeueFailed(error));
            }
            self.unnoted.remove(0);
            report(StateEvent::RequeueNoted);
        }
    }

    fn commit(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.restore_directory()?;
        self.store.commit(checkpoint)
    }

    /// A state directory that was removed at run time is made anew, the lock included.
    fn restore_directory(&mut self) -> io::Result<()> {
        if self.store.still_holds(&self.lock) {
            return Ok(());
        }
        self.notes = [None, None];
        self.store.create().map_err(io::Error::other)?;
        self.lock = self.store.lock().map_err(io::Error::other)?;
        Ok(())
    }

    fn write_rejects(&mut self) -> StateEvent {
        let written =
            self.restore_directory().and_then(|()| (self.append_rejects)(&self.unwritten));
        match written {
            Ok(()) => {
                let lines = self.unwritten.drain(..);
                StateEvent::RejectsDurable(lines.map(|line| line.record).collect())
            }
            Err(error) => StateEvent::RejectsFailed(error),
        }
    }

    /// A note that can't be written costs nothing but repeats after a crash, so its errors are
    /// not told: a disk in trouble is reported by the next commit.
    fn write_note(&mut self, checkpoint: &Checkpoint) {
        let index = self.next_note;
        self.next_note = (index + 1) % self.notes.len();
        // Without the lock the directory is another daemon's by now.
        if !self.store.still_holds(&self.lock) {
            return;
        }
        let Ok(text) = format::encode(checkpoint) else { return };
        if self.notes[index].is_none() {
            self.notes[index] = self.store.open_note(index).ok();
        }
        if let Some(file) = &self.notes[index]
            && file.write_all_at(&text, 0).is_err()
        {
            self.notes[index] = None;
        }
    }
}

/// The owner's handle on the thread.
pub struct StateWriter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tray: Mutex<Tray>,
    changed: Condvar,
}

#[derive(Default)]
struct Tray {
    work: Work,
    stop: bool,
}

impl StateWriter {
    /// Starts the thread. `report` is called on it with each result.
    ///
    /// # Errors
    /// The system's, if the thread can't be started.
    pub fn start(
        mut scribe: Scribe,
        mut report: Box<dyn FnMut(StateEvent) + Send>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let tray = Arc::clone(&shared);
        let run = move || {
            while let Some(work) = tray.next_work(scribe.is_behind()) {
                on_purpose("state-writer");
                scribe.work(work, &mut report);
            }
        };
        std::thread::Builder::new().name("state-writer".to_owned()).spawn(run)?;
        Ok(Self { shared })
    }

    fn hand_over(&self, change: impl FnOnce(&mut Tray)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_one();
    }
}

impl Committer for StateWriter {
    fn commit(&mut self, checkpoint: Checkpoint) {
        self.hand_over(|tray| tray.work.commit(checkpoint));
    }

    fn note(&mut self, checkpoint: Checkpoint) {
        self.hand_over(|tray| tray.work.note(checkpoint));
    }

    fn reject(&mut self, line: RejectedLine) {
        self.hand_over(|tray| tray.work.reject(line));
    }

    fn requeued(&mut self, requeued: Requeued) {
        self.hand_over(|tray| tray.work.requeued(requeued));
    }
}

impl Drop for StateWriter {
    /// Tells the thread to end when it has done what it was given, and does not wait for it: a
    /// disk that never answers must not hold the process.
    fn drop(&mut self) {
        self.hand_over(|tray| tray.stop = true);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Tray> {
        // A panic of the other thread ends the process; until then the data is as good as before.
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work and takes all there is. None: stop.
    ///
    /// `behind`: rejects wait to be tried again. Only time and a checkpoint, which need not wait
    /// for them, are worth an attempt; each of more rejects is not.
    fn next_work(&self, behind: bool) -> Option<Work> {
        let tray = self.lock();
        let mut tray = if behind {
            let idle = |tray: &mut Tray| !tray.stop && tray.work.commit.is_none();
            let waited = self.changed.wait_timeout_while(tray, RETRY_AFTER, idle);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            let idle = |tray: &mut Tray| !tray.stop && tray.work.is_idle();
            self.changed.wait_while(tray, idle).unwrap_or_else(PoisonError::into_inner)
        };
        // What can't be written does not keep the thread.
        if tray.stop && tray.work.commit.is_none() && (behind || tray.work.is_idle()) {
            return None;
        }
        Some(std::mem::take(&mut tray.work))
    }
}
