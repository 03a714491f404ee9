//! The delivery watermark: how far everything is settled, whatever order the acks come in.

use std::collections::VecDeque;

/// The number of a tracked record: counts up from 0 for the life of the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub u64);

/// What may be between the watermark and the newest record.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes held in memory for them.
    pub bytes: usize,
}

/// Records in the order they were read, each until it and all before it are acknowledged.
///
/// Only [`AckTracker::acknowledge`] moves the watermark, and it hands out the settled records in
/// order. The limits count everything behind the watermark, acknowledged or not, so a single
/// stuck record bounds memory and the repeats of a crash alike: a full tracker *is* the
/// backpressure.
#[derive(Debug)]
pub struct AckTracker<T> {
    entries: VecDeque<Entry<T>>,
    /// Id of the front entry.
    first: u64,
    bytes: usize,
    limits: Limits,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    bytes: usize,
    acknowledged: bool,
}

impl<T> AckTracker<T> {
    /// A tracker of nothing.
    pub fn new(limits: Limits) -> Self {
        Self { entries: VecDeque::new(), first: 0, bytes: 0, limits }
    }

    /// Whether a record that holds `bytes` may be tracked now. The first one always may, or a
    /// line larger than the limit would never move.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.entries.is_empty()
            || (self.entries.len() < self.limits.records
                && self.bytes.saturating_add(bytes) <= self.limits.bytes)
    }

    /// Tracks the next record. Ask [`AckTracker::has_room`] first.
    pub fn track(&mut self, item: T, bytes: usize) -> RecordId {
        let id = self.next();
        self.bytes += bytes;
        self.entries.push_back(Entry { item, bytes, acknowledged: false });
        id
    }

    /// Marks a record as settled and hands out, in order, every record that the watermark passes
    /// by it. A second acknowledgement of the same record changes nothing.
    pub fn acknowledge(&mut self, id: RecordId, mut passed: impl FnMut(T)) {
        let Some(entry) = self.index(id).and_then(|index| self.entries.get_mut(index)) else {
            return;
        };
        entry.acknowledged = true;
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.acknowledged) {
            self.first += 1;
            self.bytes -= entry.bytes;
            passed(entry.item);
        }
    }

    /// A record that the watermark has not passed.
    pub fn get(&self, id: RecordId) -> Option<&T> {
        self.entries.get(self.index(id)?).map(|entry| &entry.item)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: RecordId) -> Option<&mut T> {
        let index = self.index(id)?;
        self.entries.get_mut(index).map(|entry| &mut entry.item)
    }

    /// The newest record, if the watermark has not passed it, and whether it is acknowledged.
    pub fn newest_mut(&mut self) -> Option<(&mut T, bool)> {
        self.entries.back_mut().map(|entry| (&mut entry.item, entry.acknowledged))
    }

    /// Records that the watermark has not passed, oldest first, and whether each is acknowledged.
    pub fn iter(&self) -> impl Iterator<Item = (&T, bool)> {
        self.entries.iter().map(|entry| (&entry.item, entry.acknowledged))
    }

    /// The oldest record that the watermark has not passed; everything before is settled.
    pub fn first(&self) -> RecordId {
        RecordId(self.first)
    }

    /// The record that would be tracked next.
    pub fn next(&self) -> RecordId {
        RecordId(self.first + self.entries.len() as u64)
    }

    /// How many records the watermark has not passed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything tracked is settled.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn index(&self, id: RecordId) -> Option<usize> {
        id.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDE: Limits = Limits { records: usize::MAX, bytes: usize::MAX };

    #[test]
    fn the_watermark_waits_for_the_oldest() {
        let mut tracker = AckTracker::new(WIDE);
        let ids: Vec<_> = (0..3).map(|n| tracker.track(n, 1)).collect();
        let mut passed = Vec::new();
        tracker.acknowledge(ids[2], |n| passed.push(n));
        tracker.acknowledge(ids[1], |n| passed.push(n));
        assert!(passed.is_empty());
        tracker.acknowledge(ids[0], |n| passed.push(n));
        assert_eq!(passed, [0, 1, 2]);
        assert!(tracker.is_empty());
    }

    #[test]
    fn limits_count_acknowledged_records_behind_a_stuck_one() {
        let mut tracker = AckTracker::new(Limits { records: 2, bytes: 100 });
        tracker.track((), 60);
        assert!(!tracker.has_room(60), "bytes");
        let second = tracker.track((), 40);
        tracker.acknowledge(second, |()| ());
        assert!(!tracker.has_room(0), "records");
    }

    #[test]
    fn one_record_beyond_the_byte_limit_is_admitted_alone() {
        let mut tracker = AckTracker::new(Limits { records: 2, bytes: 100 });
        assert!(tracker.has_room(1_000));
        tracker.track((), 1_000);
        assert!(!tracker.has_room(1));
    }

    proptest! {
        #[test]
        fn the_watermark_is_the_longest_acknowledged_prefix(
            order in (1_usize..60).prop_flat_map(|n| {
                proptest::collection::vec(0..n, 0..3 * n).prop_map(move |acks| (n, acks))
            })
        ) {
            let (count, acks) = order;
            let mut tracker = AckTracker::new(WIDE);
            let ids: Vec<_> = (0..count).map(|n| tracker.track(n, 1)).collect();
            let mut acknowledged = vec![false; count];
            let mut passed = Vec::new();
            for ack in acks {
                tracker.acknowledge(ids[ack], |n| passed.push(n));
                acknowledged[ack] = true;
                let prefix = acknowledged.iter().take_while(|done| **done).count();
                prop_assert_eq!(&passed, &(0..prefix).collect::<Vec<_>>());
                prop_assert_eq!(tracker.len(), count - prefix);
            }
        }
    }
}
