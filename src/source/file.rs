//! A file that is followed: read forward, each time checked that it is still the same content.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use super::compare::{Common, Known};
use super::extent::Extent;
pub use super::extent::Vanished;
use super::gzip::Gzip;
use crate::domain::framing::{CONTEXT_BYTES, Frame, LineFramer};
use crate::domain::identity::{self, Fingerprint, HEAD_BYTES, Identity};
use crate::domain::position::{Generation, Span};
use crate::platform::fs::{FileFacts, FileKind, Fs, InputFile};
use crate::platform::mutants::{Mutant, makes};

/// How much is read at once.
pub const BLOCK_BYTES: usize = 256 << 10;

/// How much of what was read is kept to know its last line by.
const RECENT_BYTES: usize = 4096;

/// An open input file and how far it was read.
pub struct FollowedFile {
    pub(super) file: Arc<dyn InputFile>,
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    pub(super) framer: LineFramer,
    /// The first bytes, until the head is complete.
    pub(super) head_bytes: Vec<u8>,
    pub(super) head: Option<Fingerprint>,
    pub(super) generation: Option<Generation>,
    pub(super) after: Option<Generation>,
    pub(super) extent: Extent,
    /// Where its last whole line ended, once it is finished.
    whole: Option<u64>,
    overlap: Vec<u8>,
    /// Where the NULs begin that were read last, and what stands before them.
    pub(super) before_nuls: Option<(u64, Vec<u8>)>,
    /// The last bytes that were read, at most [`RECENT_BYTES`].
    pub(super) recent: Vec<u8>,
}

/// What stands at the input path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtPath {
    /// A regular file.
    File(Identity),
    /// Nothing.
    Missing,
    /// Something that can't be followed.
    WrongType(FileKind),
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// New bytes; [`FollowedFile::next_frame`] gives the lines.
    Data,
    /// Nothing new.
    End,
    /// Bytes that were there are not any more. What was read may still be there.
    Cut(Cut),
}

/// What happened to an open file that is not only appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Shorter than what was read; else: other bytes before the position.
    pub truncated: bool,
    /// The smallest size that was seen since.
    pub left: u64,
    /// Bytes known to have been there that were not read.
    pub unread: Span,
}

/// Looks at the input path, links followed.
///
/// # Errors
/// The system's, other than the path being missing.
pub fn look(fs: &dyn Fs, path: &Path) -> io::Result<AtPath> {
    match fs.stat(path) {
        Ok(facts) if facts.kind == FileKind::Regular => Ok(AtPath::File(identity_of(&facts))),
        Ok(facts) => Ok(AtPath::WrongType(facts.kind)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(AtPath::Missing),
        Err(error) => Err(error),
    }
}

impl FollowedFile {
    /// Opens the file at `path` to be read from its start. None if there is no regular file by
    /// now. `after` is the life that the same inode had before.
    pub fn open(
        fs: &dyn Fs,
        path: &Path,
        max_line: usize,
        after: Option<(Identity, Option<Generation>)>,
    ) -> io::Result<Option<Self>> {
        let Some((file, facts)) = open_regular(fs, path)? else { return Ok(None) };
        let identity = identity_of(&facts);
        let after = after.filter(|(former, _)| former.is_same_file(&identity));
        let after = after.and_then(|(_, generation)| generation);
        Ok(Some(Self::at_start(file, path, &facts, after, max_line)))
    }

    /// A file that is open already, to be read from its start.
    ///
    /// # Errors
    /// The system's.
    pub fn of_open(file: Arc<dyn InputFile>, path: &Path, max_line: usize) -> io::Result<Self> {
        let facts = file.facts()?;
        Ok(Self::at_start(file, path, &facts, None, max_line))
    }

    /// The descriptor that it is open by.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }

    /// Opens a rotated file to be read from its start, unpacked if it is packed. None if it is gone
    /// by now.
    ///
    /// # Errors
    /// The system's; `InvalidData` for what can't be unpacked.
    pub fn open_rotated(fs: &dyn Fs, path: &Path, max_line: usize) -> io::Result<Option<Self>> {
        let Some((mut file, mut facts)) = open_regular(fs, path)? else { return Ok(None) };
        if is_packed(path) {
            file = Arc::new(Gzip::new(file));
            facts = file.facts()?;
        }
        Ok(Some(Self::at_start(file, path, &facts, None, max_line)))
    }

    /// The life that follows this one in the same open file, from its start. The path may name
    /// another file by now.
    #[must_use]
    pub fn next_life(&self, max_line: usize) -> Self {
        let file = Arc::clone(&self.file);
        let extent = Extent::after(&self.extent);
        let mut next = Self { extent, ..Self::new(file, &self.path, self.identity, max_line) };
        // A life that ended before it had a name passes on the one before it.
        let former = self.generation.or(self.after);
        next.after = former.filter(|_| !makes(Mutant::SecondLifeUnnamed));
        next
    }

    fn at_start(
        file: Arc<dyn InputFile>,
        path: &Path,
        facts: &FileFacts,
        after: Option<Generation>,
        max_line: usize,
    ) -> Self {
        let extent = Extent::of(facts);
        Self { after, extent, ..Self::new(file, path, identity_of(facts), max_line) }
    }

    fn new(file: Arc<dyn InputFile>, path: &Path, identity: Identity, max_line: usize) -> Self {
        Self {
            file,
            path: path.to_owned(),
            identity,
            framer: LineFramer::new(0, b"", max_line),
            head_bytes: Vec::new(),
            head: None,
            generation: None,
            after: None,
            extent: Extent::default(),
            whole: None,
            overlap: Vec::new(),
            before_nuls: None,
            recent: Vec::new(),
        }
    }

    /// The bytes before the unfinished line, to find its place again: a whole line at least, since events
    /// may well end alike. None if they are not known.
    pub fn line_mark(&self) -> Option<Fingerprint> {
        let unfinished = usize::try_from(self.framer.position() - self.line_start()).ok()?;
        let before = &self.recent[..self.recent.len().checked_sub(unfinished)?];
        let line = memchr::memrchr(b'\n', before.split_last()?.1).map_or(0, |end| end + 1);
        let is_whole = line > 0 || before.len() as u64 == self.line_start();
        let from = line.min(before.len().saturating_sub(CONTEXT_BYTES));
        is_whole.then(|| Fingerprint::of_stretch(&before[from..]))
    }

    /// Whether what was read is still there, though what followed it may not be. Where nothing was read,
    /// that can't be told.
    pub fn is_intact(&self) -> io::Result<bool> {
        Ok(!self.framer.tail().is_empty() && self.tail_stands_in(self)?)
    }

    /// Whether it was seen to be shorter than before, and that is not told yet.
    pub(super) fn has_shrunk(&self) -> bool {
        self.shrunk_to().is_some()
    }

    /// How short it was then, at the least.
    pub fn shrunk_to(&self) -> Option<u64> {
        self.extent.shrunk_to()
    }

    /// When it was last written, whatever that did.
    pub fn changed_ns(&self) -> i64 {
        self.extent.modified_ns()
    }

    /// What came in the place of what vanished, and vanished too, since this was asked last.
    pub fn take_vanished(&mut self) -> Option<Vanished> {
        self.extent.take_vanished()
    }

    /// Goes on with fewer bytes than there were.
    pub fn accept_size(&mut self, size: u64) {
        self.extent.accept(size);
    }

    /// Whether it has no name any more: nobody can open it again.
    pub fn is_deleted(&self) -> bool {
        self.file.facts().is_ok_and(|facts| facts.links == 0)
    }

    /// Forgets the unfinished line, which goes on elsewhere.
    pub fn forget_unfinished(&mut self, max_line: usize) {
        self.framer = LineFramer::new(self.line_start(), b"", max_line);
    }

    /// Reads from the start what was put elsewhere.
    pub fn start_again(&mut self, max_line: usize) {
        *self = self.from_start(max_line);
    }

    /// The same open file, to be read from its start.
    #[must_use]
    pub fn from_start(&self, max_line: usize) -> Self {
        let file = Arc::clone(&self.file);
        let fresh = Self::new(file, &self.path, self.identity, max_line);
        Self { extent: self.extent.told(), ..fresh }
    }

    /// Goes on reading this life, at the same place, in a copy of it.
    pub fn go_on_in(&mut self, copy: Self) {
        self.file = copy.file;
        self.path = copy.path;
        self.identity = copy.identity;
        self.extent = copy.extent.told();
    }

    /// Moves a file opened at its start to just after the last LF before `limit`.
    pub fn move_to_line_end(&mut self, limit: u64, max_line: usize) -> io::Result<()> {
        let end = self.last_line_end(limit.min(self.extent.size()))?;
        self.move_to(end, max_line)
    }

    /// The bytes before an offset, as many as are compared.
    pub(super) fn context_of(&self, end: u64) -> io::Result<Vec<u8>> {
        let from = end.saturating_sub(CONTEXT_BYTES as u64);
        self.peek(from, (end - from) as usize)
    }

    /// Moves a file opened at its start to the end of a line.
    pub fn move_to(&mut self, end: u64, max_line: usize) -> io::Result<()> {
        if end == 0 {
            return Ok(());
        }
        let context = self.context_of(end)?;
        self.head_bytes = self.peek(0, HEAD_BYTES)?;
        self.learn_head();
        self.framer = LineFramer::new(end, &context, max_line);
        self.recent = context;
        Ok(())
    }

    /// Reads what is new, at most a block.
    pub fn read(&mut self) -> io::Result<Read> {
        let facts = self.file.facts()?;
        let (size_before, written_ns) = (self.extent.size(), self.extent.written_ns());
        self.extent.see(&facts);
        self.go_back_before_nuls(facts.size)?;
        let (position, known_size, left) =
            (self.framer.position(), self.extent.size(), self.extent.shrunk_to());
        let cut = |truncated| {
            // What other content has grown by is not of this one.
            let known_size = if truncated { known_size } else { size_before };
            let unread = Span { start: position, end: known_size.max(position) };
            Ok(Read::Cut(Cut { truncated, left: left.unwrap_or(facts.size), unread }))
        };
        // From what is only appended to nothing goes away, read or not.
        if facts.size < position || left.is_some() {
            return cut(true);
        }
        if let Some(skipped) = self.skip_hole(facts.size) {
            return skipped;
        }
        let wanted = usize::try_from(facts.size - position).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let overlap = self.framer.tail().len();
        self.overlap.resize(overlap, 0);
        let from = position - overlap as u64;
        // A read may give less than there is: only one that gives nothing is the end.
        let least = overlap + usize::from(wanted > 0);
        let mut got = 0;
        while got < least {
            let known = &mut self.overlap[got.min(overlap)..];
            match self.file.read_at(known, self.framer.space(wanted), from + got as u64)? {
                0 => break,
                more => got += more,
            }
        }
        if got < overlap {
            self.framer.filled(0);
            return cut(true);
        }
        if self.overlap != self.framer.tail() && !makes(Mutant::MarkUnchecked) {
            self.framer.filled(0);
            self.extent.is_other(written_ns);
            return cut(false);
        }
        // A file that is resumed at its start has nothing before the position, but perhaps a head.
        if position == 0
            && let Some(head) = &self.head
            && !head.matches(&self.peek(0, head.length as usize)?)
        {
            self.framer.filled(0);
            self.extent.is_other(written_ns);
            return cut(false);
        }
        let fresh = got - overlap;
        if self.generation.is_none() && self.head.is_none() {
            let bytes = self.framer.fresh(fresh);
            let missing = HEAD_BYTES.saturating_sub(self.head_bytes.len()).min(bytes.len());
            self.head_bytes.extend_from_slice(&bytes[..missing]);
            self.learn_head();
        }
        let bytes = self.framer.fresh(fresh);
        self.recent.extend_from_slice(&bytes[fresh.saturating_sub(RECENT_BYTES)..]);
        self.recent.drain(..self.recent.len().saturating_sub(RECENT_BYTES));
        self.framer.filled(fresh);
        Ok(if fresh == 0 { Read::End } else { Read::Data })
    }

    /// The next whole line that was read.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.framer.next_frame()
    }

    /// The unfinished line, when this life is over.
    pub fn finish(&mut self) -> Option<Frame> {
        self.whole = Some(self.line_start());
        let frame = self.framer.finish().filter(|_| !makes(Mutant::TailForgotten))?;
        if self.generation.is_none() {
            // The file ended before its first line did: what there is names it.
            let head = Fingerprint::of_mark(&self.head_bytes);
            self.generation = Some(identity::generation(&self.identity, &head, self.after));
        }
        Some(frame)
    }

    /// Whole lines that were read and not handed out.
    pub fn lines_ready(&self) -> u64 {
        self.framer.lines_ready()
    }

    /// The offset behind the last byte read.
    pub fn position(&self) -> u64 {
        self.framer.position()
    }

    /// Where the unfinished line began.
    pub fn line_start(&self) -> u64 {
        self.framer.line_start()
    }

    /// Where the last whole line ended.
    pub fn whole_lines_end(&self) -> u64 {
        self.whole.unwrap_or_else(|| self.line_start())
    }

    /// The bytes before the position, to mark it.
    pub fn tail(&self) -> &[u8] {
        self.framer.tail()
    }

    /// The largest size seen since the last look.
    pub fn size(&self) -> u64 {
        self.extent.size()
    }

    /// The same, if it is all there is: of a packed file one knows only how far it was unpacked.
    pub fn whole_size(&self) -> Option<u64> {
        (!is_packed(&self.path)).then_some(self.extent.size())
    }

    /// Looks at the size anew. What it has grown by counts if what was read is still there: else it is of
    /// another content, which the next read tells.
    pub fn refresh_size(&mut self) -> io::Result<u64> {
        let facts = self.file.facts()?;
        let may_tell = !is_packed(&self.path) && !self.framer.tail().is_empty();
        let has_grown = facts.size > self.extent.size() && !self.has_shrunk();
        // That one can't look says nothing of it.
        if !(has_grown && may_tell && self.is_intact().is_ok_and(|intact| !intact)) {
            self.extent.see(&facts);
        }
        Ok(self.extent.size())
    }

    /// When what was read of it, or seen, was last written: nanoseconds since 1970.
    pub fn modified_ns(&self) -> i64 {
        self.extent.written_ns()
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its life; none while its first line is not complete.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The life of the same inode before this one.
    pub fn after(&self) -> Option<Generation> {
        self.after
    }

    /// Names a file of which nothing was read yet by what it begins with now.
    pub fn learn_name(&mut self) -> io::Result<()> {
        if self.generation.is_none() && self.position() == 0 {
            self.head_bytes = self.peek(0, HEAD_BYTES)?;
            self.learn_head();
        }
        Ok(())
    }

    /// Its first line.
    pub fn head(&self) -> Option<&Fingerprint> {
        self.head.as_ref()
    }

    fn learn_head(&mut self) {
        self.head = Fingerprint::of_head(&self.head_bytes);
        if let Some(head) = &self.head {
            self.generation = Some(identity::generation(&self.identity, head, self.after));
            self.head_bytes = Vec::new();
        }
    }

    /// Reads without moving; shorter than `length` at the end of the file.
    pub fn peek(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            let got = self.file.read_at(&mut bytes[filled..], &mut [], offset + filled as u64)?;
            if got == 0 {
                break;
            }
            filled += got;
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// What stands at the path and its facts, if it is a regular file.
fn open_regular(fs: &dyn Fs, path: &Path) -> io::Result<Option<(Arc<dyn InputFile>, FileFacts)>> {
    let file = match fs.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let facts = file.facts()?;
    Ok((facts.kind == FileKind::Regular).then_some((file, facts)))
}

pub(super) fn identity_of(facts: &FileFacts) -> Identity {
    Identity { dev: facts.dev, ino: facts.ino, born_ns: facts.born_ns }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;
    use crate::domain::framing::Content;
    use crate::domain::identity::Resume;
    use crate::platform::fs::RealFs;

    const MAX_LINE: usize = 1 << 20;

    struct Scratch {
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    fn scratch(content: &str) -> Scratch {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        std::fs::write(&path, content).unwrap();
        Scratch { _directory: directory, path }
    }

    impl Scratch {
        fn open(&self) -> FollowedFile {
            FollowedFile::open(&RealFs, &self.path, MAX_LINE, None).unwrap().unwrap()
        }

        fn append(&self, text: &str) {
            let mut file = OpenOptions::new().append(true).open(&self.path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
    }

    /// All lines there are, and how the reading ended.
    fn read_all(file: &mut FollowedFile) -> (Vec<String>, Read) {
        let mut lines = Vec::new();
        loop {
            let read = file.read().unwrap();
            if read != Read::Data {
                return (lines, read);
            }
            while let Some(frame) = file.next_frame() {
                let Content::Line(line) = frame.content else { continue };
                lines.push(String::from_utf8(line.as_slice().to_vec()).unwrap());
            }
        }
    }

    /// Resumes a fresh look at the file from what `file` has read.
    fn resume(scratch: &Scratch, file: &FollowedFile) -> (Resume, FollowedFile) {
        let mark = Fingerprint::of_mark(file.tail());
        let known = Known {
            identity: file.identity(),
            head: file.head(),
            mark: &mark,
            offset: file.position(),
            size: file.size(),
            generation: file.generation(),
            after: file.after(),
        };
        let mut again = scratch.open();
        (again.resume(&known, MAX_LINE).unwrap(), again)
    }

    #[test]
    fn in_21_a_line_comes_out_when_it_is_complete() {
        let scratch = scratch("");
        let mut file = scratch.open();
        for byte in "one\ntwo".chars() {
            scratch.append(&byte.to_string());
            let (lines, _) = read_all(&mut file);
            assert_eq!(lines.is_empty(), byte != '\n', "{byte}");
        }
        assert_eq!(file.line_start(), 4);
        assert_eq!(read_all(&mut file).1, Read::End);
    }

    #[test]
    fn in_09_truncation_ends_the_life_and_names_the_unread_bytes() {
        let scratch = scratch("one\n");
        let mut file = scratch.open();
        read_all(&mut file);
        scratch.append("two\n");
        file.refresh_size().unwrap();
        std::fs::write(&scratch.path, "x\n").unwrap();
        let unread = Span { start: 4, end: 8 };
        assert_eq!(file.read().unwrap(), Read::Cut(Cut { truncated: true, left: 2, unread }));
    }

    #[test]
    fn in_10_truncated_and_regrown_beyond_the_position_is_noticed() {
        let scratch = scratch("one\ntwo\n");
        let mut file = scratch.open();
        read_all(&mut file);
        std::fs::write(&scratch.path, "six\nten\nelf\n").unwrap();
        assert!(matches!(file.read().unwrap(), Read::Cut(Cut { truncated: false, .. })));
    }

    #[test]
    fn in_10_rewritten_at_the_same_size_is_noticed() {
        let scratch = scratch("one\ntwo\n");
        let mut file = scratch.open();
        read_all(&mut file);
        std::fs::write(&scratch.path, "one\nten\n").unwrap();
        assert!(matches!(file.read().unwrap(), Read::Cut(Cut { truncated: false, .. })));
    }

    #[test]
    fn resumes_behind_what_was_read() {
        let scratch = scratch("one\ntwo\n");
        let mut file = scratch.open();
        read_all(&mut file);
        scratch.append("three\n");
        let (plan, mut again) = resume(&scratch, &file);
        assert_eq!(plan, Resume::Continue);
        assert_eq!(again.generation(), file.generation());
        assert_eq!(read_all(&mut again).0, ["three"]);
    }

    #[test]
    fn in_13_in_14_a_file_cut_rewritten_or_replaced_while_down_is_read_from_its_start() {
        for (replace, content, expected) in [
            (false, "x\n", Resume::Truncated),
            (false, "six\nten\nelf\n", Resume::Rewritten),
            (false, "one\ntxo\nelf\n", Resume::Rewritten),
            (true, "one\ntwo\nelf\n", Resume::Replaced),
        ] {
            let scratch = scratch("one\ntwo\n");
            let mut file = scratch.open();
            read_all(&mut file);
            if replace {
                std::fs::remove_file(&scratch.path).unwrap();
            }
            std::fs::write(&scratch.path, content).unwrap();
            let (plan, mut again) = resume(&scratch, &file);
            assert_eq!(plan, expected, "{content}");
            let lines = content.lines().collect::<Vec<_>>();
            assert_eq!(read_all(&mut again).0, lines);
            assert_ne!(again.generation(), file.generation(), "another life, another name");
        }
    }

    #[test]
    fn the_name_of_a_life_does_not_depend_on_how_it_was_read() {
        let scratch = scratch("");
        let mut slow = scratch.open();
        for byte in "first\nsecond\n".chars() {
            scratch.append(&byte.to_string());
            read_all(&mut slow);
        }
        let mut quick = scratch.open();
        read_all(&mut quick);
        assert!(quick.generation().is_some());
        assert_eq!(quick.generation(), slow.generation());
        let mut at_end = scratch.open();
        at_end.move_to_line_end(u64::MAX, MAX_LINE).unwrap();
        assert_eq!(at_end.generation(), slow.generation());
    }

    #[test]
    fn starting_at_the_end_is_just_after_the_last_line_end() {
        for (content, end) in [("one\ntwo", 4), ("one\n", 4), ("one", 0), ("", 0)] {
            let scratch = scratch(content);
            let mut file = scratch.open();
            file.move_to_line_end(u64::MAX, MAX_LINE).unwrap();
            assert_eq!(file.position(), end, "{content}");
            assert_eq!(file.generation().is_some(), end > 0, "{content}");
            scratch.append("X\n");
            let expected = content[end as usize..].to_owned() + "X";
            assert_eq!(read_all(&mut file).0, [expected]);
            assert!(file.generation().is_some());
        }
    }

    #[test]
    fn in_19_only_regular_files_are_followed() {
        let scratch = scratch("");
        let directory = scratch.path.parent().unwrap();
        assert_eq!(look(&RealFs, directory).unwrap(), AtPath::WrongType(FileKind::Directory));
        assert_eq!(
            look(&RealFs, Path::new("/dev/zero")).unwrap(),
            AtPath::WrongType(FileKind::Other)
        );
        assert!(FollowedFile::open(&RealFs, Path::new("/dev/zero"), 10, None).unwrap().is_none());
        assert_eq!(look(&RealFs, &directory.join("missing")).unwrap(), AtPath::Missing);
    }
}
