//! Secrets and certificates that were read again: a new producer with them, and nothing is lost.

use tracing::{info, warn};

use super::{KafkaSink, Phase};
use crate::sink::Secrets;

impl KafkaSink {
    /// librdkafka keeps what it was told, so the producer has to go; what it has not delivered goes
    /// again, in file order, through the next one.
    pub(super) fn renew_producers(&mut self, secrets: &Secrets) {
        if let Err(error) = self.connect.renew(&secrets.kafka) {
            warn!(%error, "librdkafka does not accept what was read again: the former stays in use");
            return;
        }
        info!("a new Kafka producer uses what was read again");
        self.backoff.reset();
        self.watch.renewed();
        if self.sent == 0 && !matches!(self.phase, Phase::Broken { .. }) {
            // The next record makes one.
            self.flow = None;
            self.alone = None;
            self.epoch += 1;
        } else {
            self.break_down("secrets and certificates were read again");
            self.rebuild_soon();
        }
    }
}
