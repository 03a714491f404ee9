//! The journal of a named pipe: what was taken out of it, durable before anyone reads it.
//!
//! The segment that is written to has always the same name; a full one gets a number behind it, as if it
//! were rotated, and is followed as rotated files are. It ends with a line end, and nobody writes to it
//! any more. Once everything in it is settled and a commit says so, it is removed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::domain::identity::Identity;
use crate::platform::clock::machine_start;
use crate::platform::fs::{FileFacts, Fs, InputFile, RealFs, StateFile, free_bytes};
use crate::platform::pipe::Pipe;
use crate::source::file::identity_of;

/// In the state directory.
const DIRECTORY: &str = "journal";

/// The segment that is written to.
const LIVE: &str = "pipe.jsonl";

/// The first number. All are as long as this one, so that they sort as dates do.
const FIRST: u64 = 1_000_000_000_000_000;

/// How much of the disk is left to the checkpoint: without it no segment is ever removed, and a disk that the
/// journal filled would stay full. On a small disk, a part of it.
const LEFT_BYTES: u64 = 1 << 20;
const LEFT_PART: u64 = 4;

/// How much is written anew at once.
const REWRITE_BYTES: usize = 65_536;

/// Where the journal of a state directory is.
pub fn directory_in(state_dir: &Path) -> PathBuf {
    state_dir.join(DIRECTORY)
}

/// The path that is followed in the place of a pipe.
pub fn live_in(state_dir: &Path) -> PathBuf {
    directory_in(state_dir).join(LIVE)
}

/// Whether anything was ever taken out of a pipe and is there still.
pub fn holds_anything(state_dir: &Path) -> bool {
    let segments = segments(&directory_in(state_dir)).unwrap_or_default();
    let live = std::fs::metadata(live_in(state_dir)).map_or(0, |live| live.len());
    live > 0 || !segments.is_empty()
}

/// The file of the segment that is written to.
pub(super) trait Segment: Send {
    /// Moves at most `count` bytes from the pipe to `offset`.
    fn take(&self, pipe: &Pipe, offset: u64, count: usize) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills `buffer` from `offset` on.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&self) -> io::Result<()>;
}

impl Segment for File {
    fn take(&self, pipe: &Pipe, offset: u64, count: usize) -> io::Result<usize> {
        pipe.move_to(self, offset, count)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// What a segment's file is used through: tests have one that fails.
pub(super) type Through = Box<dyn Fn(File) -> Box<dyn Segment> + Send>;

/// The segments, and the one that is written to.
pub(super) struct Journal {
    directory: PathBuf,
    durable: Arc<Durable>,
    through: Through,
    /// None: it can't be opened at the moment.
    live: Option<Live>,
}

struct Live {
    file: Box<dyn Segment>,
    id: (u64, u64),
    size: u64,
    synced: u64,
    /// Whether what is not durable has to be written anew: after a failed fsync the next one says that it is
    /// durable, and it need not be.
    unsure: bool,
}

impl Live {
    fn write_anew(&self) -> io::Result<()> {
        let mut buffer = vec![0; REWRITE_BYTES];
        let mut at = self.synced;
        while at < self.size {
            let count = (self.size - at).min(REWRITE_BYTES as u64) as usize;
            self.file.read(&mut buffer[..count], at)?;
            self.file.write(&buffer[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }
}

impl Journal {
    /// Goes on with the journal in a state directory, or begins one.
    pub(super) fn open(state_dir: &Path, durable: Arc<Durable>) -> Self {
        Self::open_through(state_dir, durable, Box::new(|file| Box::new(file)))
    }

    pub(super) fn open_through(state_dir: &Path, durable: Arc<Durable>, through: Through) -> Self {
        let directory = directory_in(state_dir);
        let mut journal = Self { directory, durable, through, live: None };
        // What stands in the way is told when it is written to, and tried again until then.
        let _ = journal.live();
        journal
    }

    fn live(&mut self) -> io::Result<&mut Live> {
        let live = match self.live.take() {
            Some(live) => live,
            None => self.open_live()?,
        };
        Ok(self.live.insert(live))
    }

    /// What comes out of the pipe goes on where an earlier run left it, in the middle of a line too; but not if
    /// the machine went down since then, and what was in the pipe with it.
    fn open_live(&self) -> io::Result<Live> {
        RealFs.create_directory(&self.directory)?;
        let mut options = OpenOptions::new();
        // Not to be appended to: splice refuses that.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.directory.join(LIVE))?;
        let facts = file.metadata()?;
        let id = (facts.dev(), facts.ino());
        // What an earlier run moved here may be in the cache alone.
        self.durable.set(id, 0);
        let mut size = facts.len();
        if facts.modified()? < machine_start() && !ends_with_line(&file, size)? {
            warn!("a line was cut off when the machine went down: it is ended");
            FileExt::write_all_at(&file, b"\n", size)?;
            size += 1;
        }
        file.sync_all()?;
        RealFs.sync_directory(&self.directory)?;
        let file = (self.through)(file);
        self.durable.set(id, size);
        Ok(Live { file, id, size, synced: size, unsure: false })
    }

    /// The live segment is opened anew if its name is gone, with the state directory perhaps, or if somebody
    /// cut it: behind its end there is nothing to go on with.
    pub(super) fn look_again(&mut self) {
        let there = std::fs::metadata(self.directory.join(LIVE)).ok();
        let is_it = |live: &Live| {
            let there = there.as_ref().filter(|there| (there.dev(), there.ino()) == live.id);
            there.map_or(live.size > live.synced, |there| there.len() >= live.size)
        };
        self.live = self.live.take().filter(is_it);
    }

    /// Takes at most `count` bytes out of the pipe. Gives how many there were.
    ///
    /// # Errors
    /// The system's; what could not be moved is in the pipe.
    pub(super) fn take(&mut self, pipe: &Pipe, count: usize) -> io::Result<usize> {
        let live = self.live()?;
        let moved = live.file.take(pipe, live.size, count)?;
        live.size += moved as u64;
        Ok(moved)
    }

    /// Ends a line that nobody ends.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn end_line(&mut self) -> io::Result<()> {
        let live = self.live()?;
        live.file.write(b"\n", live.size)?;
        live.size += 1;
        Ok(())
    }

    /// Whether the next byte begins a line.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn is_at_line_start(&mut self) -> io::Result<bool> {
        let live = self.live()?;
        ends_with_line(&*live.file, live.size)
    }

    /// Makes everything durable that was taken, and lets it be read. False: that was nothing.
    ///
    /// # Errors
    /// The system's; nothing of it is read then.
    pub(super) fn sync(&mut self) -> io::Result<bool> {
        let live = self.live()?;
        if live.synced == live.size {
            return Ok(false);
        }
        if live.unsure {
            live.write_anew()?;
        }
        live.unsure = true;
        live.file.sync()?;
        live.unsure = false;
        live.synced = live.size;
        let (id, synced) = (live.id, live.synced);
        self.durable.set(id, synced);
        Ok(true)
    }

    /// How much may be taken before the disk is full.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn room(&self) -> io::Result<u64> {
        let (free, all) = free_bytes(&self.directory)?;
        if all == 0 {
            // This one does not say.
            return Ok(u64::MAX);
        }
        Ok(free.saturating_sub(LEFT_BYTES.min(all / LEFT_PART)))
    }

    /// How much is in the live segment.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.size)
    }

    /// Ends the live segment, which is durable and ends with a line, and begins the next one.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        let last = segments(&self.directory)?.last().map_or(FIRST, |(number, _)| number + 1);
        let sealed = self.directory.join(format!("{LIVE}-{last}"));
        std::fs::rename(self.directory.join(LIVE), sealed)?;
        self.live = None;
        self.live().map(drop)
    }

    /// How much all segments hold.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        let sealed = segments(&self.directory)?;
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |facts| facts.len());
        Ok(sealed.iter().map(|(_, path)| size(path)).sum::<u64>() + self.live_bytes())
    }
}

fn ends_with_line(segment: &dyn Segment, size: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if let Some(before) = size.checked_sub(1) {
        segment.read(&mut last, before)?;
    }
    Ok(last == [b'\n'])
}

/// The sealed segments, oldest first.
fn segments(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(LIVE)?.strip_prefix('-')?.parse().ok());
        // Other names are others' files.
        let number = number.filter(|number| (FIRST..10 * FIRST).contains(number));
        segments.extend(number.map(|number| (number, path)));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Removes the segments that are settled: a commit that knows the lives in `open`, oldest first, is durable.
/// They are read in their order, so what is older than the newest of those, and none of them, is done.
///
/// # Errors
/// The system's; it is tried again after the next commit.
pub fn drop_settled(state_dir: &Path, open: &[Identity]) -> io::Result<bool> {
    let sealed = segments(&directory_in(state_dir))?;
    let Some(newest) = open.last() else { return Ok(false) };
    let identity_of = |path: &Path| RealFs.stat(path).map(|facts| identity_of(&facts));
    let mut segments = Vec::new();
    for (_, path) in sealed {
        segments.push((identity_of(&path)?, path));
    }
    let place = segments.iter().position(|(identity, _)| identity.is_same_file(newest));
    let is_live = || identity_of(&live_in(state_dir)).is_ok_and(|live| live.is_same_file(newest));
    let older = match place {
        Some(place) => &segments[..place],
        // Looked at after those with numbers: what became one meanwhile is not among them.
        None if is_live() => &segments[..],
        None => &[],
    };
    let is_open = |identity: &Identity| open.iter().any(|other| other.is_same_file(identity));
    let mut dropped = false;
    for (_, path) in older.iter().filter(|(identity, _)| !is_open(identity)) {
        std::fs::remove_file(path)?;
        dropped = true;
    }
    Ok(dropped)
}

/// How far the live segment is durable.
#[derive(Default)]
pub struct Durable(Mutex<Option<((u64, u64), u64)>>);

impl Durable {
    fn set(&self, live: (u64, u64), end: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((live, end));
    }

    /// As if there were no more of it.
    fn limit(&self, facts: FileFacts) -> FileFacts {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = known.filter(|(live, _)| *live == (facts.dev, facts.ino)).map(|(_, end)| end);
        FileFacts { size: facts.size.min(end.unwrap_or(u64::MAX)), ..facts }
    }
}

/// The files as they are, but for the live segment: of that only as much as is durable.
pub struct JournalFs {
    fs: Arc<dyn Fs>,
    durable: Arc<Durable>,
}

impl JournalFs {
    /// A view of `fs`.
    pub fn new(fs: Arc<dyn Fs>, durable: Arc<Durable>) -> Self {
        Self { fs, durable }
    }
}

struct JournalFile {
    file: Arc<dyn InputFile>,
    durable: Arc<Durable>,
}

impl InputFile for JournalFile {
    fn facts(&self) -> io::Result<FileFacts> {
        Ok(self.durable.limit(self.file.facts()?))
    }

    fn read_at(&self, first: &mut [u8], second: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(first, second, offset)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }

    fn end_of_hole(&self, offset: u64) -> u64 {
        self.file.end_of_hole(offset)
    }
}

impl Fs for JournalFs {
    fn stat(&self, path: &Path) -> io::Result<FileFacts> {
        Ok(self.durable.limit(self.fs.stat(path)?))
    }

    fn target(&self, path: &Path) -> PathBuf {
        self.fs.target(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn InputFile>> {
        let (file, durable) = (self.fs.open(path)?, Arc::clone(&self.durable));
        Ok(Arc::new(JournalFile { file, durable }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.fs.list(directory)
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        self.fs.read(path, limit)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StateFile>> {
        self.fs.create_new(path)
    }

    fn open_state(&self, path: &Path) -> io::Result<Box<dyn StateFile>> {
        self.fs.open_state(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.fs.hard_link(original, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.fs.create_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.fs.sync_directory(path)
    }
}
