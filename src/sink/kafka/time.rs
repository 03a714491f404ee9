//! A broker that does not accept the time that a record carries: the event's is too old for the topic, or
//! the clocks differ.

use tracing::warn;

use super::{KafkaSink, Phase, SlotState};
use crate::sink::Message;

/// Leaves the event's time out, where the broker takes none that old: the record carries that of sending.
pub(super) fn leave_out_refused(message: &mut Message, refused_ms: i64) {
    if message.event_time_ms <= refused_ms {
        message.event_time_ms = 0;
    }
}

impl KafkaSink {
    /// The time of a record that is out alone was refused. It goes again with the time of sending; if that is
    /// refused too, it is no fault of the event, and it waits until the clocks are set.
    pub(super) fn on_time_refused(&mut self, tag: u64, why: &str) {
        self.phase = Phase::Flowing;
        self.sent -= 1;
        let Some(slot) = self.slot_mut(tag) else { return };
        slot.state = SlotState::Waiting;
        if slot.message.event_time_ms > 0 {
            slot.refused_ms = Some(std::mem::take(&mut slot.message.event_time_ms));
            return;
        }
        if let Some(time) = slot.refused_ms.take() {
            slot.message.event_time_ms = time;
        }
        self.alone = None;
        self.give_way(format!(
            "{why}: the time of this machine is another one than the broker's, whatever it sends"
        ));
    }

    /// A record that was out alone is acknowledged. If that was for the time of sending, others that are as old
    /// need not be tried with theirs.
    pub(super) fn on_time_accepted(&mut self, tag: u64) {
        let Some(time) = self.slot(tag).and_then(|slot| slot.refused_ms) else { return };
        if self.refused_ms == i64::MIN {
            warn!(
                "the topic takes no events that old (message.timestamp.before.max.ms): they carry the time of \
                 sending instead of their own, which is in the header ce_time"
            );
        }
        self.refused_ms = self.refused_ms.max(time);
    }
}
