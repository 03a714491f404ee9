//! What the application writes: lines whose text follows from their number, and what is expected of
//! each. The expectation comes with the line, never from the validator under test.

use std::collections::HashMap;

use crate::model::sha;
use crate::sending::Delivered;

/// What has to become of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Valid,
    /// The sink leaves it out: too old.
    Old,
    /// The sink refuses it.
    Poison,
    Filtered,
    /// Nobody wrote it: it came about where a line was torn. Two halves may well make a whole.
    Torn,
    /// Rejected for this reason.
    Invalid(&'static str),
}

/// A place in a file, in the life that it had after so many cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) uid: u64,
    pub(crate) life: u64,
    pub(crate) offset: u64,
}

/// A line, and everything that the oracle knows of it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) content: Vec<u8>,
    pub(crate) class: Class,
    pub(crate) key: &'static str,
    /// The first line of every file is the same: it can't be told from its sisters.
    pub(crate) header: bool,
    /// It was there before a first start that begins at the end: nobody asks for it.
    pub(crate) before_start: bool,
    /// Where it was written to.
    pub(crate) homes: Vec<Home>,
    /// Where it was written first.
    pub(crate) origin: Option<Home>,
    pub(crate) delivered: u64,
    pub(crate) last: Option<Delivered>,
    /// Acknowledged, or durably rejected, at least once.
    pub(crate) settled: bool,
}

impl Line {
    /// It was written there.
    pub(crate) fn stands_at(&mut self, uid: u64, life: u64, offset: u64) {
        let home = Home { uid, life, offset };
        if !self.homes.contains(&home) {
            self.homes.push(home);
        }
        self.origin.get_or_insert(home);
    }
}

pub(crate) const KEYS: [&str; 3] = ["ann", "ben", "cat"];

/// All lines that were ever written.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) all: Vec<Line>,
    /// All files begin with the same line.
    alike: bool,
    by_content: HashMap<Vec<u8>, usize>,
    /// Those that may be rejected, by their hash.
    by_hash: HashMap<String, usize>,
}

impl Lines {
    pub(crate) fn new(alike: bool) -> Self {
        Self { alike, ..Self::default() }
    }

    pub(crate) fn find(&self, content: &[u8]) -> Option<usize> {
        self.by_content.get(content).copied()
    }

    /// A line of the kind that `kind` stands for. `long` is a length that is too long.
    pub(crate) fn make(&mut self, kind: u64, long: usize) -> usize {
        let number = self.all.len();
        let key = KEYS[(kind >> 8) as usize % KEYS.len()];
        let event = |kind: &str, more: &str| {
            format!(
                "{{\"event_type\":\"{kind}\",\"timestamp\":\"2026-01-29T10:30:45Z\",\"user_id\":\"{key}\",\
                 \"source\":\"sim\",\"data\":{{\"n\":{number}{more}}}}}"
            )
            .into_bytes()
        };
        let (content, class) = match kind % 32 {
            0 => (event("order_event", ",\"old\":1"), Class::Old),
            1 | 2 => (event("order_event", ",\"poison\":1"), Class::Poison),
            3 | 4 => (event("force_logout", ""), Class::Filtered),
            5 => (format!("no json {number}").into_bytes(), Class::Invalid("not_json")),
            6 => (format!("{{\"n\":{number}}}").into_bytes(), Class::Invalid("missing_field")),
            7 => (event("surprise", ""), Class::Invalid("unknown_event_type")),
            8 => {
                ([b"\xff", number.to_string().as_bytes()].concat(), Class::Invalid("invalid_utf8"))
            }
            9 => {
                let filler = "x".repeat(long);
                // Where files begin alike, a common end makes them the same.
                let end = if self.alike { number.to_string() } else { String::new() };
                (format!("{number}{filler}{end}").into_bytes(), Class::Invalid("too_long"))
            }
            10 => (format!("nul {number} \0 x").into_bytes(), Class::Invalid("nul_bytes")),
            11 | 12 => (event("analyzer_update", ",\"x\":1e400,\"x\":2"), Class::Valid),
            _ => (event("order_event", ""), Class::Valid),
        };
        self.add(content, class, key, false)
    }

    /// The line that begins every file, where the configuration says so.
    pub(crate) fn header(&mut self) -> usize {
        let content = b"{\"event_type\":\"order_event\",\"timestamp\":\"2026-01-29T10:30:45Z\",\"user_id\":\"ann\",\
            \"source\":\"sim\",\"data\":{\"start\":1}}";
        self.find(content)
            .unwrap_or_else(|| self.add(content.to_vec(), Class::Valid, KEYS[0], true))
    }

    /// The line with this content; one that nobody wrote as such came about by tearing.
    pub(crate) fn judge(&mut self, content: &[u8]) -> usize {
        self.find(content)
            .unwrap_or_else(|| self.add(content.to_vec(), Class::Torn, KEYS[0], false))
    }

    pub(crate) fn find_hash(&self, hash: &str) -> Option<usize> {
        self.by_hash.get(hash).copied()
    }

    fn add(&mut self, content: Vec<u8>, class: Class, key: &'static str, header: bool) -> usize {
        let index = self.all.len();
        if matches!(class, Class::Poison | Class::Torn | Class::Invalid(_)) {
            self.by_hash.insert(sha(&content), index);
        }
        self.by_content.insert(content.clone(), index);
        let homes = Vec::new();
        self.all.push(Line {
            content,
            class,
            key,
            header,
            before_start: false,
            homes,
            origin: None,
            delivered: 0,
            last: None,
            settled: false,
        });
        index
    }
}
