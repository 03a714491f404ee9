//! The owner's loop: events in, one turn, wait.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Event, Mailbox, Next, Pipeline};
use crate::platform::panics::on_purpose;

/// How long a full pipeline lets reports gather before it takes them: refilling for each of them
/// would cost a switch of threads for each of them. The window holds much more than this.
const GATHER: Duration = Duration::from_micros(500);

/// From this many records in flight on, gathering cannot run the sink dry.
const GATHER_FROM: usize = 2048;

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything read is settled and committed.
    Clean,
    /// Everything is settled and committed, and another kind of input took the place of this one.
    Left,
    /// This many lines are in flight; they will be delivered again.
    WithInFlight(usize),
}

/// How long a stop waits for a sink that is down. One that is about to come back is not left; and who changes the mode
/// because the broker is dead has the next event in seconds.
const DOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last commit may take when the deadline has passed.
const LAST_COMMIT: Duration = Duration::from_secs(1);

/// Runs until told to stop, and at most `shutdown_timeout` longer.
pub fn run(pipeline: &mut Pipeline, mailbox: &Mailbox, shutdown_timeout: Duration) -> Stopped {
    let mut events = Vec::new();
    let mut stopping: Option<Stopping> = None;
    loop {
        mailbox.take(&mut events);
        for event in events.drain(..) {
            if matches!(event, Event::Stop) {
                stopping.get_or_insert_with(|| Stopping::now(shutdown_timeout));
            }
            pipeline.on(event);
        }
        on_purpose("owner");
        let until = match pipeline.turn() {
            Next::Again => continue,
            Next::Done => return end(pipeline, mailbox),
            Next::Left => return Stopped::Left,
            Next::WhenThereIsRoom(until) => {
                mailbox.wait(until);
                if pipeline.in_flight() >= GATHER_FROM {
                    std::thread::sleep(GATHER);
                }
                continue;
            }
            Next::Wait(until) => until,
        };
        let Some(stopping) = &stopping else {
            mailbox.wait(until);
            continue;
        };
        match stopping.goes_on_until(pipeline) {
            Some(by) => mailbox.wait(until.min(by)),
            None => return leave(pipeline, mailbox),
        }
    }
}

/// Until when a stop waits for what is in flight.
struct Stopping {
    by: Instant,
    by_if_down: Instant,
}

impl Stopping {
    fn now(timeout: Duration) -> Self {
        let now = Instant::now();
        Self { by: now + timeout, by_if_down: now + timeout.min(DOWN_TIMEOUT) }
    }

    /// When to look again at the latest; none: it has waited long enough.
    fn goes_on_until(&self, pipeline: &Pipeline) -> Option<Instant> {
        let now = Instant::now();
        if now < self.by_if_down {
            return Some(self.by_if_down);
        }
        (now < self.by && !pipeline.is_sink_down()).then_some(self.by)
    }
}

/// Ends with all settled that can be. What was not read of a file that is gone is kept, too.
fn end(pipeline: &mut Pipeline, mailbox: &Mailbox) -> Stopped {
    let in_flight = pipeline.in_flight();
    pipeline.keep_pending();
    commit_what_is_settled(pipeline, mailbox);
    if in_flight == 0 {
        info!("stopped: everything that was read is settled and committed");
        return Stopped::Clean;
    }
    info!(in_flight, "stopped: lines that nobody could get yet are left to the next start");
    Stopped::WithInFlight(in_flight)
}

/// Ends with what is in flight left to the next start.
fn leave(pipeline: &mut Pipeline, mailbox: &Mailbox) -> Stopped {
    let in_flight = pipeline.in_flight();
    pipeline.keep_pending();
    if in_flight > 0 {
        let sink_is_down = pipeline.is_sink_down();
        warn!(
            in_flight,
            sink_is_down, "stopped at the deadline: lines in flight will be delivered again"
        );
    } else {
        warn!("stopped at the deadline: not everything that is buffered was written out");
    }
    commit_what_is_settled(pipeline, mailbox);
    Stopped::WithInFlight(in_flight)
}

/// What is settled is made durable even if not everything is.
fn commit_what_is_settled(pipeline: &mut Pipeline, mailbox: &Mailbox) {
    let until = Instant::now() + LAST_COMMIT;
    let mut events = Vec::new();
    while !pipeline.is_committed() && Instant::now() < until {
        pipeline.commit_now();
        mailbox.wait(until);
        mailbox.take(&mut events);
        for event in events.drain(..) {
            pipeline.on(event);
        }
    }
}
