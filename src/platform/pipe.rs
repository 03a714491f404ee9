//! Named pipes: opened without waiting, enlarged, moved into files without a copy in memory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::names::NameWatch;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

/// How large pipes may be made without privileges, in bytes; where that can't be read, the kernel's default.
const SIZE_MAX: &str = "/proc/sys/fs/pipe-max-size";
const SIZE_DEFAULT: usize = 1 << 20;

/// A named pipe that is read, and held open for writing as well: it never ends for want of a writer.
pub struct Pipe {
    reader: File,
    keeper: Option<File>,
    id: (u64, u64),
}

impl Pipe {
    /// Opens the pipe at the path. None: something else stands there.
    ///
    /// # Errors
    /// The system's; `WouldBlock` while another process reads it through this function.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        // For both at once, so that a pipe which can't be held open is not opened at all: who waits for a
        // reader would find one, and lose what it writes when that one gives up.
        let mut both = OpenOptions::new();
        let keeper = both.read(true).write(true).custom_flags(without_waiting()).open(path)?;
        let facts = keeper.metadata()?;
        if !facts.file_type().is_fifo() {
            return Ok(None);
        }
        let mut reading = OpenOptions::new();
        let reader = reading.read(true).custom_flags(without_waiting()).open(itself(&keeper))?;
        // Two readers would share the lines out between them.
        reader.try_lock().map_err(io::Error::from)?;
        Ok(Some(Self { reader, keeper: Some(keeper), id: (facts.dev(), facts.ino()) }))
    }

    /// Whether another process reads the pipe at the path through [`Pipe::open`]. Who waits for a reader
    /// does not take this for one.
    pub fn is_taken(path: &Path) -> bool {
        let mut writing = OpenOptions::new();
        let writer = writing.write(true).custom_flags(without_waiting()).open(path);
        writer.is_ok_and(|writer| matches!(writer.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Device and inode.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// Whether users other than the owner and its group may write to it.
    pub fn is_open_to_all(&self) -> bool {
        self.reader.metadata().is_ok_and(|facts| facts.mode() & 0o002 != 0)
    }

    /// Makes it hold as much as this process may ask for. Gives how much that is.
    ///
    /// # Errors
    /// The system's: a user may only hold so much in pipes.
    pub fn enlarge(&self) -> io::Result<usize> {
        let most = std::fs::read_to_string(SIZE_MAX).ok().and_then(|text| text.trim().parse().ok());
        Ok(fcntl_setpipe_size(&self.reader, most.unwrap_or(SIZE_DEFAULT))?)
    }

    /// How many bytes are in it.
    ///
    /// # Errors
    /// The system's.
    pub fn available(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.reader)?)
    }

    /// Stops holding it open for writing: once its last writer goes, it has ended.
    pub fn let_go(&mut self) {
        self.keeper = None;
    }

    /// Holds it open for writing again.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&mut self) -> io::Result<()> {
        let mut both = OpenOptions::new();
        both.read(true).write(true).custom_flags(without_waiting());
        self.keeper = Some(both.open(itself(&self.reader))?);
        Ok(())
    }

    /// Whether it is held open for writing.
    pub fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// Whether it was let go, nobody has it open for writing any more, and it is empty.
    pub fn has_ended(&self) -> bool {
        let mut polled = [PollFd::new(&self.reader, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let got = retry_on_intr(|| poll(&mut polled, Some(&now)));
        let is_over = got.is_ok() && polled[0].revents() == PollFlags::HUP;
        self.keeper.is_none() && is_over
    }

    /// Moves at most `count` bytes to the file's `offset`; at each moment they are in one of the two.
    /// 0: there are none.
    ///
    /// # Errors
    /// The file's: what did not fit stays in the pipe.
    pub fn move_to(&self, file: &File, offset: u64, count: usize) -> io::Result<usize> {
        let mut at = offset;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = retry_on_intr(|| splice(&self.reader, None, file, Some(&mut at), count, flags));
        empty_is_none(moved)
    }
}

fn without_waiting() -> i32 {
    (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed()
}

/// The pipe that is open, not what stands at its path by now.
fn itself(open: &File) -> String {
    format!("/proc/self/fd/{}", open.as_raw_fd())
}

/// A pipe of this process's own, to look at bytes of another one without taking them out of it.
pub struct Glass {
    out: File,
    into: OwnedFd,
}

impl Glass {
    /// One that holds as much as pipes may.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller one shows less at once.
        let _ = fcntl_setpipe_size(&into, SIZE_DEFAULT);
        Ok(Self { out: File::from(out), into })
    }

    /// What stands at the beginning of a pipe.
    ///
    /// # Errors
    /// The system's.
    pub fn look(&mut self, pipe: &Pipe) -> io::Result<Vec<u8>> {
        let flags = SpliceFlags::NONBLOCK;
        let shown = retry_on_intr(|| tee(&pipe.reader, &self.into, SIZE_DEFAULT, flags));
        let mut bytes = vec![0; empty_is_none(shown)?];
        io::Read::read_exact(&mut self.out, &mut bytes)?;
        Ok(bytes)
    }
}

fn empty_is_none(moved: Result<usize, Errno>) -> io::Result<usize> {
    match moved {
        Err(Errno::AGAIN) => Ok(0),
        moved => Ok(moved?),
    }
}

/// Wakes one thread that waits for pipes. Waking it again before it wakes does nothing more.
pub struct Waker(OwnedFd);

impl Waker {
    /// One that nobody has rung.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Ends the present wait, or the next one.
    pub fn wake(&self) {
        // It is full: it was rung often enough.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until it is rung, one of the pipes has something, a name may have changed, or the time is over.
    ///
    /// # Errors
    /// The system's.
    pub fn wait<'a>(
        &self,
        pipes: impl Iterator<Item = &'a Pipe>,
        names: Option<&NameWatch>,
        time: std::time::Duration,
    ) -> io::Result<()> {
        let mut polled = vec![PollFd::new(&self.0, PollFlags::IN)];
        polled
            .extend(pipes.map(|pipe| PollFd::from_borrowed_fd(pipe.reader.as_fd(), PollFlags::IN)));
        polled.extend(names.map(|names| PollFd::new(names, PollFlags::IN)));
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut rung = [0; 8];
        match rustix::io::read(&self.0, &mut rung) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    fn fifo() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        (directory, path)
    }

    fn writer(path: &Path) -> File {
        OpenOptions::new().write(true).open(path).unwrap()
    }

    #[test]
    fn bytes_are_seen_in_the_pipe_and_then_moved_to_the_file() {
        let (directory, path) = fifo();
        let pipe = Pipe::open(&path).unwrap().unwrap();
        assert!(pipe.enlarge().unwrap() >= 65_536);
        let file = File::create(directory.path().join("file")).unwrap();
        assert_eq!(pipe.move_to(&file, 0, 100).unwrap(), 0);
        writer(&path).write_all(b"one\ntwo\n").unwrap();
        let mut glass = Glass::new().unwrap();
        assert_eq!(glass.look(&pipe).unwrap(), b"one\ntwo\n");
        assert_eq!(pipe.available().unwrap(), 8);
        assert_eq!(pipe.move_to(&file, 3, 4).unwrap(), 4);
        assert_eq!(glass.look(&pipe).unwrap(), b"two\n");
        assert_eq!(pipe.move_to(&file, 7, 100).unwrap(), 4);
        assert_eq!(glass.look(&pipe).unwrap(), b"");
        let content = std::fs::read(directory.path().join("file")).unwrap();
        assert_eq!(content, b"\0\0\0one\ntwo\n");
    }

    #[test]
    fn fi_02_it_does_not_end_before_it_is_let_go_and_its_last_writer_is_gone() {
        let (_directory, path) = fifo();
        let mut pipe = Pipe::open(&path).unwrap().unwrap();
        let last = writer(&path);
        drop(writer(&path));
        assert!(!pipe.has_ended());
        pipe.let_go();
        assert!(!pipe.has_ended(), "it has a writer");
        (&last).write_all(b"x\n").unwrap();
        drop(last);
        assert!(!pipe.has_ended(), "it is not empty");
        let file = tempfile::tempfile().unwrap();
        assert_eq!(pipe.move_to(&file, 0, 10).unwrap(), 2);
        assert!(pipe.has_ended());
        // It is back at its path.
        pipe.keep().unwrap();
        assert!(pipe.is_kept() && !pipe.has_ended());
        drop(writer(&path));
        assert!(!pipe.has_ended());
    }

    #[test]
    fn a_second_reader_is_refused_and_other_things_are_no_pipes() {
        let (directory, path) = fifo();
        let pipe = Pipe::open(&path).unwrap().unwrap();
        let error = Pipe::open(&path).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(Pipe::is_taken(&path));
        drop(pipe);
        assert!(!Pipe::is_taken(&path));
        assert!(Pipe::open(&path).unwrap().is_some());
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Pipe::open(&file).unwrap().is_none());
        assert!(Pipe::open(&directory.path().join("none")).is_err());
    }

    #[test]
    fn who_waits_is_woken_by_the_bell_or_by_bytes() {
        let (_directory, path) = fifo();
        let pipe = Pipe::open(&path).unwrap().unwrap();
        let waker = Waker::new().unwrap();
        let wait = || waker.wait(std::iter::once(&pipe), None, Duration::from_mins(1)).unwrap();
        waker.wake();
        waker.wake();
        wait();
        writer(&path).write_all(b"x\n").unwrap();
        wait();
    }
}
