//! How much there is of a file, as far as was seen, and what of it vanished.

use std::ops::RangeInclusive;

use crate::domain::position::Span;
use crate::platform::fs::FileFacts;

/// The sizes and times that were seen of one life of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    size: u64,
    modified_ns: i64,
    shrunk: Option<Shrunk>,
    /// Its content is another one now: when that which was seen was last written.
    other_since_ns: Option<i64>,
    vanished: Option<Vanished>,
}

/// It was seen to be shorter than before, and that is not told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shrunk {
    /// The smallest size since then.
    least: u64,
    /// When what was there before was last written.
    written_ns: i64,
    /// The last size: what comes in the place of what vanished is another content.
    now: u64,
}

/// Bytes that came in the place of others that had vanished, and vanished too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vanished {
    /// Where they stood.
    pub span: Span,
    /// From when they were last written to when they were gone: nanoseconds since 1970.
    pub between: RangeInclusive<i64>,
}

impl Extent {
    pub(super) fn of(facts: &FileFacts) -> Self {
        Self { size: facts.size, modified_ns: facts.modified_ns, ..Self::default() }
    }

    /// Nothing was seen of its content, which comes after one that was last written then.
    pub(super) fn after(other: &Self) -> Self {
        Self { modified_ns: other.modified_ns, ..Self::default() }
    }

    /// The same as it stands now: what vanished is told.
    #[must_use]
    pub(super) fn told(&self) -> Self {
        Self { size: self.size, modified_ns: self.modified_ns, ..Self::default() }
    }

    /// Takes note of a size. A smaller one is for a read to tell, which knows what was there.
    pub(super) fn see(&mut self, facts: &FileFacts) {
        let written_ns = std::mem::replace(&mut self.modified_ns, facts.modified_ns);
        let now = facts.size;
        match &mut self.shrunk {
            Some(Shrunk { least, now: last, .. }) => {
                if now < *last {
                    let (start, since) = (now.max(*least), written_ns);
                    let before = self.vanished.take();
                    let since = before.map_or(since, |before| *before.between.start());
                    self.vanished = Some(Vanished {
                        span: Span { start, end: *last },
                        between: since..=facts.modified_ns,
                    });
                }
                (*least, *last) = (now.min(*least), now);
            }
            None if now < self.size => {
                self.shrunk = Some(Shrunk { least: now, written_ns, now });
            }
            None => self.size = now,
        }
    }

    /// Takes note that another content is there, which was not before it was last written.
    pub(super) fn is_other(&mut self, written_ns: i64) {
        self.other_since_ns.get_or_insert(written_ns);
    }

    /// Goes on with so much, fewer than there were.
    pub(super) fn accept(&mut self, size: u64) {
        (self.size, self.shrunk, self.other_since_ns) = (size, None, None);
    }

    /// The largest size since the last that was told.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The smallest size below that.
    pub(super) fn shrunk_to(&self) -> Option<u64> {
        self.shrunk.map(|shrunk| shrunk.least)
    }

    /// What came in the place of what vanished, and vanished too, since this was asked last.
    pub(super) fn take_vanished(&mut self) -> Option<Vanished> {
        self.vanished.take()
    }

    /// When what was seen of it was last written, nanoseconds since 1970.
    pub(super) fn written_ns(&self) -> i64 {
        let other = self.other_since_ns.or(self.shrunk.map(|shrunk| shrunk.written_ns));
        other.unwrap_or(self.modified_ns)
    }

    /// When it was last written, whatever that did.
    pub(super) fn modified_ns(&self) -> i64 {
        self.modified_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fs::FileKind;

    fn facts(size: u64, modified_ns: i64) -> FileFacts {
        FileFacts {
            kind: FileKind::Regular,
            dev: 1,
            ino: 1,
            born_ns: None,
            size,
            modified_ns,
            links: 1,
        }
    }

    #[test]
    fn what_grows_after_it_shrank_is_another_content() {
        let mut extent = Extent::of(&facts(100, 1));
        extent.see(&facts(120, 2));
        assert_eq!((extent.size(), extent.shrunk_to(), extent.written_ns()), (120, None, 2));
        extent.see(&facts(38, 3));
        extent.see(&facts(400, 4));
        assert_eq!((extent.size(), extent.shrunk_to()), (120, Some(38)));
        assert_eq!((extent.written_ns(), extent.modified_ns()), (2, 4));
        assert_eq!(extent.take_vanished(), None);
        // From 38 on it was new.
        extent.see(&facts(0, 5));
        let vanished = Vanished { span: Span { start: 38, end: 400 }, between: 4..=5 };
        assert_eq!((extent.shrunk_to(), extent.take_vanished()), (Some(0), Some(vanished)));
        assert_eq!(extent.take_vanished(), None, "told once");
        extent.accept(0);
        extent.see(&facts(20, 6));
        assert_eq!((extent.size(), extent.shrunk_to(), extent.take_vanished()), (20, None, None));
    }
}
