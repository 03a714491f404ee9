//! The state-writer thread: the only one that waits for the disk.
//!
//! The owner of the pipeline hands it checkpoints, notes and rejected lines and goes on; what
//! became of them comes back as a [`StateEvent`]. Whatever piled up while the disk was busy is
//! done in one go: all waiting rejects with one fsync, the newest checkpoint only.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::store::{Lock, Store};
use super::{Checkpoint, Committer, format};
use crate::domain::acks::RecordId;
use crate::platform::fs::StateFile;

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

/// What became of work handed to the state writer.
#[derive(Debug)]
pub enum StateEvent {
    /// The checkpoint with this sequence number is durable.
    Committed(u64),
    /// A checkpoint could not be made durable; the one before still counts.
    CommitFailed(io::Error),
    /// These rejected lines are durable.
    RejectsDurable(Vec<RecordId>),
    /// Rejected lines could not be made durable; it is tried again until they are.
    RejectsFailed(io::Error),
}

/// Makes encoded rejects durable, all or none.
pub type AppendRejects = Box<dyn FnMut(&[RejectedLine]) -> io::Result<()> + Send>;

/// The owner's handle on the thread.
pub struct StateWriter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    commit: Option<Checkpoint>,
    note: Option<Checkpoint>,
    rejects: Vec<RejectedLine>,
    stop: bool,
}

struct Worker {
    shared: Arc<Shared>,
    store: Store,
    lock: Lock,
    notes: [Option<Box<dyn StateFile>>; 2],
    next_note: usize,
    append_rejects: AppendRejects,
    report: Box<dyn Fn(StateEvent) + Send>,
}

impl StateWriter {
    /// Starts the thread. `report` is called on it with each result.
    ///
    /// # Errors
    /// The system's, if the thread can't be started.
    pub fn start(
        store: Store,
        lock: Lock,
        append_rejects: AppendRejects,
        report: Box<dyn Fn(StateEvent) + Send>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut worker = Worker {
            shared: Arc::clone(&shared),
            store,
            lock,
            notes: [None, None],
            next_note: 0,
            append_rejects,
            report,
        };
        std::thread::Builder::new().name("state-writer".to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared })
    }

    fn hand_over(&self, change: impl FnOnce(&mut Work)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_one();
    }
}

impl Committer for StateWriter {
    fn commit(&mut self, checkpoint: Checkpoint) {
        self.hand_over(|work| work.commit = Some(checkpoint));
    }

    fn note(&mut self, checkpoint: Checkpoint) {
        self.hand_over(|work| work.note = Some(checkpoint));
    }

    fn reject(&mut self, line: RejectedLine) {
        self.hand_over(|work| work.rejects.push(line));
    }
}

impl Drop for StateWriter {
    /// Tells the thread to end when it has done what it was given, and does not wait for it: a
    /// disk that never answers must not hold the process.
    fn drop(&mut self) {
        self.hand_over(|work| work.stop = true);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        // A panic of the other thread ends the process; until then the data is as good as before.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    fn is_idle(&self) -> bool {
        self.commit.is_none() && self.note.is_none() && self.rejects.is_empty()
    }
}

impl Worker {
    fn run(&mut self) {
        while let Some(work) = self.next_work() {
            if !work.rejects.is_empty() {
                self.write_rejects(work.rejects);
            }
            if let Some(checkpoint) = &work.note {
                self.write_note(checkpoint);
            }
            if let Some(checkpoint) = &work.commit {
                match self.commit(checkpoint) {
                    Ok(()) => (self.report)(StateEvent::Committed(checkpoint.sequence)),
                    Err(error) => (self.report)(StateEvent::CommitFailed(error)),
                }
            }
        }
    }

    /// Waits for work and takes all there is. None: stop.
    fn next_work(&self) -> Option<Work> {
        let mut work = self.shared.lock();
        while work.is_idle() {
            if work.stop {
                return None;
            }
            work = self.shared.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        let stop = work.stop;
        Some(Work { stop, ..std::mem::replace(&mut *work, Work { stop, ..Work::default() }) })
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

    /// Tries until the lines are durable: nothing may step over them. While it waits, checkpoints
    /// are still committed, for the lines that need no reject.
    fn write_rejects(&mut self, mut lines: Vec<RejectedLine>) {
        loop {
            let written = self.restore_directory().and_then(|()| (self.append_rejects)(&lines));
            match written {
                Ok(()) => break,
                Err(error) => (self.report)(StateEvent::RejectsFailed(error)),
            }
            if !self.wait_before_retry(&mut lines) {
                return;
            }
        }
        let records = lines.iter().map(|line| line.record).collect();
        (self.report)(StateEvent::RejectsDurable(records));
    }

    /// False: stop.
    fn wait_before_retry(&mut self, lines: &mut Vec<RejectedLine>) -> bool {
        let work = self.shared.lock();
        let (mut work, _) = self
            .shared
            .changed
            .wait_timeout_while(work, RETRY_AFTER, |work| !work.stop && work.commit.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        lines.append(&mut work.rejects);
        let (stop, commit) = (work.stop, work.commit.take());
        drop(work);
        if let Some(checkpoint) = commit {
            match self.commit(&checkpoint) {
                Ok(()) => (self.report)(StateEvent::Committed(checkpoint.sequence)),
                Err(error) => (self.report)(StateEvent::CommitFailed(error)),
            }
        }
        !stop
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
