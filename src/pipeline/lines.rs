//! What becomes of a line that was read: tracked first, then judged, then published, put aside
//! or skipped.

use std::time::Duration;

use tracing::warn;

use super::lane::{RejectedBytes, SentLine, Tracked};
use super::{Pipeline, Progress};
use crate::checkpoint::writer::RejectedLine;
use crate::domain::acks::RecordId;
use crate::domain::envelope::{Reason, Rejection, Verdict, validate};
use crate::domain::framing::{Content, Frame, LineBytes, OVERSIZE_PREFIX_BYTES};
use crate::domain::ledger::{Amount, Class};
use crate::domain::position::Generation;
use crate::platform::mutants::{Mutant, makes};
use crate::sink::Message;
use crate::sink::rejects::{self, Rejected};

/// How often rejects are told of in the log.
const TELL_INTERVAL: Duration = Duration::from_mins(1);

impl Pipeline {
    /// Takes a line of the lane at `index`. [`Progress::Full`]: there is no room, it is held.
    ///
    /// `whole`: it ended with LF. Else it is the rest of a file that is over.
    pub(super) fn take_line(&mut self, index: usize, frame: Frame, whole: bool) -> Progress {
        let lane = self.lanes[index].key;
        let in_memory = match &frame.content {
            Content::Line(line) => self.kept_by(lane, line),
            Content::Oversize(_) => OVERSIZE_PREFIX_BYTES,
            Content::Blank => 0,
        };
        if !self.tracker.has_room(in_memory) && !makes(Mutant::NoLimit) {
            self.lanes[index].held = Some(frame);
            return Progress::Full;
        }
        let lane = &self.lanes[index];
        // A line only exists once the first one is complete, and that names the generation.
        let generation = lane.file.generation().unwrap_or(Generation(0));
        let offset = frame.span.start + frame.skipped;
        let mut tracked = Tracked {
            lane: lane.key,
            place: frame.place,
            end: frame.span.end,
            amount: Amount { bytes: frame.span.len(), lines: 1 },
            skipped: frame.skipped,
            seen_ms: self.turn_ms,
            class: None,
            line: None,
            reason: None,
        };
        let was_there = frame.span.end <= lane.opened_size;
        self.lines_behind_watermark += 1;
        match frame.content {
            Content::Blank => self.skip(tracked, Class::Blank),
            Content::Oversize(line) => {
                let rejection = self.too_long(line.length);
                let rejection = if whole { rejection } else { rejection.at_end_of_file() };
                tracked.place = tracked.place.detached();
                let record = self.tracker.track(tracked, in_memory);
                let (length, sha256) = (line.length, line.sha256);
                let line = RejectedBytes { offset, length, sha256, bytes: line.prefix };
                self.reject(record, generation, &line, &rejection);
            }
            Content::Line(line) => match validate(line.as_slice(), &self.settings.event_types) {
                Verdict::Valid(envelope) => {
                    let message = Message::new(&line, &envelope, generation, offset, was_there);
                    if was_there {
                        tracked.seen_ms = envelope.event_time_ms;
                    }
                    let (bytes, event_ms) = (line.clone(), envelope.event_time_ms);
                    let seen_us = self.turn_us;
                    tracked.line = Some(SentLine { bytes, generation, offset, event_ms, seen_us });
                    self.counted_buffer = Some((tracked.lane, line.buffer().0));
                    let record = self.tracker.track(tracked, in_memory);
                    self.edges.sink.publish(record, message);
                }
                Verdict::Filtered => self.skip(tracked, Class::Filtered),
                Verdict::Rejected(rejection) => {
                    let rejection = if whole { rejection } else { rejection.at_end_of_file() };
                    tracked.place = tracked.place.detached();
                    let record = self.tracker.track(tracked, line.len());
                    let line = RejectedBytes::whole(line.clone(), offset);
                    self.reject(record, generation, &line, &rejection);
                }
            },
        }
        Progress::More
    }

    /// Why a line of this length is refused.
    pub(super) fn too_long(&self, length: u64) -> Rejection {
        let limit = self.settings.max_line_bytes;
        let detail = format!("the line has {length} bytes, the limit is {limit}");
        Rejection::new(Reason::TooLong, detail)
    }

    /// Settles a line that needs nothing. A run of such lines is one record and holds no memory
    /// beyond its last place.
    fn skip(&mut self, tracked: Tracked, class: Class) {
        if let Some((newest, true)) = self.tracker.newest_mut()
            && newest.lane == tracked.lane
            && newest.class == Some(class)
            && newest.line.is_none()
        {
            self.ledger.settle(class, tracked.amount, tracked.skipped);
            newest.amount += tracked.amount;
            newest.skipped += tracked.skipped;
            newest.end = tracked.end;
            newest.place = tracked.place.detached();
            // The watermark is behind a run only as long as something before it is open.
            return;
        }
        let place = tracked.place.detached();
        let record = self.tracker.track(Tracked { place, ..tracked }, 0);
        self.acknowledge(record, class);
    }

    /// How much memory a line keeps that is not counted yet: the buffer that it was read into, if
    /// no line before it does.
    fn kept_by(&self, lane: u64, line: &LineBytes) -> usize {
        let (start, size) = line.buffer();
        if self.counted_buffer == Some((lane, start)) { 0 } else { size }
    }

    /// Puts a line aside that the sink can never accept.
    pub(super) fn reject_sent(&mut self, record: RecordId, rejection: &Rejection) {
        let Some(tracked) = self.tracker.get(record) else { return };
        let Some(line) = tracked.line.clone() else { return };
        let generation = line.generation;
        let line = RejectedBytes::whole(line.bytes, line.offset);
        self.reject(record, generation, &line, rejection);
    }

    /// Hands a rejected line to the state writer; it is settled once it is durable.
    pub(super) fn reject(
        &mut self,
        record: RecordId,
        generation: Generation,
        line: &RejectedBytes,
        rejection: &Rejection,
    ) {
        self.tell_reject(rejection, line.offset);
        if let Some(tracked) = self.tracker.get_mut(record) {
            tracked.reason = Some(rejection.reason);
        }
        let encoded = rejects::encode(&Rejected {
            at_ms: self.edges.clock.unix_ms(),
            sink: self.settings.sink_name,
            rejection,
            file: &self.settings.input,
            generation,
            offset: line.offset,
            length: line.length,
            sha256: line.sha256,
            line: line.bytes.as_slice(),
        });
        match encoded {
            Ok(text) => {
                self.edges.committer.reject(RejectedLine { record, text });
                if makes(Mutant::RejectUnwritten) {
                    self.acknowledge(record, Class::Rejected);
                }
            }
            // Cannot happen for these types; if it did, the line would stay pending for ever and
            // say so through the in-flight limit rather than be lost.
            Err(error) => tracing::error!(%error, "cannot encode a rejected line"),
        }
    }

    /// Tells of the first reject, and then of the number of them once a minute.
    fn tell_reject(&mut self, rejection: &Rejection, offset: u64) {
        self.rejects_untold += 1;
        let now = self.edges.clock.now();
        if self.rejects_told.is_some_and(|told| now < told + TELL_INTERVAL) {
            return;
        }
        let (reason, lines) = (rejection.reason.as_str(), std::mem::take(&mut self.rejects_untold));
        self.rejects_told = Some(now);
        warn!(lines, reason, offset, "rejected: kept aside, see `openalgo-bridge rejects list`");
    }
}
