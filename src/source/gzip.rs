//! A file that was packed with gzip, read as if it were not.
//!
//! Offsets are those of the unpacked content, so a life that was half read before it was packed goes
//! on at the same offset. Reading goes forward; going back begins again.

use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use crate::platform::fs::{FileFacts, InputFile};

/// How much is unpacked at once.
const STEP: usize = 64 << 10;

/// How much one file may unpack to. A real one of this size was rotated much too late; one that
/// someone made to fill memory or time ends here.
const UNPACKED_MAX: u64 = 64 << 30;

/// How long one read may unpack. Reading on takes milliseconds; only the way to an offset far behind
/// takes long, and nothing else is read meanwhile. Some gigabytes fit into this.
const READ_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Gzip {
    packed: Arc<dyn InputFile>,
    unpacker: Mutex<Unpacker>,
    read_max: Duration,
}

struct Unpacker {
    decoder: MultiGzDecoder<Sequential>,
    /// Unpacked bytes that may be asked for again, and where they begin.
    window: Vec<u8>,
    start: u64,
    /// There is nothing behind the window.
    ended: bool,
    /// Behind what was read last.
    read_to: u64,
    /// How far it was unpacked before it began again.
    known: u64,
}

/// The packed bytes in their order.
struct Sequential {
    file: Arc<dyn InputFile>,
    offset: u64,
}

impl Gzip {
    pub(super) fn new(packed: Arc<dyn InputFile>) -> Self {
        let unpacker = Mutex::new(Unpacker::new(Arc::clone(&packed)));
        Self { packed, unpacker, read_max: READ_MAX }
    }
}

impl InputFile for Gzip {
    /// Those of the packed file, but for the size: what is known to be there, one step ahead of
    /// what was read.
    fn facts(&self) -> io::Result<FileFacts> {
        let mut unpacker = self.unpacker.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(FileFacts { size: unpacker.known_end()?, ..self.packed.facts()? })
    }

    fn read_at(&self, first: &mut [u8], second: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut unpacker = self.unpacker.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = first.len() + second.len();
        if offset < unpacker.start {
            let known = unpacker.known.max(unpacker.end());
            *unpacker = Unpacker { known, ..Unpacker::new(Arc::clone(&self.packed)) };
        }
        let there = unpacker.from(offset, wanted, Instant::now() + self.read_max)?;
        let (head, rest) = there.split_at(there.len().min(first.len()));
        first[..head.len()].copy_from_slice(head);
        second[..rest.len()].copy_from_slice(rest);
        Ok(there.len())
    }
}

impl Unpacker {
    fn new(file: Arc<dyn InputFile>) -> Self {
        let decoder = MultiGzDecoder::new(Sequential { file, offset: 0 });
        Self { decoder, window: Vec::new(), start: 0, ended: false, read_to: 0, known: 0 }
    }

    fn end(&self) -> u64 {
        self.start + self.window.len() as u64
    }

    /// The end as far as it is known. There is always something behind what was read, until the end.
    fn known_end(&mut self) -> io::Result<u64> {
        while self.end().max(self.known) <= self.read_to && !self.ended {
            self.step()?;
        }
        Ok(self.end().max(self.known))
    }

    /// Up to `wanted` bytes from `offset` on; what lies before is forgotten.
    fn from(&mut self, offset: u64, wanted: usize, until: Instant) -> io::Result<&[u8]> {
        loop {
            let skipped = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
            let skipped = skipped.min(self.window.len());
            self.window.drain(..skipped);
            self.start += skipped as u64;
            if self.ended || (self.start == offset && self.window.len() >= wanted) {
                break;
            }
            if Instant::now() >= until {
                let why = "unpacking it up to where it goes on takes too long";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            self.step()?;
        }
        let there = if self.start == offset { self.window.len().min(wanted) } else { 0 };
        self.read_to = offset + there as u64;
        Ok(&self.window[..there])
    }

    fn step(&mut self) -> io::Result<()> {
        if self.end() >= UNPACKED_MAX {
            let why = "it unpacks to more than 64 GiB";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let before = self.window.len();
        self.window.resize(before + STEP, 0);
        let read = self.decoder.read(&mut self.window[before..]);
        self.window.truncate(before + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(())
    }
}

impl io::Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, &mut [], self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::platform::fs::{Fs as _, RealFs};

    fn packed(parts: &[&[u8]]) -> (tempfile::TempDir, Gzip) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.1.gz");
        let mut bytes = Vec::new();
        for part in parts {
            let mut encoder = GzEncoder::new(&mut bytes, Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
        (directory, Gzip::new(RealFs.open(&path).unwrap()))
    }

    fn read(file: &Gzip, length: usize, offset: u64) -> Vec<u8> {
        let (mut first, mut second) = (vec![0; length / 2], vec![0; length - length / 2]);
        let got = file.read_at(&mut first, &mut second, offset).unwrap();
        let mut bytes = [first, second].concat();
        bytes.truncate(got);
        bytes
    }

    #[test]
    fn any_place_reads_as_in_the_unpacked_file() {
        let content: Vec<u8> = (0..400_000_u32).flat_map(|n| (n % 251).to_le_bytes()).collect();
        let (first, second) = content.split_at(700_001);
        let (_directory, file) = packed(&[first, second]);
        let end = content.len() as u64;
        for offset in [0, 1, 65_535, 65_536, 700_000, 3, 1_599_000, end - 1, end, end + 9, 0] {
            let expected = content.get(offset as usize..).unwrap_or_default();
            let expected = &expected[..expected.len().min(3_000)];
            assert_eq!(read(&file, 3_000, offset), expected, "{offset}");
        }
    }

    #[test]
    fn the_size_is_ahead_of_what_was_read_until_the_end() {
        let content = vec![b'x'; 3 * STEP + 5];
        let (_directory, file) = packed(&[&content]);
        let mut position: u64 = 0;
        loop {
            let size = file.facts().unwrap().size;
            // With bytes from before the position, as a followed file is read.
            let from = position.saturating_sub(256);
            let got = read(&file, (position - from) as usize + 1000, from).len() as u64;
            let got = got - (position - from);
            assert!(size > position || got == 0, "{size} {position}");
            position += got;
            if got == 0 {
                assert_eq!((position, size), (content.len() as u64, content.len() as u64));
                return;
            }
        }
    }

    #[test]
    fn sec_10_a_read_that_would_unpack_for_too_long_is_an_error() {
        let (_directory, mut file) = packed(&[&vec![b'x'; 1 << 20]]);
        assert_eq!(read(&file, 10, 0).len(), 10);
        file.read_max = Duration::ZERO;
        // It is unpacked already.
        assert_eq!(read(&file, 10, 20).len(), 10);
        let error = file.read_at(&mut [0; 10], &mut [], 1 << 19).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_cut_or_no_gzip_is_an_error_and_not_an_end() {
        let (directory, _) = packed(&[&vec![b'x'; 100_000]]);
        let path = directory.path().join("events.1.gz");
        let whole = std::fs::read(&path).unwrap();
        for bytes in [&whole[..whole.len() - 1], &whole[..whole.len() / 2], &whole[..5], b"plain\n"]
        {
            std::fs::write(&path, bytes).unwrap();
            let file = Gzip::new(RealFs.open(&path).unwrap());
            let mut all = vec![0; 200_000];
            assert!(file.read_at(&mut all, &mut [], 0).is_err(), "{} bytes", bytes.len());
        }
    }
}
