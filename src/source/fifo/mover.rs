//! The thread between pipe and journal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::journal::Journal;
use super::{Notice, PipeState, Settings};
use crate::platform::fs::{FileKind, Fs as _, RealFs};
use crate::platform::panics::on_purpose;
use crate::platform::pipe::{Glass, Pipe};

/// How often the path is looked at, and what failed is tried again.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How much is moved before it is made durable: more than a pipe holds.
const BATCH_BYTES: u64 = 4 << 20;

/// How much is moved at once.
const CHUNK: usize = 1 << 20;

/// A segment is ended at this size, or at a part of what the journal may hold.
const SEGMENT_BYTES: u64 = 16 << 20;
const SEGMENTS: u64 = 16;
const SEGMENT_MIN: u64 = 4096;

/// How long a line that one pipe's writer has begun keeps the lines of another pipe waiting.
const TORN: Duration = Duration::from_secs(5);

/// Why nothing is moved.
#[derive(Debug, thiserror::Error)]
enum Blocked {
    #[error(
        "the journal holds {0} bytes, all that BRIDGE_FIFO_JOURNAL_MAX_BYTES allows: writers wait \
         until some are delivered"
    )]
    Full(u64),
    #[error("the journal can't be written: {0}")]
    Journal(#[source] io::Error),
    #[error("the pipe can't be read, or not be held open for writing: {0}")]
    Pipe(#[source] io::Error),
    #[error("another process reads the pipe: two bridges can't share one")]
    Taken,
}

pub(super) struct Mover {
    settings: Settings,
    /// The one at the path is the last; those before it have been replaced, and may have writers.
    pipes: Vec<Pipe>,
    /// The one whose line the journal ends with.
    current: usize,
    journal: Journal,
    state: Arc<PipeState>,
    tell: Box<dyn Fn(Notice) + Send>,
    glass: Option<Glass>,
    /// How much was taken of a line that has no end yet, since one was waited for.
    unended: u64,
    last_moved: Instant,
    next_look: Instant,
    /// What was said last of why nothing is moved.
    told: Option<String>,
}

impl Mover {
    pub(super) fn new(
        settings: Settings,
        journal: Journal,
        state: Arc<PipeState>,
        tell: Box<dyn Fn(Notice) + Send>,
    ) -> Self {
        let now = Instant::now();
        state.in_journal.store(journal.bytes().unwrap_or(0), Ordering::Relaxed);
        Self {
            settings,
            pipes: Vec::new(),
            current: 0,
            journal,
            state,
            tell,
            glass: None,
            unended: 0,
            last_moved: now,
            next_look: now,
            told: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            // Before the last turn, so that this one takes what is there when the daemon stops.
            let stop = self.state.stop.load(Ordering::SeqCst);
            on_purpose("pipe");
            let turn = self.turn();
            self.show(turn.as_ref().err());
            if stop {
                return;
            }
            if !matches!(turn, Ok(true)) {
                self.wait(turn.is_err());
            }
        }
    }

    /// Moves what there is. True: there may be more.
    fn turn(&mut self) -> Result<bool, Blocked> {
        if Instant::now() >= self.next_look {
            self.next_look = Instant::now() + LOOK_INTERVAL;
            self.journal.look_again();
            self.look_at_path()?;
        }
        // Nothing more is taken before that which could not be made durable is.
        self.sync()?;
        let mut moved = 0;
        let mut more = true;
        while more && moved < BATCH_BYTES {
            let taken = self.take()?;
            moved += taken;
            more = taken > 0;
        }
        self.sync()?;
        if self.is_segment_full() && self.journal.is_at_line_start().map_err(Blocked::Journal)? {
            self.journal.seal().map_err(Blocked::Journal)?;
            more = true;
        }
        if !more {
            let round = self.state.rounds.fetch_add(1, Ordering::SeqCst) + 1;
            more = round < self.state.wanted.load(Ordering::SeqCst);
        }
        Ok(more)
    }

    fn sync(&mut self) -> Result<(), Blocked> {
        if self.journal.sync().map_err(Blocked::Journal)? {
            self.state.syncs.fetch_add(1, Ordering::Relaxed);
            (self.tell)(Notice::Journaled);
        }
        Ok(())
    }

    /// Takes some bytes out of the pipe whose turn it is. 0: there are none.
    fn take(&mut self) -> Result<u64, Blocked> {
        let at_line_start = self.journal.is_at_line_start().map_err(Blocked::Journal)?;
        let Some(pipe) = self.next_pipe(at_line_start)? else { return Ok(0) };
        let used = self.used();
        let full = used >= self.settings.max_bytes;
        if full && at_line_start && self.pipes[pipe].available().map_err(Blocked::Pipe)? > 0 {
            return Err(Blocked::Full(used));
        }
        let room = self.segment_bytes().saturating_sub(self.journal.live_bytes());
        let room = room.min(self.settings.max_bytes.saturating_sub(used));
        let count = match usize::try_from(room) {
            Ok(0) if at_line_start => return Ok(0),
            // A line that was begun is finished, whatever that takes.
            Ok(0) => self.rest_of_line(pipe)?,
            room => room.unwrap_or(CHUNK).min(CHUNK),
        };
        let taken = self.journal.take(&self.pipes[pipe], count).map_err(Blocked::Journal)?;
        self.state.in_journal.fetch_add(taken as u64, Ordering::Relaxed);
        if taken > 0 {
            (self.current, self.last_moved) = (pipe, Instant::now());
        }
        Ok(taken as u64)
    }

    /// How much there is of the line that was begun; all there is where it does not end. One that is longer
    /// than any that is delivered is ended here: it would fill the journal and never be settled.
    fn rest_of_line(&mut self, pipe: usize) -> Result<usize, Blocked> {
        let mut glass = match self.glass.take() {
            Some(glass) => glass,
            None => Glass::new().map_err(Blocked::Pipe)?,
        };
        let there = glass.look(&self.pipes[pipe]).map_err(Blocked::Pipe)?;
        self.glass = Some(glass);
        let end = memchr::memchr(b'\n', &there);
        self.unended += end.map_or(there.len(), |end| end + 1) as u64;
        if end.is_some() {
            self.unended = 0;
        } else if self.unended > self.settings.max_line_bytes as u64 {
            self.unended = 0;
            warn!("a line is longer than any that is delivered, and does not end: it is ended");
            self.journal.end_line().map_err(Blocked::Journal)?;
            return Ok(0);
        }
        Ok(end.map_or(there.len(), |end| end + 1))
    }

    /// The pipe to be read: with several, one after the other, each up to a line end.
    fn next_pipe(&mut self, at_line_start: bool) -> Result<Option<usize>, Blocked> {
        let count = self.pipes.len();
        if count < 2 {
            return Ok(self.pipes.first().map(|_| 0));
        }
        let has_any = |pipe: &Pipe| pipe.available().map(|bytes| bytes > 0).map_err(Blocked::Pipe);
        let first = self.current + usize::from(at_line_start);
        for index in (first..first + count).map(|index| index % count) {
            if !has_any(&self.pipes[index])? {
                continue;
            }
            if index != self.current && !at_line_start {
                if self.last_moved.elapsed() < TORN {
                    return Ok(None);
                }
                self.journal.end_line().map_err(Blocked::Journal)?;
            }
            return Ok(Some(index));
        }
        Ok(None)
    }

    /// A pipe that was replaced is read until its last writer is gone.
    fn look_at_path(&mut self) -> Result<(), Blocked> {
        let there = RealFs.stat(&self.settings.path).ok();
        let there = there.filter(|facts| facts.kind == FileKind::Fifo);
        let id = there.map(|facts| (facts.dev, facts.ino));
        for pipe in self.pipes.iter_mut().filter(|pipe| Some(pipe.id()) != id && pipe.is_kept()) {
            info!("the pipe is not at its path any more: it is read until its writers are gone");
            pipe.let_go();
        }
        self.forget_ended()?;
        if id.is_some() && !self.pipes.iter().any(|pipe| Some(pipe.id()) == id) {
            let pipe = Pipe::open(&self.settings.path).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Blocked::Taken,
                _ => Blocked::Pipe(error),
            })?;
            if let Some(pipe) = pipe {
                self.greet(&pipe);
                self.pipes.push(pipe);
                (self.tell)(Notice::Opened);
            }
        }
        if self.pipes.is_empty() {
            (self.tell)(Notice::Ended);
        }
        Ok(())
    }

    /// A line that a pipe's last writer did not end is one of its own: nobody else goes on with it.
    fn forget_ended(&mut self) -> Result<(), Blocked> {
        while let Some(ended) = self.pipes.iter().position(Pipe::has_ended) {
            let is_torn = !self.journal.is_at_line_start().map_err(Blocked::Journal)?;
            if ended == self.current && is_torn {
                self.journal.end_line().map_err(Blocked::Journal)?;
            }
            self.pipes.remove(ended);
            self.current -= usize::from(ended < self.current);
        }
        Ok(())
    }

    fn greet(&self, pipe: &Pipe) {
        let path = self.settings.path.display();
        match pipe.enlarge() {
            Ok(holds) => info!(%path, holds, "reading the named pipe into the journal"),
            Err(error) => info!(%path, %error, "reading the named pipe, which can't be enlarged"),
        }
        if pipe.is_open_to_all() {
            warn!(%path, "every user can write into the pipe, and so forge events: chmod o-w");
        }
    }

    fn segment_bytes(&self) -> u64 {
        (self.settings.max_bytes / SEGMENTS).clamp(SEGMENT_MIN, SEGMENT_BYTES)
    }

    fn is_segment_full(&self) -> bool {
        self.journal.live_bytes() >= self.segment_bytes()
    }

    /// How much the journal holds. It is asked only where it may be full: others drop segments.
    fn used(&self) -> u64 {
        let noted = self.state.in_journal.load(Ordering::Relaxed);
        if noted < self.settings.max_bytes {
            return noted;
        }
        let used = self.journal.bytes().unwrap_or(noted);
        self.state.in_journal.store(used, Ordering::Relaxed);
        used
    }

    /// Until there is something to do, or to be looked at.
    fn wait(&mut self, blocked: bool) {
        let torn = self.pipes.len() > 1 && !self.journal.is_at_line_start().unwrap_or(true);
        let is_read = |index: usize| !blocked && (!torn || index == self.current);
        let pipes = self.pipes.iter().enumerate().filter(|(index, _)| is_read(*index));
        let next_look = self.next_look.saturating_duration_since(Instant::now());
        let time = if blocked { LOOK_INTERVAL } else { next_look };
        if let Err(error) = self.state.waker.wait(pipes.map(|(_, pipe)| pipe), time) {
            error!(%error, "cannot wait for the pipe; trying on");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Lets others know why nothing is moved, and the log once.
    fn show(&mut self, blocked: Option<&Blocked>) {
        let in_pipe = self.pipes.iter().filter_map(|pipe| pipe.available().ok()).sum();
        self.state.in_pipe.store(in_pipe, Ordering::Relaxed);
        let alarm = blocked.map(ToString::to_string);
        let same = |alarm: &String| alarm.chars().filter(|it| !it.is_ascii_digit()).collect();
        let kind = alarm.as_ref().map(same);
        if kind == self.told {
            return;
        }
        if let Some(alarm) = &alarm {
            error!("{alarm}");
        } else {
            info!("the pipe is read again");
        }
        self.told = kind;
        self.state.set_alarm(alarm);
        // The owner shows it.
        (self.tell)(Notice::Journaled);
    }
}
