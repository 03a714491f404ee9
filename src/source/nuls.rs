//! NULs between lines: holes, and space that was made beforehand for lines to come.

use std::io;

use super::file::{BLOCK_BYTES, FollowedFile, Read};
use crate::domain::framing::{CONTEXT_BYTES, LineFramer};

impl FollowedFile {
    /// NULs behind the last line are not passed for good: a file that was made large beforehand gets its
    /// lines where they are, and is cut to what it holds in the end.
    pub(super) fn go_back_before_nuls(&mut self, size: u64) -> io::Result<()> {
        let (line_start, position) = (self.line_start(), self.position());
        if line_start == position || !self.framer.is_between_lines() {
            return Ok(());
        }
        // A BOM is skipped too.
        let nuls = self.framer.tail().iter().rev().take_while(|byte| **byte == 0).count();
        if (nuls as u64) < (position - line_start).min(CONTEXT_BYTES as u64) {
            return Ok(());
        }
        let context = self.context_of(line_start)?;
        let known = self.before_nuls.take().filter(|(start, _)| *start == line_start);
        let is_known = known.is_some();
        let (_, before) = known.unwrap_or_else(|| (line_start, context.clone()));
        let is_same = before == context;
        self.before_nuls = Some((line_start, before));
        if !is_known {
            return Ok(());
        }
        let was_cut = size.min(self.extent.shrunk_to().unwrap_or(size)) < line_start;
        let length = usize::try_from(position - line_start).unwrap_or(usize::MAX);
        let skipped = self.peek(line_start, length.min(CONTEXT_BYTES))?;
        let is_stored = skipped.iter().any(|byte| *byte != 0);
        // With other bytes before them it is another content.
        if was_cut || !is_same || (size >= position && !is_stored) {
            return Ok(());
        }
        self.framer = LineFramer::new(line_start, &context, self.framer.max_line());
        if line_start == 0 {
            // They were taken for the beginning of the first line.
            (self.head, self.generation) = (None, None);
            self.head_bytes.clear();
        }
        self.accept_size(size);
        Ok(())
    }

    /// A hole between two lines is not read: it may be larger than anything that was ever written.
    pub(super) fn skip_hole(&mut self, size: u64) -> Option<io::Result<Read>> {
        let position = self.framer.position();
        if !self.framer.is_between_lines() || size - position < 2 * BLOCK_BYTES as u64 {
            return None;
        }
        // What is before the position must still be there, as for any read.
        let end = self.file.end_of_hole(position).min(size);
        let hole = end - position;
        if hole < BLOCK_BYTES as u64 || !self.is_intact().unwrap_or(false) {
            return None;
        }
        self.framer.skip_nuls(hole);
        Some(Ok(Read::Data))
    }
}
