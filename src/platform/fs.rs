//! System calls on the input and on the state directory, behind one small seam.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// What a path or an open file is, as far as following it needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// What kind of thing it is.
    pub kind: FileKind,
    /// The device; may change over a remount.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// Nanoseconds from 1970 to the birth of the inode, where the file system records it.
    pub born_ns: Option<i64>,
    /// Size in bytes.
    pub size: u64,
    /// Nanoseconds from 1970 to the last write.
    pub modified_ns: i64,
    /// How many names it has.
    pub links: u64,
}

/// The kinds of thing that can stand at the input path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A named pipe.
    Fifo,
    /// A directory.
    Directory,
    /// A device, a socket.
    Other,
}

impl FileKind {
    /// For messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "file",
            Self::Fifo => "named pipe",
            Self::Directory => "directory",
            Self::Other => "device or socket",
        }
    }
}

/// Whether the process, or the whole system, has too many files open: nothing can be said of this one.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The system calls that the bridge makes on its input and its state.
pub trait Fs: Send + Sync {
    /// Facts of what stands at `path`, symbolic links followed.
    fn stat(&self, path: &Path) -> io::Result<FileFacts>;
    /// What a symbolic link at the path leads to, whether it is there or not; else the path itself.
    fn target(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
    /// Opens for reading; never blocks, whatever stands at the path.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn InputFile>>;
    /// The files of a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// The whole content of a small file; one beyond `limit` bytes is `InvalidData`.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// Creates a file that must not exist yet (mode 0600).
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StateFile>>;
    /// Opens for writing, creating the file (mode 0600) where it is missing; a symbolic link is
    /// refused.
    fn open_state(&self, path: &Path) -> io::Result<Box<dyn StateFile>>;
    /// Atomically replaces `to` by `from`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file a second name.
    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory (mode 0700), its parents included.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// An open input file.
pub trait InputFile: Send + Sync {
    /// Facts of the open file, whatever stands at its path by now.
    fn facts(&self) -> io::Result<FileFacts>;
    /// Reads at `offset` into `first`, and what follows into `second`, in one system call.
    fn read_at(&self, first: &mut [u8], second: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The descriptor that it is open by, if it is one of this process.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Where the hole ends that `offset` lies in; `offset` itself where there is none, or that can't be told.
    fn end_of_hole(&self, offset: u64) -> u64 {
        offset
    }
}

/// An open file of the state directory.
pub trait StateFile: Send {
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// The bytes at `offset`, as many as there are.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Cuts or extends the file.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Makes content and size durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes the advisory lock; `WouldBlock` while another process has it. Held until drop.
    fn try_lock(&self) -> io::Result<()>;
    /// Facts of the open file.
    fn facts(&self) -> io::Result<FileFacts>;
}

/// How many bytes this process may still write to the disk that `path` is on, and how many that disk has.
///
/// # Errors
/// The system's.
pub fn free_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let facts = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
    Ok((bytes(facts.f_bavail), bytes(facts.f_blocks)))
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn stat(&self, path: &Path) -> io::Result<FileFacts> {
        std::fs::metadata(path).map(|metadata| facts(&metadata))
    }

    fn target(&self, path: &Path) -> PathBuf {
        let mut target = path.to_owned();
        // As many as the kernel follows.
        for _ in 0..40 {
            let Ok(next) = std::fs::read_link(&target) else { break };
            target = target.parent().unwrap_or(Path::new(".")).join(next);
        }
        target
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn InputFile>> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file =
            OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        Ok(Arc::new(file))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file =
            OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        file.take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
        }
        Ok(content)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StateFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(file))
    }

    fn open_state(&self, path: &Path) -> io::Result<Box<dyn StateFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        std::fs::hard_link(original, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl InputFile for File {
    fn facts(&self) -> io::Result<FileFacts> {
        self.metadata().map(|metadata| facts(&metadata))
    }

    fn read_at(&self, first: &mut [u8], second: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut slices = [IoSliceMut::new(first), IoSliceMut::new(second)];
        Ok(rustix::io::retry_on_intr(|| rustix::io::preadv(self, &mut slices, offset))?)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn end_of_hole(&self, offset: u64) -> u64 {
        // Reads here are at offsets of their own: where the descriptor stands does not matter.
        rustix::fs::seek(self, rustix::fs::SeekFrom::Data(offset))
            .map_or(offset, |at| at.max(offset))
    }
}

impl StateFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn try_lock(&self) -> io::Result<()> {
        File::try_lock(self).map_err(io::Error::from)
    }

    fn facts(&self) -> io::Result<FileFacts> {
        self.metadata().map(|metadata| facts(&metadata))
    }
}

fn facts(metadata: &Metadata) -> FileFacts {
    let kind = metadata.file_type();
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    FileFacts {
        kind: if kind.is_file() {
            FileKind::Regular
        } else if kind.is_fifo() {
            FileKind::Fifo
        } else if kind.is_dir() {
            FileKind::Directory
        } else {
            FileKind::Other
        },
        dev: metadata.dev(),
        ino: metadata.ino(),
        born_ns: born.and_then(|born| i64::try_from(born.as_nanos()).ok()),
        size: metadata.size(),
        modified_ns: metadata.mtime().saturating_mul(1_000_000_000) + metadata.mtime_nsec(),
        links: metadata.nlink(),
    }
}
