//! Rotated files: which names they get, and in which order they were made.
//!
//! Names alone decide nothing: a file is known by its inode or its content. They say which files to
//! look at, and in which order those are to be read that nobody has seen before.

/// A rotated file's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// What the rotation put into the name: `1`, `20260129`, `2026-01-29-1769680800`.
    tag: String,
    /// How it was packed since.
    pub packing: Packing,
}

/// Whether a file can be read as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// It can.
    Plain,
    /// Through gzip.
    Gzip,
    /// It can't: packed by a program that is not understood.
    Other,
}

/// Endings of packed files.
const PACKED: [(&str, Packing); 6] = [
    (".gz", Packing::Gzip),
    (".bz2", Packing::Other),
    (".xz", Packing::Other),
    (".zst", Packing::Other),
    (".lz4", Packing::Other),
    (".zip", Packing::Other),
];

/// Up to this, a number is a place in a row; a longer one is a date or a time.
const INDEX_DIGITS: usize = 5;

impl Rotated {
    /// Takes a name apart, if it is one that a rotation gives to the file called `input`:
    /// `input.1`, `input-20260129`, and with logrotate's `extension` `stem.1.ext`, packed or not.
    pub fn of(input: &str, name: &str) -> Option<Self> {
        let packed =
            PACKED.iter().find_map(|(end, packing)| Some((name.strip_suffix(end)?, *packing)));
        let (plain, packing) = packed.unwrap_or((name, Packing::Plain));
        let with_extension = || {
            let (stem, extension) = input.rsplit_once('.')?;
            plain.strip_prefix(stem)?.strip_suffix(extension)?.strip_suffix('.')
        };
        let tag = plain.strip_prefix(input).or_else(with_extension)?;
        let tag = tag.strip_prefix(['.', '-', '_'])?;
        let is_tag = tag.starts_with(|first: char| first.is_ascii_digit())
            && tag.bytes().all(|byte| byte.is_ascii_digit() || b"-_.:T".contains(&byte));
        is_tag.then(|| Self { tag: tag.to_owned(), packing })
    }

    /// What the rotation put into the name. A file and what it is packed into have the same: there are both for
    /// a moment.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The year first, or seconds since 1970: later ones sort behind earlier ones.
    fn is_date(&self) -> bool {
        let year = self.tag.get(..4).and_then(|year| year.parse::<u16>().ok());
        self.tag.len() >= 8 && year.is_some_and(|year| (1000..3000).contains(&year))
    }

    fn index(&self) -> Option<u32> {
        self.tag.parse().ok().filter(|_| self.tag.len() <= INDEX_DIGITS)
    }
}

/// Sorts oldest first: by number or by date where all names have one of the same form, else by when
/// they were last written, in nanoseconds since 1970. `key` gives both.
pub fn sort<T>(files: &mut [T], key: impl Fn(&T) -> (&Rotated, i64)) {
    let numbered = files.iter().all(|file| key(file).0.index().is_some());
    let form = files.first().map(|file| key(file).0.tag.len());
    let dated =
        files.iter().all(|file| key(file).0.is_date() && Some(key(file).0.tag.len()) == form);
    files.sort_by(|a, b| {
        let ((a, a_ns), (b, b_ns)) = (key(a), key(b));
        let by_time = (a_ns, &a.tag).cmp(&(b_ns, &b.tag));
        match (a.index(), b.index()) {
            (Some(a), Some(b)) if numbered => b.cmp(&a).then(by_time),
            _ if dated => a.tag.cmp(&b.tag).then(by_time),
            _ => by_time,
        }
    });
}

/// Which of the sorted files nobody has seen: those that came after the last one that is known.
///
/// Where none is known any more, those that were written after `modified_ns`, when the last known
/// file was: in doubt a file is read, since duplicates are preferred to loss.
pub fn unseen(known: &[bool], modified_ns: &[i64], last_ns: i64) -> Vec<usize> {
    match known.iter().rposition(|known| *known) {
        Some(last) => (last + 1..known.len()).collect(),
        None => (0..known.len()).filter(|file| modified_ns[*file] >= last_ns).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &str = "order_events.jsonl";

    #[test]
    fn names_that_rotations_give() {
        for (name, tag, packing) in [
            ("order_events.jsonl.1", "1", Packing::Plain),
            ("order_events.jsonl.12.gz", "12", Packing::Gzip),
            ("order_events.jsonl-20260129", "20260129", Packing::Plain),
            ("order_events.jsonl-20260129.gz", "20260129", Packing::Gzip),
            ("order_events.jsonl-20260129-1769680800.xz", "20260129-1769680800", Packing::Other),
            ("order_events.jsonl.2026-01-29T10:30:45", "2026-01-29T10:30:45", Packing::Plain),
            ("order_events.1.jsonl", "1", Packing::Plain),
            ("order_events-20260129.jsonl.gz", "20260129", Packing::Gzip),
        ] {
            let rotated = Rotated::of(INPUT, name);
            assert_eq!(rotated, Some(Rotated { tag: tag.to_owned(), packing }), "{name}");
        }
    }

    #[test]
    fn names_of_other_files() {
        for name in [
            "order_events.jsonl",
            "order_events.jsonl.gz",
            "order_events.jsonl~",
            "order_events.jsonl.bak",
            "order_events.jsonl.swp",
            "order_events.jsonl.1.tmp",
            "order_events.jsonl1",
            "order_events.writer.json",
            "order_events2.jsonl.1",
            "other.jsonl.1",
            ".order_events.jsonl.1",
            "",
        ] {
            assert_eq!(Rotated::of(INPUT, name), None, "{name}");
        }
        assert!(Rotated::of("events", "events.1").is_some());
        assert!(Rotated::of("events", "events1.").is_none());
    }

    fn sorted(files: &[(&str, i64)]) -> Vec<String> {
        let rotated = |name: &str| Rotated::of(INPUT, &format!("{INPUT}{name}")).unwrap();
        let mut files: Vec<_> = files.iter().map(|(name, ns)| (rotated(name), *ns)).collect();
        sort(&mut files, |(name, ns)| (name, *ns));
        files.into_iter().map(|(name, _)| name.tag).collect()
    }

    #[test]
    fn numbers_count_down_dates_count_up_and_else_the_time_of_the_last_write_counts() {
        assert_eq!(sorted(&[(".1", 1), (".10", 3), (".2.gz", 2)]), ["10", "2", "1"]);
        // Late writers had the older one open.
        assert_eq!(sorted(&[("-20260130", 1), ("-20260129.gz", 2)]), ["20260129", "20260130"]);
        assert_eq!(sorted(&[(".1769680801", 1), (".1769680800", 2)]), ["1769680800", "1769680801"]);
        // Days before months: the name misleads.
        assert_eq!(
            sorted(&[("-01022026", 9), ("-31012026", 8), ("-02022026", 10)]),
            ["31012026", "01022026", "02022026"]
        );
        assert_eq!(sorted(&[(".1", 5), ("-20260129", 4)]), ["20260129", "1"]);
    }

    #[test]
    fn what_came_after_the_last_known_file_is_unseen() {
        let times = [1, 2, 3, 4];
        assert_eq!(unseen(&[false, true, false, false], &times, 0), [2, 3]);
        assert_eq!(unseen(&[true, false, true, false], &times, 0), [3]);
        assert_eq!(unseen(&[false, false, false, true], &times, 0), [0; 0]);
        assert_eq!(unseen(&[false; 4], &times, 3), [2, 3]);
        assert_eq!(unseen(&[], &[], 3), [0; 0]);
    }
}
