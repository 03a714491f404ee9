//! The thread between pipe and journal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::journal::Journal;
use super::{Notice, PipeState, Settings};
use crate::platform::fs::{FileKind, Fs as _, RealFs};
use crate::platform::names::NameWatch;
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

/// How long a stop takes out of the pipe what is in it, where writers go on writing.
const LAST_TURNS: Duration = Duration::from_secs(1);

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
    /// None: the path is looked at when it is time to.
    names: Option<NameWatch>,
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
            names: NameWatch::new(&settings.path).ok(),
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
        let mut stopping = None;
        loop {
            // Before the last turns, so that these take what is there when the daemon stops.
            if stopping.is_none() && self.state.stop.load(Ordering::SeqCst) {
                stopping = Some(Instant::now());
                // A writer that finds a reader now would lose it at once.
                self.next_look = Instant::now() + LAST_TURNS;
            }
            on_purpose("pipe");
            let turn = self.turn();
            self.show(turn.as_ref().err());
            let more = matches!(turn, Ok(true));
            if stopping.is_some_and(|since| !more || since.elapsed() >= LAST_TURNS) {
                return;
            }
            if !more {
                self.wait(turn.is_err());
            }
        }
    }

    /// Moves what there is. True: there may be more.
    fn turn(&mut self) -> Result<bool, Blocked> {
        if self.names.as_ref().is_some_and(NameWatch::has_changed) {
            // A file may be gone in a moment: it is the owner's.
            (self.tell)(Notice::Moved);
            if !self.state.stop.load(Ordering::SeqCst) {
                self.next_look = Instant::now();
            }
        }
        if Instant::now() >= self.next_look {
            self.next_look = Instant::now() + LOOK_INTERVAL;
            self.look_at_path()?;
        }
        // Each time: what is written to a file without a name is read by nobody.
        self.journal.look_again();
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
            let state = Arc::clone(&self.state);
            let _none_other = state.keep_segments();
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
        if at_line_start && self.is_segment_full() {
            // It is ended first, so that it can go once it is delivered: it may be all there is.
            return Ok(0);
        }
        let full = used >= self.settings.max_bytes;
        let on_disk = self.journal.room().map_err(Blocked::Journal)?;
        let blocked = at_line_start && (full || on_disk == 0);
        if blocked && self.pipes[pipe].available().map_err(Blocked::Pipe)? > 0 {
            let no_space = || Blocked::Journal(io::ErrorKind::StorageFull.into());
            return Err(if full { Blocked::Full(used) } else { no_space() });
        }
        let room = self.segment_bytes().saturating_sub(self.journal.live_bytes());
        let room = room.min(self.settings.max_bytes.saturating_sub(used)).min(on_disk);
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
        if let Some(names) = &self.names {
            names.arm();
        }
        let there = RealFs.stat(&self.settings.path);
        let is_gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        if !self.pipes.is_empty() && there.as_ref().is_err_and(|error| !is_gone(error)) {
            // One can't see what stands there: nothing is let go for that.
            return self.forget_ended();
        }
        let there = there.ok().filter(|facts| facts.kind == FileKind::Fifo);
        let id = there.map(|facts| (facts.dev, facts.ino));
        for pipe in &mut self.pipes {
            match (Some(pipe.id()) == id, pipe.is_kept()) {
                (false, true) => {
                    info!("the pipe is not at its path: it is read until its writers are gone");
                    pipe.let_go();
                }
                (true, false) => pipe.keep().map_err(Blocked::Pipe)?,
                _ => {}
            }
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

    /// Also where the disk is full: what is in it is in nobody's way once it is ended and delivered.
    fn is_segment_full(&self) -> bool {
        let held = self.journal.live_bytes();
        let is_disk_full = || self.journal.room().is_ok_and(|room| room == 0);
        held >= self.segment_bytes() || (held > 0 && is_disk_full())
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
        if let Err(error) =
            self.state.waker.wait(pipes.map(|(_, pipe)| pipe), self.names.as_ref(), time)
        {
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

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard};

    use super::*;
    use crate::source::fifo::journal::{Durable, JournalFs, Segment, directory_in, live_in};

    /// A disk that fails as a test says.
    #[derive(Default)]
    struct Disk {
        /// How much is moved at once at most.
        most: Option<usize>,
        /// How much more fits on it.
        room: Option<usize>,
        /// How many fsyncs fail. As on a real one, the next one does not know of what this one left out.
        failing_syncs: u32,
        dirty: Vec<(u64, usize)>,
        durable: Vec<u8>,
    }

    struct OnDisk {
        file: File,
        disk: Arc<Mutex<Disk>>,
    }

    impl OnDisk {
        fn disk(&self) -> MutexGuard<'_, Disk> {
            self.disk.lock().unwrap()
        }
    }

    impl Segment for OnDisk {
        fn take(&self, pipe: &Pipe, offset: u64, count: usize) -> io::Result<usize> {
            let mut disk = self.disk();
            if disk.room == Some(0) && pipe.available()? > 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = count.min(disk.most.unwrap_or(count)).min(disk.room.unwrap_or(count));
            let moved = self.file.take(pipe, offset, count)?;
            disk.room = disk.room.map(|room| room - moved);
            disk.dirty.push((offset, moved));
            Ok(moved)
        }

        fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.disk().dirty.push((offset, bytes.len()));
            self.file.write(bytes, offset)
        }

        fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.file.read(buffer, offset)
        }

        fn sync(&self) -> io::Result<()> {
            let mut disk = self.disk();
            let dirty = std::mem::take(&mut disk.dirty);
            if disk.failing_syncs > 0 {
                disk.failing_syncs -= 1;
                return Err(io::Error::other("a bad disk"));
            }
            for (offset, count) in dirty {
                let end = offset as usize + count;
                let length = disk.durable.len().max(end);
                disk.durable.resize(length, 0);
                self.file.read_exact_at(&mut disk.durable[offset as usize..end], offset)?;
            }
            Ok(())
        }
    }

    /// A mover whose turns are made one by one.
    struct Bench {
        directory: tempfile::TempDir,
        mover: Mover,
        durable: Arc<Durable>,
        disk: Arc<Mutex<Disk>>,
        told: Arc<Mutex<Vec<Notice>>>,
    }

    impl Bench {
        fn new(max_bytes: u64) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("pipe");
            make_pipe(&path);
            let state_dir = directory.path().join("state");
            let (durable, disk) = (Arc::new(Durable::default()), Arc::<Mutex<Disk>>::default());
            let through = Arc::clone(&disk);
            let through = move |file| -> Box<dyn Segment> {
                Box::new(OnDisk { file, disk: Arc::clone(&through) })
            };
            let journal =
                Journal::open_through(&state_dir, Arc::clone(&durable), Box::new(through));
            let told = Arc::<Mutex<Vec<Notice>>>::default();
            let tell = Arc::clone(&told);
            let tell = Box::new(move |notice| tell.lock().unwrap().push(notice));
            let state = Arc::new(PipeState::new().unwrap());
            let settings = Settings { path, state_dir, max_bytes, max_line_bytes: 1000 };
            let mover = Mover::new(settings, journal, state, tell);
            Self { directory, mover, durable, disk, told }
        }

        fn path(&self) -> PathBuf {
            self.mover.settings.path.clone()
        }

        fn disk(&self) -> MutexGuard<'_, Disk> {
            self.disk.lock().unwrap()
        }

        /// A writer that is told when the pipe is full.
        fn writer(&self) -> File {
            writer_of(&self.path())
        }

        /// Looks at the path, and makes turns until there is no more or something is in the way.
        fn turn(&mut self) -> Result<(), Blocked> {
            self.mover.next_look = Instant::now();
            while self.mover.turn()? {}
            Ok(())
        }

        /// What the journal holds, ended segments first.
        fn journaled(&self) -> String {
            let directory = directory_in(&self.mover.settings.state_dir);
            let mut paths: Vec<_> =
                std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().path()).collect();
            paths.sort_by_key(|path| (*path == self.live(), path.clone()));
            paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
        }

        fn live(&self) -> PathBuf {
            live_in(&self.mover.settings.state_dir)
        }

        /// How much of the live segment may be read.
        fn readable(&self) -> u64 {
            let fs = JournalFs::new(Arc::new(RealFs), Arc::clone(&self.durable));
            fs.stat(&self.live()).unwrap().size
        }

        fn was_told(&self, notice: Notice) -> bool {
            self.told.lock().unwrap().contains(&notice)
        }
    }

    fn make_pipe(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    fn writer_of(path: &Path) -> File {
        OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    fn lines(count: usize) -> String {
        (0..count).map(|number| format!("line {number}\n")).collect::<Vec<_>>().concat()
    }

    #[test]
    fn fi_01_without_a_writer_and_with_a_silent_one_nothing_is_moved_and_nothing_is_wrong() {
        let mut bench = Bench::new(65_536);
        bench.turn().unwrap();
        let mut silent = OpenOptions::new().write(true).open(bench.path()).unwrap();
        bench.turn().unwrap();
        assert_eq!(bench.mover.state.rounds.load(Ordering::SeqCst), 2);
        assert!(bench.was_told(Notice::Opened));
        assert!(!bench.was_told(Notice::Ended) && !bench.was_told(Notice::Journaled));
        silent.write_all(b"a line\n").unwrap();
        drop(silent);
        bench.turn().unwrap();
        assert_eq!(bench.journaled(), "a line\n");
        assert!(bench.was_told(Notice::Journaled));
    }

    #[test]
    fn fi_08_moves_of_three_bytes_at_most_lose_none() {
        let mut bench = Bench::new(65_536);
        bench.disk().most = Some(3);
        let text = lines(1000);
        let writer = bench.writer();
        (&writer).write_all(text.as_bytes()).unwrap();
        bench.turn().unwrap();
        assert_eq!(bench.journaled(), text);
    }

    #[test]
    fn fi_05_a_full_journal_takes_whole_lines_and_goes_on_once_there_is_room() {
        let mut bench = Bench::new(65_536);
        bench.turn().unwrap();
        let text = lines(20_000);
        bench.writer().write_all(text.as_bytes()).unwrap();
        let blocked = bench.turn().unwrap_err();
        assert!(matches!(blocked, Blocked::Full(_)), "{blocked}");
        let held = bench.journaled();
        assert!((65_536..65_536 + 20).contains(&held.len()), "{}", held.len());
        assert!(held.ends_with('\n') && text.starts_with(&held));
        bench.mover.show(Some(&blocked));
        assert!(bench.mover.state.alarm().unwrap().contains("writers wait"));
        // It stays like that, whatever is asked for.
        let asked = bench.mover.state.ask();
        bench.turn().unwrap_err();
        assert!(!bench.mover.state.is_past(asked));
        assert_eq!(bench.journaled(), held);
        // As if all ended segments were delivered.
        let mut delivered = String::new();
        while bench.turn().is_err() {
            let directory = directory_in(&bench.mover.settings.state_dir);
            let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
            let mut ended: Vec<_> = entries.filter(|path| *path != bench.live()).collect();
            ended.sort();
            assert!(!ended.is_empty(), "nothing makes room");
            for path in ended {
                delivered += &std::fs::read_to_string(&path).unwrap();
                std::fs::remove_file(path).unwrap();
            }
        }
        assert_eq!(delivered + &bench.journaled(), text);
        assert!(bench.mover.state.is_past(asked));
    }

    #[test]
    fn fi_15_a_disk_that_is_full_in_the_middle_of_a_line_leaves_the_rest_in_the_pipe() {
        let mut bench = Bench::new(1 << 20);
        bench.turn().unwrap();
        let text = lines(1000);
        bench.disk().room = Some(505);
        bench.writer().write_all(text.as_bytes()).unwrap();
        let blocked = bench.turn().unwrap_err();
        assert!(matches!(blocked, Blocked::Journal(_)), "{blocked}");
        assert_eq!(bench.mover.pipes[0].available().unwrap(), text.len() as u64 - 505);
        // What did fit is read before there is room again.
        bench.turn().unwrap_err();
        assert_eq!(bench.readable(), 505);
        assert_eq!(bench.disk().durable, text.as_bytes()[..505]);
        bench.disk().room = None;
        bench.turn().unwrap();
        assert_eq!(bench.journaled(), text);
        assert_eq!(bench.disk().durable, text.as_bytes());
    }

    #[test]
    fn fi_08_what_a_failed_fsync_left_out_is_written_anew_and_not_read_before() {
        let mut bench = Bench::new(16 << 20);
        bench.turn().unwrap();
        let first = lines(10);
        bench.writer().write_all(first.as_bytes()).unwrap();
        bench.turn().unwrap();
        // More than is written anew at once.
        let text = lines(20_000);
        bench.disk().failing_syncs = 2;
        bench.writer().write_all(text.as_bytes()).unwrap();
        for _ in 0..2 {
            let blocked = bench.turn().unwrap_err();
            assert!(matches!(blocked, Blocked::Journal(_)), "{blocked}");
            assert_eq!(bench.readable(), first.len() as u64);
            // Nothing more is taken.
            bench.writer().write_all(b"later\n").unwrap();
        }
        bench.turn().unwrap();
        let all = first + &text + "later\nlater\n";
        assert_eq!(bench.readable(), all.len() as u64);
        assert_eq!(bench.journaled(), all);
        assert!(bench.disk().durable == all.as_bytes(), "something is not durable");
    }

    #[test]
    fn fi_13_a_line_that_never_ends_is_ended_and_cannot_fill_the_journal() {
        let mut bench = Bench::new(65_536);
        bench.turn().unwrap();
        let endless = "x".repeat(30_000);
        for _ in 0..20 {
            bench.writer().write_all(endless.as_bytes()).unwrap();
            match bench.turn() {
                Ok(()) => {}
                Err(Blocked::Full(held)) => {
                    // At a line's end, so that all of it can be settled.
                    assert!(held < 65_536 + 2000, "{held}");
                    assert!(bench.journaled().ends_with('\n'));
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{} bytes without a line end are in the journal", bench.journaled().len());
    }

    #[test]
    fn fi_05_a_line_longer_than_the_journal_is_delivered_and_makes_room_for_the_next() {
        let mut bench = Bench::new(65_536);
        bench.mover.settings.max_line_bytes = 1 << 20;
        bench.turn().unwrap();
        let long = "x".repeat(200_000) + "\n";
        bench.writer().write_all((long.clone() + "next\n").as_bytes()).unwrap();
        let blocked = bench.turn().unwrap_err();
        assert!(matches!(blocked, Blocked::Full(_)), "{blocked}");
        let ended = bench.live().with_file_name("pipe.jsonl-1000000000000000");
        assert!(std::fs::read_to_string(&ended).unwrap() == long);
        // It is delivered.
        std::fs::remove_file(ended).unwrap();
        bench.turn().unwrap();
        assert_eq!(bench.journaled(), "next\n");
    }

    #[test]
    fn fi_15_a_live_segment_that_somebody_cuts_or_removes_is_begun_anew_at_once() {
        let mut bench = Bench::new(65_536);
        let turn_with = |bench: &mut Bench, text: &str| {
            // Long before the next look at the path.
            bench.mover.next_look = Instant::now() + LOOK_INTERVAL;
            bench.writer().write_all(text.as_bytes()).unwrap();
            while bench.mover.turn().unwrap() {}
            assert_eq!(bench.journaled(), text);
            assert_eq!(bench.readable(), text.len() as u64);
        };
        bench.turn().unwrap();
        turn_with(&mut bench, "one\n");
        OpenOptions::new().write(true).open(bench.live()).unwrap().set_len(0).unwrap();
        turn_with(&mut bench, "two\n");
        std::fs::remove_file(bench.live()).unwrap();
        turn_with(&mut bench, "three\n");
        std::fs::remove_dir_all(&bench.mover.settings.state_dir).unwrap();
        turn_with(&mut bench, "four\n");
    }

    #[test]
    fn fi_09_what_comes_to_the_path_is_told_at_once() {
        let mut bench = Bench::new(65_536);
        bench.turn().unwrap();
        bench.told.lock().unwrap().clear();
        // Long before the next look.
        bench.mover.next_look = Instant::now() + LOOK_INTERVAL * 10;
        std::fs::rename(bench.path(), bench.directory.path().join("away")).unwrap();
        std::fs::write(bench.path(), "").unwrap();
        bench.mover.wait(false);
        bench.mover.turn().unwrap();
        assert!(bench.was_told(Notice::Moved));
        assert!(!bench.mover.pipes.iter().any(Pipe::is_kept), "it was looked at");
    }

    #[test]
    fn segments_are_numbered_whatever_other_files_are_beside_them() {
        let mut bench = Bench::new(65_536);
        for number in ["18446744073709551615", "99999999999999999999", "5", "x"] {
            std::fs::write(bench.live().with_file_name(format!("pipe.jsonl-{number}")), "")
                .unwrap();
        }
        bench.turn().unwrap();
        let text = lines(1000);
        bench.writer().write_all(text.as_bytes()).unwrap();
        bench.turn().unwrap();
        let first = bench.live().with_file_name("pipe.jsonl-1000000000000000");
        assert!(text.starts_with(&std::fs::read_to_string(first).unwrap()));
        assert_eq!(bench.journaled().len(), text.len());
    }

    #[test]
    fn fi_07_a_stop_takes_all_that_is_in_the_pipe_over_the_end_of_a_segment_and_opens_no_other() {
        // Segments of 4 KiB.
        let mut bench = Bench::new(65_536);
        bench.turn().unwrap();
        let text = lines(5_000);
        bench.writer().write_all(text.as_bytes()).unwrap();
        // One that came at its path, with a writer that would find a reader and lose it.
        std::fs::remove_file(bench.path()).unwrap();
        make_pipe(&bench.path());
        bench.mover.next_look = Instant::now();
        bench.mover.state.stop.store(true, Ordering::SeqCst);
        let Bench { directory, mover, told, .. } = bench;
        let settings = mover.settings.clone();
        told.lock().unwrap().clear();
        mover.run();
        assert!(!told.lock().unwrap().contains(&Notice::Opened));
        let mut held = String::new();
        let mut paths: Vec<_> = std::fs::read_dir(directory_in(&settings.state_dir))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort_by_key(|path| (*path == live_in(&settings.state_dir), path.clone()));
        for path in &paths {
            held += &std::fs::read_to_string(path).unwrap();
        }
        assert!(held == text, "{} of {} bytes", held.len(), text.len());
        drop(directory);
    }

    #[test]
    fn fi_09_a_pipe_that_is_back_at_its_path_is_held_again_and_one_that_cannot_be_seen_is_not_let_go()
     {
        let mut bench = Bench::new(65_536);
        bench.turn().unwrap();
        let path = bench.path();
        let away = bench.directory.path().join("away");
        // In the place of its directory, so to speak, is something that can't be looked through.
        std::fs::rename(&path, &away).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        bench.turn().unwrap();
        assert!(bench.mover.pipes[0].is_kept());
        writer_of(&away).write_all(b"one\n").unwrap();
        bench.turn().unwrap();
        // Gone, with a writer that has it open.
        std::fs::remove_file(&path).unwrap();
        let writer = OpenOptions::new().write(true).open(&away).unwrap();
        bench.turn().unwrap();
        assert!(!bench.mover.pipes[0].is_kept());
        std::fs::rename(&away, &path).unwrap();
        bench.turn().unwrap();
        assert!(bench.mover.pipes[0].is_kept());
        drop(writer);
        bench.turn().unwrap();
        assert_eq!(bench.mover.pipes.len(), 1);
        writer_of(&path).write_all(b"two\n").unwrap();
        bench.turn().unwrap();
        assert_eq!(bench.journaled(), "one\ntwo\n");
        assert!(!bench.was_told(Notice::Ended));
    }
}
