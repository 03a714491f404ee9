//! A named pipe as input: what comes out of it is in a journal, durable, before anyone reads it.
//!
//! A thread of its own moves bytes from the pipe to the journal, in which they are followed like those of
//! any file. At each moment a byte is in one of the two: a daemon that dies loses none. Where the journal
//! is full, or its disk, the pipe is not read, and its writers wait.

pub mod journal;
mod mover;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use self::journal::{Durable, Journal};
use self::mover::Mover;
use crate::platform::pipe::Waker;

/// What the thread needs to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the pipe is.
    pub path: PathBuf,
    /// Where the journal is kept.
    pub state_dir: PathBuf,
    /// How much the journal may hold.
    pub max_bytes: u64,
    /// The longest line that is delivered: one that nobody ends is ended once it is longer.
    pub max_line_bytes: usize,
}

/// What the thread tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There is more in the journal.
    Journaled,
    /// Something came to the path, or went from it.
    Moved,
    /// A pipe is read.
    Opened,
    /// There is no pipe at the path any more, and nothing more comes from one that was there.
    Ended,
}

/// Moves the pipe's bytes until it is dropped; what is in the pipe then is moved first.
pub struct Fifo {
    state: Arc<PipeState>,
    thread: Option<JoinHandle<()>>,
}

impl Fifo {
    /// Starts. `tell` is called on the thread.
    ///
    /// # Errors
    /// The system's, where there can be no thread. That the journal can't be written is an alarm, and
    /// tried again.
    pub fn start(
        settings: Settings,
        durable: &Arc<Durable>,
        tell: Box<dyn Fn(Notice) + Send>,
    ) -> io::Result<Self> {
        let state = Arc::new(PipeState::new()?);
        let journal = Journal::open(&settings.state_dir, Arc::clone(durable));
        let mover = Mover::new(settings, journal, Arc::clone(&state), tell);
        let thread = std::thread::Builder::new().name("pipe".to_owned());
        let thread = thread.spawn(move || mover.run())?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// What others may know and ask.
    pub fn state(&self) -> Arc<PipeState> {
        Arc::clone(&self.state)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.state.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of it has ended the process.
            let _ = thread.join();
        }
    }
}

/// How the thread is, and what it is asked.
pub struct PipeState {
    waker: Waker,
    stop: AtomicBool,
    /// How often the pipe was found empty with everything durable, and how often it is to be.
    rounds: AtomicU64,
    wanted: AtomicU64,
    in_pipe: AtomicU64,
    in_journal: AtomicU64,
    syncs: AtomicU64,
    alarm: Mutex<Option<String>>,
    segments: Mutex<()>,
}

impl PipeState {
    fn new() -> io::Result<Self> {
        Ok(Self {
            waker: Waker::new()?,
            stop: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            in_pipe: AtomicU64::new(0),
            in_journal: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            alarm: Mutex::new(None),
            segments: Mutex::new(()),
        })
    }

    /// Asks for what is in the pipe now. [`PipeState::is_past`] tells with this when it can be read.
    pub fn ask(&self) -> u64 {
        // A round that is under way may have looked before.
        let until = self.rounds.load(Ordering::SeqCst) + 2;
        self.wanted.fetch_max(until, Ordering::SeqCst);
        self.waker.wake();
        until
    }

    /// Whether everything that was in the pipe when this was asked for is in the journal.
    pub fn is_past(&self, asked: u64) -> bool {
        self.rounds() >= asked
    }

    /// Everything that was asked for with this or less is in the journal.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }

    /// Keeps segments from being ended until the guard is dropped: who looks at the journal for the first
    /// time would take those that come between two of its looks for delivered ones.
    pub fn keep_segments(&self) -> MutexGuard<'_, ()> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit is durable, so there may be room again.
    pub fn committed(&self) {
        if self.alarm().is_some() {
            self.waker.wake();
        }
    }

    /// Why the pipe is not read, if it is not.
    pub fn alarm(&self) -> Option<String> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_alarm(&self, alarm: Option<String>) {
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = alarm;
    }

    /// Bytes in the pipe when it was looked at last.
    pub fn in_pipe(&self) -> u64 {
        self.in_pipe.load(Ordering::Relaxed)
    }

    /// Bytes in the journal, delivered or not.
    pub fn in_journal(&self) -> u64 {
        self.in_journal.load(Ordering::Relaxed)
    }

    /// How often the journal was made durable.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
