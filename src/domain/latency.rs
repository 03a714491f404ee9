//! How long lines took: a histogram in plain integers, made to cost next to nothing a line.

/// Upper bounds of the buckets in microseconds, smallest first: from a quick broker to a day of
/// outage. What took longer is in one more bucket without a bound.
pub const BOUNDS_US: [u64; 19] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    7_200_000_000,
    86_400_000_000,
];

/// Durations, counted by bucket.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// The bucket that was last counted in, and the durations that belong to it: most lines take
    /// about as long as the one before.
    last: usize,
    from: u64,
    to: u64,
    counts: [u64; BOUNDS_US.len() + 1],
    /// Wide: a million events with a time of 1970 are more than 64 bits of microseconds.
    sum_us: u128,
}

impl Latencies {
    /// Counts a duration.
    pub fn observe(&mut self, us: u64) {
        if us < self.from || us > self.to {
            self.find(us);
        }
        self.counts[self.last] += 1;
        self.sum_us += u128::from(us);
    }

    #[cold]
    fn find(&mut self, us: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        let before = bucket.checked_sub(1).map(|before| BOUNDS_US[before]);
        self.last = bucket;
        self.from = before.map_or(0, |before| before + 1);
        self.to = BOUNDS_US.get(bucket).copied().unwrap_or(u64::MAX);
    }

    /// For each bound, none last, how many durations were not longer.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = BOUNDS_US.into_iter().map(Some).chain([None]);
        bounds.zip(self.counts).scan(0, |total, (bound, count)| {
            *total += count;
            Some((bound, *total))
        })
    }

    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in microseconds.
    pub fn sum_us(&self) -> u128 {
        self.sum_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_every_bucket_that_it_is_not_longer_than() {
        let mut latencies = Latencies::default();
        for us in [0, u64::MAX, 1_001, 1_000, u64::MAX, 86_400_000_000] {
            latencies.observe(us);
        }
        let buckets: Vec<_> = latencies.buckets().collect();
        assert_eq!(buckets[..2], [(Some(1_000), 2), (Some(2_500), 3)]);
        assert_eq!(buckets[18..], [(Some(86_400_000_000), 4), (None, 6)]);
        assert_eq!((buckets.len(), latencies.count()), (BOUNDS_US.len() + 1, 6));
        let sum = 2 * u128::from(u64::MAX) + 86_400_002_001;
        assert_eq!(latencies.sum_us(), sum);
    }
}
