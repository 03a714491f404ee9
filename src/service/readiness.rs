//! What systemd is told: ready, what the daemon does, that it lives, that it stops.
//!
//! Nothing here waits for the owner of the pipeline: how it is, others say. Without systemd, or
//! without the feature of that name, nobody is told anything.

use std::io;
use std::time::{Duration, Instant};

/// How often it is looked, at least: a status is not older than that.
const LOOK: Duration = Duration::from_secs(2);

/// The same until the daemon is ready, which is a matter of milliseconds.
const LOOK_EAGERLY: Duration = Duration::from_millis(20);

/// As much of a status as fits on a line of `systemctl status`.
const STATUS_CHARACTERS: usize = 300;

/// How the daemon is, as far as systemd wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// It does what it was started for.
    pub ready: bool,
    /// It is not stuck.
    pub alive: bool,
    /// What it does, in a line.
    pub status: String,
}

/// Begins to tell systemd, if it started this process, how the daemon is.
///
/// # Errors
/// A thread can't be started.
pub fn start(look: impl Fn() -> Condition + Send + 'static) -> io::Result<()> {
    let Some(service) = Service::of_this_process() else { return Ok(()) };
    std::thread::Builder::new().name("systemd".to_owned()).spawn(move || {
        let mut teller = Teller::new(service.watchdog());
        loop {
            let (said, wait) = teller.turn(&look(), Instant::now());
            service.tell(&said);
            std::thread::sleep(wait);
        }
    })?;
    Ok(())
}

/// Tells systemd that the daemon has begun to stop.
pub fn stopping() {
    if let Some(service) = Service::of_this_process() {
        service.tell(&[("STOPPING", "1".to_owned()), ("STATUS", "stopping".to_owned())]);
    }
}

/// A variable of systemd's protocol, and its value.
type Said = (&'static str, String);

/// Decides what is said when.
struct Teller {
    /// How often systemd wants to hear that the daemon lives: twice as often as it must.
    feed_every: Option<Duration>,
    fed: Option<Instant>,
    ready: bool,
    status: String,
}

impl Teller {
    fn new(watchdog: Option<Duration>) -> Self {
        let feed_every = watchdog.map(|within| within / 2);
        Self { feed_every, fed: None, ready: false, status: String::new() }
    }

    /// What is to be said now, and for how long there is nothing more.
    fn turn(&mut self, condition: &Condition, now: Instant) -> (Vec<Said>, Duration) {
        let mut said = Vec::new();
        if condition.ready && !self.ready {
            self.ready = true;
            said.push(("READY", "1".to_owned()));
        }
        let status = one_line(&condition.status);
        if self.ready && status != self.status {
            self.status.clone_from(&status);
            said.push(("STATUS", status));
        }
        let looks = if self.ready { LOOK } else { LOOK_EAGERLY };
        let Some(every) = self.feed_every else { return (said, looks) };
        let mut due = self.fed.map_or(now, |fed| fed + every);
        if condition.alive && now >= due {
            (self.fed, due) = (Some(now), now + every);
            said.push(("WATCHDOG", "1".to_owned()));
        }
        // One that is stuck may come back: it is looked at as often as any.
        let until_due = due.saturating_duration_since(now);
        (said, if until_due.is_zero() { looks } else { looks.min(until_due) })
    }
}

/// A reason may quote what a stranger said; a second line of it would be another variable.
fn one_line(status: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    status.chars().map(printable).take(STATUS_CHARACTERS).collect()
}

/// The service that systemd runs this process as.
struct Service;

#[cfg(feature = "systemd")]
impl Service {
    fn of_this_process() -> Option<Self> {
        std::env::var_os("NOTIFY_SOCKET").map(|_| Self)
    }

    /// Within which time systemd wants to hear that the daemon lives, if it does.
    fn watchdog(&self) -> Option<Duration> {
        let Self = self;
        let within = systemd::daemon::watchdog_enabled().ok().filter(|within| *within > 0);
        within.map(Duration::from_micros)
    }

    /// What can't be told is told with the next turn, or never: nothing waits for it.
    fn tell(&self, said: &[Said]) {
        let Self = self;
        if said.is_empty() {
            return;
        }
        if let Err(error) = systemd::daemon::notify(said.iter()) {
            tracing::debug!(%error, "cannot tell systemd");
        }
    }
}

#[cfg(not(feature = "systemd"))]
impl Service {
    fn of_this_process() -> Option<Self> {
        None
    }

    fn watchdog(&self) -> Option<Duration> {
        let Self = self;
        None
    }

    fn tell(&self, _: &[Said]) {
        let Self = self;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(ready: bool, alive: bool, status: &str) -> Condition {
        Condition { ready, alive, status: status.to_owned() }
    }

    fn names(said: &[Said]) -> Vec<&str> {
        said.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn ready_is_said_once_and_a_status_when_it_changes() {
        let mut teller = Teller::new(None);
        let now = Instant::now();
        let (said, wait) = teller.turn(&condition(false, true, "starting"), now);
        assert_eq!((names(&said), wait), (vec![], LOOK_EAGERLY));
        let (said, wait) = teller.turn(&condition(true, true, "a"), now);
        assert_eq!((names(&said), wait), (vec!["READY", "STATUS"], LOOK));
        assert_eq!(names(&teller.turn(&condition(true, true, "a"), now).0), [""; 0]);
        assert_eq!(teller.turn(&condition(true, true, "b"), now).0, [("STATUS", "b".to_owned())]);
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_must_and_not_for_one_that_is_stuck() {
        let mut teller = Teller::new(Some(Duration::from_secs(30)));
        let began = Instant::now();
        let mut fed = Vec::new();
        let mut after = Duration::ZERO;
        while after < Duration::from_mins(2) {
            let alive = after < Duration::from_secs(40) || after > Duration::from_mins(1);
            let (said, wait) = teller.turn(&condition(true, alive, "a"), began + after);
            if names(&said).contains(&"WATCHDOG") {
                fed.push(after.as_secs());
            }
            assert!(wait >= LOOK_EAGERLY && wait <= LOOK, "{wait:?}");
            after += wait;
        }
        // Stuck from 40 to 60: what was due at 45 comes as soon as it lives again.
        assert_eq!(fed[..3], [0, 15, 30]);
        assert!((60..=63).contains(&fed[3]) && fed.len() == 7, "{fed:?}");
    }

    #[test]
    fn a_status_is_one_line_whatever_it_quotes() {
        let mut teller = Teller::new(None);
        let status = format!("down: no\nMAINPID=1\r{}", "x".repeat(1000));
        let (said, _) = teller.turn(&condition(true, true, &status), Instant::now());
        let (_, status) = &said[1];
        assert!(status.starts_with("down: no MAINPID=1 x"), "{status}");
        assert_eq!(status.chars().count(), STATUS_CHARACTERS);
    }
}
