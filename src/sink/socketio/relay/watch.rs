//! Whether the app takes events: what is told of an outage, once, and of its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::platform::clock::Clock;
use crate::sink::State;

/// How long an outage may be without being told: an app that is restarted is back by then.
pub(super) const BLIP: Duration = Duration::from_secs(2);

/// How often outages are told at most.
const TELL_INTERVAL: Duration = Duration::from_mins(1);

/// What is known of the other side.
pub(super) struct Watch {
    clock: Arc<dyn Clock>,
    trouble: Option<Trouble>,
    /// When the log was last told of one.
    told: Option<Instant>,
}

struct Trouble {
    reason: String,
    since: Instant,
    since_ms: i64,
    /// It will not pass by itself, or has not for a while.
    lasting: bool,
    /// The reason that the log has.
    told: Option<String>,
}

impl Watch {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, trouble: None, told: None }
    }

    /// Something went wrong; `lasting`: waiting alone will not mend it.
    pub(super) fn failed(&mut self, reason: &str, lasting: bool) {
        let (since, since_ms) = (self.clock.now(), self.clock.unix_ms());
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            reason: String::new(),
            since,
            since_ms,
            lasting,
            told: None,
        });
        reason.clone_into(&mut trouble.reason);
        trouble.lasting |= lasting;
        self.tell_if_due();
    }

    /// When there may be something to tell.
    pub(super) fn tell_at(&self) -> Option<Instant> {
        let trouble = self.trouble.as_ref()?;
        if trouble.told.as_deref() == Some(&trouble.reason) {
            return None;
        }
        let due = if trouble.lasting { trouble.since } else { trouble.since + BLIP };
        Some(self.told.map_or(due, |told| due.max(told + TELL_INTERVAL)))
    }

    /// Tells what is wrong when it has lasted, and at most once a minute when it is something else.
    pub(super) fn tell_if_due(&mut self) {
        let now = self.clock.now();
        let due = self.tell_at().is_some_and(|at| now >= at);
        let Some(trouble) = &mut self.trouble else { return };
        trouble.lasting |= now >= trouble.since + BLIP;
        if due {
            let reason = trouble.reason.as_str();
            error!(reason, "the app does not take events: they wait in the file; trying on");
            trouble.told = Some(trouble.reason.clone());
            self.told = Some(now);
        }
    }

    /// The app took what there was.
    pub(super) fn recovered(&mut self) {
        if let Some(trouble) = self.trouble.take()
            && trouble.told.is_some()
        {
            let seconds = (self.clock.now() - trouble.since).as_secs();
            info!(seconds, "the app takes events again");
        }
    }

    /// How it is, why, and since when (milliseconds since 1970).
    pub(super) fn state(&self) -> (State, Option<String>, Option<i64>) {
        let Some(trouble) = &self.trouble else { return (State::Up, None, None) };
        let state = if trouble.lasting { State::Down } else { State::Degraded };
        (state, Some(trouble.reason.clone()), Some(trouble.since_ms))
    }
}
