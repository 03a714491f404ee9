//! Rejected lines that an admin wants sent again: through validation to the sink, under their own names.
//!
//! They are outside the order of the input and outside its position: a request is kept in its file until all
//! of its lines came to an end. What they were counted as, they stay.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::Pipeline;
use super::lane::{RejectedBytes, SentLine, Tracked};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::writer::Requeued;
use crate::domain::envelope::{Verdict, validate};
use crate::domain::framing::{LineBytes, Place};
use crate::domain::ledger::{Amount, Class};
use crate::domain::position::Generation;
use crate::platform::clock::format_utc;
use crate::sink::Message;
use crate::sink::rejects::Entry;
use crate::sink::requeue::{self, Outcome};

/// The lane of lines that are in no file.
pub(super) const REQUEUED: u64 = u64::MAX;

/// How often requests are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is sent again.
#[derive(Default)]
pub(super) struct Requeue {
    next_look: Option<Instant>,
    open: Option<Open>,
    /// Its outcomes are on their way to the disk.
    finishing: bool,
    failing: bool,
    /// Lines that were delivered since the ledger began.
    pub(super) delivered: u64,
    /// Lines in requests behind the open one.
    waiting: u64,
}

/// The request that is worked on.
struct Open {
    path: PathBuf,
    entries: Vec<Entry>,
    /// How many of them were read.
    read: usize,
    outcomes: Vec<(String, Outcome)>,
}

impl Requeue {
    /// Goes on counting where the last run stopped.
    pub(super) fn new(checkpoint: Option<&Checkpoint>) -> Self {
        let delivered = checkpoint.map_or(0, |checkpoint| checkpoint.requeued_lines);
        Self { delivered, ..Self::default() }
    }

    /// Lines that are asked for and came to no end yet.
    pub(super) fn outstanding(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.entries.len() - open.outcomes.len());
        self.waiting + open as u64
    }
}

impl Pipeline {
    /// Sends what there is room for.
    pub(super) fn send_requeued(&mut self) {
        let now = self.edges.clock.now();
        if self.requeue.open.is_none() && self.requeue.next_look.is_none_or(|due| now >= due) {
            self.requeue.next_look = Some(now + LOOK_INTERVAL);
            self.look_for_requests();
        }
        while let Some(open) = &mut self.requeue.open
            && let Some(entry) = open.entries.get(open.read)
        {
            let bytes = entry.bytes();
            if !self.tracker.has_room(bytes.len()) {
                return;
            }
            let (generation, offset) = (entry.generation, entry.offset);
            let line = LineBytes::standalone(&bytes);
            let index = open.read;
            open.read += 1;
            self.send_again(&line, SentFrom { index, generation, offset });
        }
    }

    fn look_for_requests(&mut self) {
        let (fs, state_dir) = (self.edges.fs.as_ref(), &self.settings.state_dir);
        let Ok(requests) = requeue::requests(fs, state_dir) else { return };
        self.requeue.waiting = requests.iter().skip(1).map(|path| requeue::lines_in(path)).sum();
        let Some(path) = requests.into_iter().next() else { return };
        match requeue::read(fs, &path) {
            Ok(mut entries) => {
                // What an earlier run delivered of it before it stopped. Without the list: all of it again.
                let done = requeue::outcomes(fs, state_dir).unwrap_or_default();
                entries.retain(|entry| done.get(&entry.id) != Some(&Outcome::Delivered));
                self.requeue.failing = false;
                info!(lines = entries.len(), "rejected lines are sent again");
                self.requeue.open = Some(Open { path, entries, read: 0, outcomes: Vec::new() });
                self.finish_request();
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                error!(path = %path.display(), %error, "a request to send rejects again is damaged: it is put aside");
                let _ = requeue::put_aside(fs, &path);
            }
            // Whoever made it may be about to give it to this user.
            Err(error) => {
                if !std::mem::replace(&mut self.requeue.failing, true) {
                    warn!(path = %path.display(), %error, "a request to send rejects again can't be read; trying on");
                }
            }
        }
    }

    /// Notes what became of the open request's lines, if that is known of all of them; when stopping, of those
    /// of which it is.
    pub(super) fn finish_request(&mut self) {
        let Some(open) = &self.requeue.open else { return };
        let is_whole = open.outcomes.len() == open.entries.len();
        let is_due = is_whole || (self.stopping && self.tracker.is_empty());
        if !is_due || std::mem::replace(&mut self.requeue.finishing, true) {
            return;
        }
        let at = format_utc(self.edges.clock.unix_ms());
        let request = is_whole.then(|| open.path.clone());
        let outcomes = requeue::encode(&at, &open.outcomes);
        self.edges.committer.requeued(Requeued { outcomes, request });
    }

    /// Whether a stop need not wait for the list. What was read is settled.
    pub(super) fn is_requeue_noted(&mut self) -> bool {
        self.finish_request();
        self.requeue.open.is_none() || self.left
    }

    fn send_again(&mut self, line: &LineBytes, from: SentFrom) {
        let SentFrom { index, generation, offset } = from;
        let mut tracked = Tracked {
            lane: REQUEUED,
            place: Place::nowhere(),
            end: index as u64,
            // Each byte of the input is counted once.
            amount: Amount::default(),
            skipped: 0,
            seen_ms: self.turn_ms,
            class: None,
            line: None,
            reason: None,
        };
        let refused = match validate(line.as_slice(), &self.settings.event_types) {
            _ if line.len() > self.settings.max_line_bytes => self.too_long(line.len() as u64),
            Verdict::Valid(envelope) => {
                let message = Message::new(line, &envelope, generation, offset, false);
                let (bytes, event_ms) = (line.clone(), envelope.event_time_ms);
                let seen_us = self.turn_us;
                tracked.line = Some(SentLine { bytes, generation, offset, event_ms, seen_us });
                let record = self.tracker.track(tracked, line.len());
                self.edges.sink.publish(record, message);
                return;
            }
            Verdict::Filtered => {
                // Nobody gets it, and it is open as before.
                let record = self.tracker.track(tracked, 0);
                self.acknowledge(record, Class::Filtered);
                return;
            }
            Verdict::Rejected(rejection) => rejection,
        };
        let record = self.tracker.track(tracked, line.len());
        let line = RejectedBytes::whole(line.clone(), offset);
        self.reject(record, generation, &line, &refused);
    }

    /// One of the open request's lines came to its end.
    pub(super) fn on_requeued(&mut self, index: u64, class: Class) {
        let Some(open) = &mut self.requeue.open else { return };
        let Some(entry) = open.entries.get(index as usize) else { return };
        let outcome = if class == Class::Delivered { Outcome::Delivered } else { Outcome::Refused };
        self.requeue.delivered += u64::from(outcome == Outcome::Delivered);
        open.outcomes.push((entry.id.clone(), outcome));
        self.finish_request();
        self.position.moved();
    }

    /// The open request is finished and gone, or what was done of it before a stop is noted.
    pub(super) fn on_requeue_noted(&mut self) {
        if let Some(open) = self.requeue.open.take() {
            let is_delivered = |(_, outcome): &&(String, Outcome)| *outcome == Outcome::Delivered;
            let delivered = open.outcomes.iter().filter(is_delivered).count();
            let refused = open.outcomes.len() - delivered;
            info!(delivered, refused, "rejected lines were sent again");
        }
        (self.requeue.finishing, self.requeue.failing) = (false, false);
        self.requeue.next_look = None;
    }

    pub(super) fn on_requeue_failed(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.requeue.failing, true) {
            error!(%error, "cannot note that rejected lines were sent again: a restart now would repeat them; trying on");
        }
    }
}

/// A line's place in the request, and its name.
#[derive(Clone, Copy)]
struct SentFrom {
    index: usize,
    generation: Generation,
    offset: u64,
}
