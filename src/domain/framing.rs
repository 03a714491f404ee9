//! Bytes in, whole lines out, in memory bounded by the line limit whatever the input is.
//!
//! A line ends with LF. One CR before it belongs to the line end; a BOM at the very start of a
//! generation and a run of NULs at the start of a line are skipped (interface.md section 3). What
//! remains is the line's content, handed out as a slice of the buffer it was read into.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::Digest as _;

use super::position::{Sha256, Span};

/// How many bytes before an offset are kept to recognise the place again.
pub const CONTEXT_BYTES: usize = 256;

/// How much of an oversized line is kept for the rejects.
pub const OVERSIZE_PREFIX_BYTES: usize = 4096;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Whole lines as they were read, with the bytes before them.
struct Chunk {
    before: Vec<u8>,
    data: Bytes,
    /// File offset of the first byte.
    start: u64,
}

/// Bytes of a [`Frame`], shared with the buffer that they were read into.
#[derive(Clone)]
pub struct LineBytes {
    chunk: Arc<Chunk>,
    start: u32,
    end: u32,
}

impl LineBytes {
    /// A line that stands alone; for tests and for lines that were stored elsewhere.
    pub fn standalone(line: &[u8]) -> Self {
        let data = Bytes::copy_from_slice(line);
        let chunk = Chunk { before: Vec::new(), data, start: 0 };
        Self { chunk: Arc::new(chunk), start: 0, end: line.len() as u32 }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.chunk.data[self.start as usize..self.end as usize]
    }

    /// The buffer that it keeps in memory: where it began in the file, and its size in bytes. All
    /// lines of a buffer keep it together.
    pub fn buffer(&self) -> (u64, usize) {
        (self.chunk.start, self.chunk.data.len())
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl fmt::Debug for LineBytes {
    // Payloads never reach logs, and so not Debug output either.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LineBytes({})", self.len())
    }
}

/// The place just behind a frame, with the bytes before it.
#[derive(Clone)]
pub struct Place {
    chunk: Arc<Chunk>,
    end: u32,
}

impl Place {
    /// The last bytes before the place, at most [`CONTEXT_BYTES`], as they stood in the file.
    pub fn context(&self) -> Vec<u8> {
        let data = &self.chunk.data[..self.end as usize];
        let from_data = data.len().min(CONTEXT_BYTES);
        let before = &self.chunk.before;
        let from_before = before.len().min(CONTEXT_BYTES - from_data);
        let mut context = before[before.len() - from_before..].to_vec();
        context.extend_from_slice(&data[data.len() - from_data..]);
        context
    }
}

impl Place {
    /// One with nothing before it, for a line that is in no file.
    pub fn nowhere() -> Self {
        let chunk = Chunk { before: Vec::new(), data: Bytes::new(), start: 0 };
        Self { chunk: Arc::new(chunk), end: 0 }
    }

    /// The same place, keeping nothing in memory but the bytes before it.
    #[must_use]
    pub fn detached(&self) -> Self {
        let data = Bytes::from(self.context());
        let end = data.len() as u32;
        Self { chunk: Arc::new(Chunk { before: Vec::new(), data, start: 0 }), end }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({})", self.end)
    }
}

/// One line of the input.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The line with everything that belongs to it: skipped bytes before, line end behind.
    pub span: Span,
    /// Bytes at the start that are not content: a BOM, a run of NULs.
    pub skipped: u64,
    /// What the line holds.
    pub content: Content,
    /// The place behind it.
    pub place: Place,
}

/// What a line holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes to be judged.
    Line(LineBytes),
    /// Nothing, or only spaces, tabs and CRs.
    Blank,
    /// More bytes than a line may have.
    Oversize(Oversize),
}

/// What is kept of a line that is too long.
#[derive(Clone, Debug)]
pub struct Oversize {
    /// Length of the content in bytes.
    pub length: u64,
    /// The first [`OVERSIZE_PREFIX_BYTES`] of the content.
    pub prefix: LineBytes,
    /// Hash of the whole content.
    pub sha256: Sha256,
}

/// Cuts a stream of bytes into lines.
///
/// Bytes go in through [`LineFramer::space`] and [`LineFramer::filled`], so that they are read
/// straight into the buffer that the lines are then slices of.
pub struct LineFramer {
    /// The unfinished line, and behind `buffer_len` space to read into.
    buffer: BytesMut,
    /// Valid bytes in `buffer`; the rest is space.
    buffer_len: usize,
    /// How much of the valid bytes is known to hold no LF.
    searched: usize,
    /// Whole lines that were cut off the buffer and wait to be handed out.
    ready: Option<Ready>,
    /// File offset where the unfinished line began.
    line_start: u64,
    /// Bytes of the unfinished line that were skipped at its start and are not in the buffer.
    skipped: u64,
    /// Set while the unfinished line is longer than the limit.
    oversize: Option<OversizeInProgress>,
    /// The last bytes read, at most [`CONTEXT_BYTES`].
    tail: Vec<u8>,
    max_line: usize,
}

struct Ready {
    chunk: Arc<Chunk>,
    /// File offset of the chunk's first byte.
    start: u64,
    next: usize,
    /// What belongs to the chunk's first line but came before the chunk.
    skipped: u64,
    oversize: Option<OversizeInProgress>,
}

struct OversizeInProgress {
    hasher: sha2::Sha256,
    prefix: Vec<u8>,
    length: u64,
    /// A CR at the end of what was seen: content, unless the LF follows.
    held_cr: bool,
}

impl LineFramer {
    /// A framer for bytes from `offset` on, where `context` are the bytes before it.
    pub fn new(offset: u64, context: &[u8], max_line: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            buffer_len: 0,
            searched: 0,
            ready: None,
            line_start: offset,
            skipped: 0,
            oversize: None,
            tail: context[context.len().saturating_sub(CONTEXT_BYTES)..].to_vec(),
            max_line,
        }
    }

    /// The offset at which reading goes on.
    pub fn position(&self) -> u64 {
        self.buffer_start() + self.buffer_len as u64
    }

    /// Where the unfinished line began: everything before is in frames.
    pub fn line_start(&self) -> u64 {
        self.line_start
    }

    /// How long a line may be.
    pub fn max_line(&self) -> usize {
        self.max_line
    }

    /// The last bytes before [`LineFramer::position`].
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Space for `wanted` bytes.
    pub fn space(&mut self, wanted: usize) -> &mut [u8] {
        self.buffer.resize(self.buffer_len + wanted, 0);
        &mut self.buffer[self.buffer_len..]
    }

    /// The first `count` bytes of the space, read but not yet taken.
    pub fn fresh(&self, count: usize) -> &[u8] {
        &self.buffer[self.buffer_len..self.buffer_len + count]
    }

    /// Takes the first `count` bytes of the space as read. Lines that are still ready must have
    /// been taken before.
    pub fn filled(&mut self, count: usize) {
        debug_assert!(self.ready.is_none(), "lines were read over");
        let fresh = self.buffer_len;
        self.buffer_len += count;
        let before = std::mem::take(&mut self.tail);
        self.tail = last_bytes(&before, &self.buffer[fresh..self.buffer_len]);
        let newest = &self.buffer[self.searched..self.buffer_len];
        match memchr::memrchr(b'\n', newest) {
            Some(last) => self.cut_off(self.searched + last + 1, &before, fresh),
            None => self.searched = self.buffer_len,
        }
        self.relieve();
        self.buffer.truncate(self.buffer_len);
    }

    /// Takes `count` NULs as read, without having to see them. Only between lines, as
    /// [`LineFramer::is_between_lines`] says.
    pub fn skip_nuls(&mut self, count: u64) {
        debug_assert!(self.is_between_lines(), "NULs within a line are content");
        self.skipped += count;
        self.tail = vec![0; usize::try_from(count).unwrap_or(usize::MAX).min(CONTEXT_BYTES)];
    }

    /// Whether no content of the next line was read yet.
    pub fn is_between_lines(&self) -> bool {
        self.ready.is_none() && self.buffer_len == 0 && self.oversize.is_none()
    }

    /// Feeds bytes by copying them; [`LineFramer::next_frame`] then gives the lines.
    pub fn push(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.filled(bytes.len());
    }

    /// The next whole line.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let ready = self.ready.as_mut()?;
        let start = ready.next;
        let Some(length) = memchr::memchr(b'\n', &ready.chunk.data[start..]) else {
            self.ready = None;
            return None;
        };
        let end = start + length + 1;
        ready.next = end;
        let skipped = std::mem::take(&mut ready.skipped);
        let oversize = ready.oversize.take();
        let earlier = skipped + oversize.as_ref().map_or(0, OversizeInProgress::seen);
        let span =
            Span { start: ready.start + start as u64 - earlier, end: ready.start + end as u64 };
        let place = Place { chunk: Arc::clone(&ready.chunk), end: end as u32 };
        if let Some(mut line) = oversize {
            line.feed(&place.chunk.data[start..end - 1]);
            let content = Content::Oversize(line.finish());
            return Some(Frame { span, skipped, content, place });
        }
        Some(self.judge(span, skipped, start..end, place))
    }

    /// How many whole lines wait to be handed out.
    pub fn lines_ready(&self) -> u64 {
        let ready = self.ready.as_ref();
        ready.map_or(0, |ready| {
            memchr::memchr_iter(b'\n', &ready.chunk.data[ready.next..]).count() as u64
        })
    }

    /// Ends the input: the unfinished line as a frame, if there is one.
    pub fn finish(&mut self) -> Option<Frame> {
        let end = self.position();
        let span = Span { start: self.line_start, end };
        if span.is_empty() {
            return None;
        }
        let data = self.buffer.split_to(self.buffer_len).freeze();
        let length = data.len();
        let before = self.tail[..self.tail.len().saturating_sub(length)].to_vec();
        let chunk = Chunk { before, data, start: end - length as u64 };
        let place = Place { chunk: Arc::new(chunk), end: length as u32 };
        let skipped = std::mem::take(&mut self.skipped);
        self.line_start = end;
        self.buffer_len = 0;
        self.searched = 0;
        if let Some(mut line) = self.oversize.take() {
            line.feed(&place.chunk.data);
            let content = Content::Oversize(line.finish());
            return Some(Frame { span, skipped, content, place });
        }
        Some(self.judge(span, skipped, 0..length, place))
    }

    /// Judges the bytes `range` of the place's chunk, line end included if there is one.
    fn judge(
        &self,
        span: Span,
        skipped_before: u64,
        range: std::ops::Range<usize>,
        place: Place,
    ) -> Frame {
        let raw = &place.chunk.data[range.clone()];
        let line = raw.strip_suffix(b"\n").unwrap_or(raw);
        // Also where the LF behind it was never written.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let skipped_here = skippable(line, span.start == 0 && skipped_before == 0);
        let skipped = skipped_before + skipped_here as u64;
        let line = &line[skipped_here..];
        let content = if line.len() > self.max_line {
            let mut oversize = OversizeInProgress::new();
            oversize.take(line);
            Content::Oversize(oversize.finish())
        } else if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            Content::Blank
        } else {
            let start = (range.start + skipped_here) as u32;
            let end = start + line.len() as u32;
            Content::Line(LineBytes { chunk: Arc::clone(&place.chunk), start, end })
        };
        Frame { span, skipped, content, place }
    }

    /// Makes the first `end` bytes of the buffer ready. `before` are the bytes before those just
    /// read, which began at `fresh` in the buffer.
    fn cut_off(&mut self, end: usize, before: &[u8], fresh: usize) {
        let before = before[..before.len().saturating_sub(fresh)].to_vec();
        let start = self.buffer_start();
        let data = self.buffer.split_to(end).freeze();
        self.ready = Some(Ready {
            chunk: Arc::new(Chunk { before, data, start }),
            start,
            next: 0,
            skipped: std::mem::take(&mut self.skipped),
            oversize: self.oversize.take(),
        });
        self.line_start = start + end as u64;
        self.buffer_len -= end;
        self.searched = self.buffer_len;
    }

    /// File offset of the buffer's first byte.
    fn buffer_start(&self) -> u64 {
        let oversize = self.oversize.as_ref().map_or(0, OversizeInProgress::seen);
        self.line_start + self.skipped + oversize
    }

    /// Keeps the memory of an unfinished line bounded.
    fn relieve(&mut self) {
        if self.oversize.is_none() {
            self.skip_at_start();
            // One more byte may still be the CR of the line end.
            if self.buffer_len <= self.max_line + 1 {
                return;
            }
        }
        let line = self.oversize.get_or_insert_with(OversizeInProgress::new);
        line.feed(&self.buffer[..self.buffer_len]);
        self.buffer.clear();
        self.buffer_len = 0;
        self.searched = 0;
    }

    /// Drops the NULs and the BOM that an unfinished line begins with.
    fn skip_at_start(&mut self) {
        let at_generation_start = self.line_start == 0 && self.skipped == 0;
        let content = &self.buffer[..self.buffer_len];
        if at_generation_start && content.len() < BOM.len() && BOM.starts_with(content) {
            return;
        }
        let skip = skippable(content, at_generation_start);
        if skip > 0 {
            let _ = self.buffer.split_to(skip);
            self.buffer_len -= skip;
            self.searched = self.searched.saturating_sub(skip);
            self.skipped += skip as u64;
        }
    }
}

/// How many bytes at the start of a line are not content.
fn skippable(line: &[u8], at_generation_start: bool) -> usize {
    let bom = if at_generation_start && line.starts_with(BOM) { BOM.len() } else { 0 };
    bom + line[bom..].iter().take_while(|byte| **byte == 0).count()
}

fn last_bytes(before: &[u8], fresh: &[u8]) -> Vec<u8> {
    let from_fresh = fresh.len().min(CONTEXT_BYTES);
    let from_before = before.len().min(CONTEXT_BYTES - from_fresh);
    let mut tail = Vec::with_capacity(CONTEXT_BYTES);
    tail.extend_from_slice(&before[before.len() - from_before..]);
    tail.extend_from_slice(&fresh[fresh.len() - from_fresh..]);
    tail
}

impl OversizeInProgress {
    fn new() -> Self {
        Self { hasher: sha2::Sha256::new(), prefix: Vec::new(), length: 0, held_cr: false }
    }

    /// Takes more content; a CR at its end is held back until what follows is known.
    fn feed(&mut self, bytes: &[u8]) {
        let Some((last, rest)) = bytes.split_last() else { return };
        if std::mem::take(&mut self.held_cr) {
            self.take(b"\r");
        }
        self.take(rest);
        if *last == b'\r' {
            self.held_cr = true;
        } else {
            self.take(&[*last]);
        }
    }

    fn take(&mut self, content: &[u8]) {
        let wanted = OVERSIZE_PREFIX_BYTES.saturating_sub(self.prefix.len()).min(content.len());
        self.prefix.extend_from_slice(&content[..wanted]);
        self.hasher.update(content);
        self.length += content.len() as u64;
    }

    /// Bytes of the line seen so far.
    fn seen(&self) -> u64 {
        self.length + u64::from(self.held_cr)
    }

    fn finish(self) -> Oversize {
        Oversize {
            length: self.length,
            prefix: LineBytes::standalone(&self.prefix),
            sha256: Sha256::finish(self.hasher),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame in words, to be compared.
    fn describe(frame: &Frame) -> String {
        let Span { start, end } = frame.span;
        let skipped = frame.skipped;
        match &frame.content {
            Content::Line(line) => {
                format!("{start}..{end} -{skipped} {}", line.as_slice().escape_ascii())
            }
            Content::Blank => format!("{start}..{end} -{skipped} blank"),
            Content::Oversize(line) => {
                let prefix = line.prefix.as_slice().escape_ascii();
                format!(
                    "{start}..{end} -{skipped} oversize {} {prefix} {}",
                    line.length, line.sha256
                )
            }
        }
    }

    fn frames(chunks: &[&[u8]], max_line: usize) -> Vec<String> {
        let whole = chunks.concat();
        let mut framer = LineFramer::new(0, b"", max_line);
        let mut frames = Vec::new();
        let mut note = |frame: Frame| {
            let end = frame.span.end as usize;
            let context = &whole[end.saturating_sub(CONTEXT_BYTES)..end];
            assert_eq!(frame.place.context(), context, "context before {end}");
            frames.push(describe(&frame));
        };
        let mut position = 0;
        for chunk in chunks {
            framer.push(chunk);
            position += chunk.len();
            assert_eq!(framer.position(), position as u64);
            assert_eq!(framer.tail(), &whole[position.saturating_sub(CONTEXT_BYTES)..position]);
            while let Some(frame) = framer.next_frame() {
                note(frame);
            }
        }
        if let Some(frame) = framer.finish() {
            note(frame);
        }
        frames
    }

    #[track_caller]
    fn check(input: &[u8], expected: &[&str]) {
        assert_eq!(frames(&[input], 8), expected, "in one piece");
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(frames(&bytes, 8), expected, "byte by byte");
    }

    #[test]
    fn lines_end_with_lf_and_one_cr_belongs_to_the_end() {
        check(b"a\nbc\n", &["0..2 -0 a", "2..5 -0 bc"]);
        check(b"a\r\nb\r\r\n", &["0..3 -0 a", "3..7 -0 b\\r"]);
        check(b"a\rb\n", &["0..4 -0 a\\rb"]);
    }

    #[test]
    fn an_unterminated_line_comes_out_only_at_the_end() {
        check(b"a\nb", &["0..2 -0 a", "2..3 -0 b"]);
        // Where the LF of a CRLF is missing, the CR is no content either.
        check(b"b\r", &["0..2 -0 b"]);
        check(b"", &[]);
    }

    #[test]
    fn blank_lines() {
        check(
            b"\n \t\n\r\n\r\r\n",
            &["0..1 -0 blank", "1..4 -0 blank", "4..6 -0 blank", "6..9 -0 blank"],
        );
    }

    #[test]
    fn bom_and_nul_runs_are_skipped_at_the_start_only() {
        check(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", &["0..5 -3 a", "5..10 -0 \\xef\\xbb\\xbfb"]);
        check(b"\0\0a\n\0b\0\n", &["0..4 -2 a", "4..8 -1 b\\x00"]);
        check(b"\xef\xbb\xbf\0\0\n", &["0..6 -5 blank"]);
        check(b"\0\xef\xbb\xbfa\n", &["0..6 -1 \\xef\\xbb\\xbfa"]);
        check(b"\xef\xbbx\n", &["0..4 -0 \\xef\\xbbx"]);
        let nuls = [[0; 40].as_slice(), b"abc\n"].concat();
        check(&nuls, &["0..44 -40 abc"]);
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_more_byte_does_not() {
        let hash = Sha256::of(b"123456789").to_string();
        check(b"12345678\n", &["0..9 -0 12345678"]);
        check(b"12345678\r\n", &["0..10 -0 12345678"]);
        check(
            b"123456789\nx\n",
            &[&format!("0..10 -0 oversize 9 123456789 {hash}"), "10..12 -0 x"],
        );
        check(
            b"123456789\r\nx\n",
            &[&format!("0..11 -0 oversize 9 123456789 {hash}"), "11..13 -0 x"],
        );
        check(b"123456789", &[&format!("0..9 -0 oversize 9 123456789 {hash}")]);
        check(b"123456789\r", &[&format!("0..10 -0 oversize 9 123456789 {hash}")]);
        let hash = Sha256::of(b"12345678\rx").to_string();
        check(b"12345678\rx\n", &[&format!("0..11 -0 oversize 10 12345678\\rx {hash}")]);
    }

    #[test]
    fn a_long_line_keeps_only_its_prefix_in_memory() {
        let mut framer = LineFramer::new(0, b"", 1000);
        for _ in 0..10_000 {
            framer.push(&[b'x'; 100]);
            assert!(framer.buffer.capacity() < 5_000, "{}", framer.buffer.capacity());
        }
        framer.push(b"\n");
        let frame = framer.next_frame().unwrap();
        let Content::Oversize(line) = frame.content else { panic!("not oversize") };
        assert_eq!(line.length, 1_000_000);
        assert_eq!(line.prefix.len(), OVERSIZE_PREFIX_BYTES);
        assert_eq!(line.sha256, Sha256::of(&vec![b'x'; 1_000_000]));
    }

    #[test]
    fn a_framer_that_resumes_knows_what_came_before() {
        let mut framer = LineFramer::new(1000, b"before\n", 100);
        framer.push(b"a\n");
        let frame = framer.next_frame().unwrap();
        assert_eq!(frame.span, Span { start: 1000, end: 1002 });
        assert_eq!(frame.place.context(), b"before\na\n");
    }

    proptest! {
        #[test]
        fn however_the_input_is_cut_the_frames_are_the_same(
            input in proptest::collection::vec(
                prop_oneof![
                    5 => Just(b'a'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => Just(0_u8),
                    1 => Just(b' '), 1 => Just(0xef_u8), 1 => Just(0xbb_u8), 1 => Just(0xbf_u8),
                ],
                0..700,
            ),
            cuts in proptest::collection::vec(0_usize..700, 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
            let whole = frames(&[&input], 8);
            prop_assert_eq!(frames(&pieces, 8), whole);
        }

        #[test]
        fn frames_cover_every_byte_once(input in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut framer = LineFramer::new(0, b"", 8);
            framer.push(&input);
            let mut end = 0;
            while let Some(frame) = framer.next_frame() {
                prop_assert_eq!(frame.span.start, end);
                end = frame.span.end;
            }
            prop_assert_eq!(framer.line_start(), end);
            if let Some(frame) = framer.finish() {
                prop_assert_eq!(frame.span.start, end);
                end = frame.span.end;
            }
            prop_assert_eq!(end, input.len() as u64);
        }
    }
}
