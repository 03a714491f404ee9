//! Whether a file is, copies or begins with what was read of another one.
//!
//! Names decide nothing here: it is always the content that is compared.

use std::io;

use super::file::{BLOCK_BYTES, FollowedFile};
use crate::domain::framing::{CONTEXT_BYTES, LineFramer};
use crate::domain::identity::{self, Comparison, Fingerprint, HEAD_BYTES, Identity, Resume};
use crate::domain::position::Generation;
use crate::platform::mutants::{Mutant, makes};

/// How far a file is searched for the place where reading stopped.
const SEARCHED_MAX: u64 = 64 << 20;

/// A shorter stretch of content may stand anywhere.
const MARK_MIN: u32 = 32;

/// What the checkpoint remembers of a file.
pub struct Known<'a> {
    /// Who it is.
    pub identity: &'a Identity,
    /// Its first line.
    pub head: Option<&'a Fingerprint>,
    /// The bytes before the offset.
    pub mark: &'a Fingerprint,
    /// Where to go on.
    pub offset: u64,
    /// How large it was.
    pub size: u64,
    /// Its life.
    pub generation: Option<Generation>,
    /// The life before.
    pub after: Option<Generation>,
}

/// What two files have in common that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common {
    /// Where the last whole line ends that both have.
    pub end: u64,
    /// This one goes on where the copy does not, or not like that.
    pub more: bool,
    /// The copy goes on where this one does not, or not like that.
    pub copy_more: bool,
}

impl Known<'_> {
    /// Whether too little was read to tell its content from that of others: files may all begin with
    /// the same line.
    pub fn is_weak(&self) -> bool {
        let nothing_before = self.mark.length == 0;
        nothing_before || self.head.is_none_or(|head| self.offset <= u64::from(head.length))
    }
}

impl FollowedFile {
    /// Compares the file, opened at its start, with what is remembered, and goes on at the
    /// remembered offset if it is the same content.
    pub fn resume(&mut self, known: &Known<'_>, max_line: usize) -> io::Result<Resume> {
        let head = match known.head {
            Some(head) => self.has_head(head)?,
            None => true,
        };
        let context = self.before(known)?;
        // Of a packed file, so much is known to be there by now.
        self.refresh_size()?;
        let resume = identity::plan_resume(Comparison {
            same_file: self.identity.is_same_file(known.identity),
            size: self.extent.size(),
            least: if known.is_weak() { known.size.max(known.offset) } else { known.offset },
            same_head: head,
            same_mark: known.mark.matches(&context) || makes(Mutant::MarkUnchecked),
        });
        let same_inode = makes(Mutant::InodeAlone) && self.identity.ino == known.identity.ino;
        let resume = if same_inode { Resume::Continue } else { resume };
        match resume {
            Resume::Continue => self.go_on(known, &context, max_line),
            Resume::Truncated | Resume::Rewritten => {
                self.after = known.generation.or(known.after);
            }
            Resume::Replaced => {}
        }
        Ok(resume)
    }

    /// Goes on at the remembered offset if the file, opened at its start, has the content that is
    /// remembered, whoever it is. False: it has not, or that can't be told.
    ///
    /// # Errors
    /// The system's; `InvalidData` for what can't be unpacked.
    pub fn resume_as_copy(&mut self, known: &Known<'_>, max_line: usize) -> io::Result<bool> {
        Ok(!known.is_weak() && self.resume_if_alike(known, max_line)?)
    }

    /// The same, where little is known: then a file that was never the same may pass.
    ///
    /// # Errors
    /// The system's; `InvalidData` for what can't be unpacked.
    pub fn resume_if_alike(&mut self, known: &Known<'_>, max_line: usize) -> io::Result<bool> {
        let Some(head) = known.head else { return Ok(false) };
        if !self.has_head(head)? {
            return Ok(false);
        }
        let context = self.before(known)?;
        let same = known.mark.matches(&context);
        if same {
            self.go_on(known, &context, max_line);
        }
        Ok(same)
    }

    /// Goes back to the beginning of a line, where a copy goes on behind half of one that was taken for a whole:
    /// the rest may stand here.
    ///
    /// # Errors
    /// The system's.
    pub fn go_back_to_line_start(&mut self, max_line: usize) -> io::Result<()> {
        let (position, start) = (self.position(), self.last_line_end(self.position())?);
        if start < position {
            self.framer = LineFramer::new(start, &self.context_of(start)?, max_line);
        }
        Ok(())
    }

    /// The offset just behind the last LF before `limit`, 0 if there is none.
    pub(super) fn last_line_end(&self, limit: u64) -> io::Result<u64> {
        let mut end = limit;
        while end > 0 {
            let from = end.saturating_sub(BLOCK_BYTES as u64);
            let block = self.peek(from, (end - from) as usize)?;
            if let Some(last) = memchr::memrchr(b'\n', &block) {
                return Ok(from + last as u64 + 1);
            }
            end = from;
        }
        Ok(0)
    }

    /// Whether all that is remembered of a file stands in this one, whoever it is. False: it does not, or
    /// that can't be told.
    ///
    /// # Errors
    /// The system's.
    pub fn holds(&self, known: &Known<'_>) -> io::Result<bool> {
        let Some(head) = known.head.filter(|_| !known.is_weak()) else { return Ok(false) };
        Ok(self.file.facts()?.size >= known.size
            && self.has_head(head)?
            && known.mark.matches(&self.before(known)?))
    }

    fn has_head(&self, head: &Fingerprint) -> io::Result<bool> {
        Ok(head.matches(&self.peek(0, head.length as usize)?))
    }

    /// What stands where the mark was.
    fn before(&self, known: &Known<'_>) -> io::Result<Vec<u8>> {
        let length = known.mark.length;
        self.peek(known.offset.saturating_sub(u64::from(length)), length as usize)
    }

    fn go_on(&mut self, known: &Known<'_>, context: &[u8], max_line: usize) {
        self.generation = known.generation;
        self.after = known.after;
        self.head = known.head.copied();
        self.framer = LineFramer::new(known.offset, context, max_line);
        self.recent = context.to_vec();
    }

    /// Goes on with a life, whose bytes before the offset are not in this file.
    pub fn go_on_without(&mut self, known: &Known<'_>, max_line: usize) {
        self.go_on(known, b"", max_line);
        // Its first line stands there without what was skipped of it.
        self.head = self.head.filter(|_| known.offset > 0);
    }

    /// The same from its start, where nothing else is known of it.
    pub fn go_on_as(&mut self, generation: Generation) {
        self.generation = Some(generation);
    }

    /// Whether `other`, opened at its start, has the content of this one as far as that was read; it
    /// is moved there then.
    ///
    /// # Errors
    /// Those of `other`.
    pub fn is_copied_in(&self, other: &mut Self, max_line: usize) -> io::Result<bool> {
        let position = self.framer.position();
        if position == 0 {
            // What stands in it may be another content than was to be read, which was cut.
            let is_it = match &self.head {
                Some(head) => other.has_head(head)?,
                None => !self.has_shrunk(),
            };
            return Ok(is_it && self.is_whole_in(other)?);
        }
        // The beginning of a line is that of many.
        if self.head.is_none_or(|head| self.whole_lines_end() <= u64::from(head.length)) {
            return Ok(false);
        }
        let mark = Fingerprint::of_mark(self.framer.tail());
        let known = Known {
            identity: &self.identity,
            head: self.head.as_ref(),
            mark: &mark,
            offset: position,
            size: self.extent.size(),
            generation: self.generation,
            after: self.after,
        };
        other.resume_as_copy(&known, max_line)
    }

    /// Whether there is as much of this file as of `copy`, which begins with what was read of it.
    pub fn is_as_long_as(&self, copy: &Self) -> bool {
        let size = |it: &Self| it.file.facts().map_or(0, |facts| facts.size).max(it.size());
        size(copy) <= size(self)
    }

    /// Whether what was seen of it may not be there any more.
    pub fn may_be_cut(&self) -> bool {
        self.has_shrunk() || !self.is_intact().unwrap_or(false)
    }

    /// How much of what is not read yet stands in `copy` too, which begins with what was read. None: more
    /// than is compared, or this file was cut.
    ///
    /// # Errors
    /// The system's.
    pub fn common_with(&self, copy: &Self) -> io::Result<Option<Common>> {
        if !self.is_intact()? {
            return Ok(None);
        }
        let (from, mut end) = (self.line_start(), self.line_start());
        let mut at = from;
        while at < from + SEARCHED_MAX {
            let (here, there) = (self.peek(at, BLOCK_BYTES)?, copy.peek(at, BLOCK_BYTES)?);
            let same = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
            if let Some(last) = memchr::memrchr(b'\n', &here[..same]) {
                end = at + last as u64 + 1;
            }
            if same < BLOCK_BYTES {
                let (more, copy_more) = (here.len() > same, there.len() > same);
                return Ok(Some(Common { end, more, copy_more }));
            }
            at += same as u64;
        }
        Ok(None)
    }

    /// What may still be written to this file when a copy of it is read on in its place, a life of its own:
    /// all behind `end`, up to where the copy has it too.
    ///
    /// # Errors
    /// The system's.
    pub fn later_life(&self, end: u64, max_line: usize) -> io::Result<Self> {
        let mut later = self.next_life(max_line);
        later.refresh_size()?;
        later.move_to(end, max_line)?;
        Ok(later)
    }

    /// Whether the bytes before the position, as they were read, stand there in `other`.
    pub(super) fn tail_stands_in(&self, other: &Self) -> io::Result<bool> {
        let tail = self.framer.tail();
        Ok(other.peek(self.framer.position() - tail.len() as u64, tail.len())? == tail)
    }

    /// Goes on in `again`, which is the same file opened once more, if what was read is there.
    ///
    /// # Errors
    /// Those of `again`.
    pub fn open_again(&mut self, again: Self) -> io::Result<bool> {
        let same = self.tail_stands_in(&again)?;
        if same {
            (self.file, self.path, self.identity) = (again.file, again.path, again.identity);
            // What is missing of it is seen as missing.
            self.refresh_size()?;
        }
        Ok(same)
    }

    /// Whether it begins with anything like text. Of random bytes, hardly ever some in a row could be; what
    /// overwrites a file fills a block at least.
    ///
    /// # Errors
    /// The system's.
    pub fn is_text(&self) -> io::Result<bool> {
        let head = self.peek(0, HEAD_BYTES)?;
        let broken = head.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
        Ok(head.len() < HEAD_BYTES || broken * 8 <= head.len())
    }

    /// Whether all there is in this file so far is what `other` begins with: it may be a copy of that
    /// which is being made, or nothing yet.
    ///
    /// # Errors
    /// Those of either.
    pub fn is_beginning_of(&self, other: &Self) -> io::Result<bool> {
        let size = self.file.facts()?.size;
        let head = self.peek(0, HEAD_BYTES)?;
        Ok(head == other.peek(0, head.len())?
            && self.context_of(size)? == other.context_of(size)?)
    }

    /// Whether `other` has the same content, to its end. A beginning in common would not tell: files may
    /// all begin with the same line.
    fn is_whole_in(&self, other: &Self) -> io::Result<bool> {
        let Ok(size) = self.file.facts().map(|facts| facts.size) else { return Ok(false) };
        let same = |from: u64, length: usize| -> io::Result<bool> {
            Ok(self.peek(from, length).ok() == Some(other.peek(from, length)?))
        };
        Ok(size > 0
            && same(0, HEAD_BYTES)?
            && same(size.saturating_sub(CONTEXT_BYTES as u64), CONTEXT_BYTES)?
            && other.peek(size, 1)?.is_empty())
    }

    /// The offset behind the only line that ends with the bytes of `mark`, which have to be all of the
    /// line. None: there is no such line, or more than one.
    ///
    /// # Errors
    /// The system's.
    pub fn find_mark(&self, mark: &Fingerprint) -> io::Result<Option<u64>> {
        let length = mark.length as usize;
        if mark.length < MARK_MIN {
            return Ok(None);
        }
        // `bytes` begins at `from` and holds at least a mark more than what is searched.
        let (mut bytes, mut from, mut found) = (Vec::new(), 0, None);
        while from + (bytes.len() as u64) < SEARCHED_MAX {
            let block = self.peek(from + bytes.len() as u64, BLOCK_BYTES)?;
            if block.is_empty() {
                break;
            }
            let searched = bytes.len();
            bytes.extend_from_slice(&block);
            for end in memchr::memchr_iter(b'\n', &block).map(|at| searched + at + 1) {
                let Some(start) = end.checked_sub(length) else { continue };
                let marked = &bytes[start..end];
                let is_whole = if start > 0 { bytes[start - 1] == b'\n' } else { from == 0 };
                if (is_whole || memchr::memchr(b'\n', marked).is_some_and(|at| at + 1 < length))
                    && mark.matches(marked)
                {
                    if found.is_some() {
                        return Ok(None);
                    }
                    found = Some(from + end as u64);
                }
            }
            let done = bytes.len().saturating_sub(length + 1);
            bytes.drain(..done);
            from += done as u64;
        }
        Ok(found)
    }
}
