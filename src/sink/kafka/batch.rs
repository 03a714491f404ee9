//! What is known of the size that the topic takes.

/// How large batches may be.
pub(super) struct BatchSize {
    pub configured: Option<usize>,
    /// Smaller than configured: the topic took the records of a batch, but not the batch.
    pub learned: Option<usize>,
}

impl BatchSize {
    /// librdkafka's default, for want of a setting.
    const DEFAULT: usize = 1_000_000;
    const LEAST: usize = 512;

    /// Half as much from now on.
    pub(super) fn halve(&mut self) -> usize {
        let present = self.learned.or(self.configured).unwrap_or(Self::DEFAULT);
        let half = (present / 2).max(Self::LEAST);
        self.learned = Some(half);
        half
    }
}
