//! `probe`: one line of its own through every hop, each with its time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{Arguments, Probe};
use super::status::{answering, why};
use super::{Exit, complain, complain_config, load, print};
use crate::config::Purpose;
use crate::domain::envelope::PROBE;
use crate::platform::access::open_without_waiting;
use crate::platform::clock::{Clock as _, SystemClock, format_utc};
use crate::platform::fs::{FileKind, Fs as _, RealFs};
use crate::telemetry::client;

/// How long the app may take to end the line that it is writing.
const LINE_END: Duration = Duration::from_secs(2);

/// How long each hop may take.
const HOP: Duration = Duration::from_secs(10);

/// How often a hop is asked for.
const ASKED_EVERY: Duration = Duration::from_millis(5);

/// Why a hop failed.
type Broken = String;

/// Sends a probe and says how it went.
pub(super) fn probe(arguments: &Arguments, options: &Probe) -> Exit {
    let settings = match load(arguments, Purpose::State).for_common() {
        Ok(settings) => settings,
        Err(problems) => return complain_config(&problems),
    };
    let Some((socket, status)) = answering(arguments, Some(&settings)) else {
        return complain(&"no daemon answers: nothing was appended", Exit::Unavailable);
    };
    let followed = Path::new(status["input"]["path"].as_str().unwrap_or_default());
    if std::path::absolute(&settings.input).ok().as_deref() != Some(followed)
        && settings.input != followed
    {
        let (ours, theirs) = (settings.input.display(), followed.display());
        let text = format!("the daemon follows {theirs}, not {ours}: nothing was appended");
        return complain(&text, Exit::Unavailable);
    }
    let line = line(options.through);
    let (appended, end) = match append(&settings.input, line.as_bytes()) {
        Ok(appended) => appended,
        Err(broken) => return complain(&broken, Exit::Unavailable),
    };
    let hops = Hops { socket, began: appended, end };
    print_hop("input", &format!("{} bytes appended to {}", line.len(), followed.display()), None);
    match hops.follow(options.through) {
        Ok(()) => Exit::Ok,
        Err(broken) => complain(&broken, Exit::Unavailable),
    }
}

fn line(through: bool) -> String {
    let now_ms = SystemClock.unix_ms();
    let mut data = json!({"probe_id": format!("{}-{now_ms}", std::process::id())});
    if through {
        data["through"] = true.into();
    }
    let event = json!({
        "event_type": PROBE,
        "timestamp": format_utc(now_ms),
        "user_id": "openalgo-bridge",
        "source": "openalgo-bridge",
        "data": data,
    });
    format!("{event}\n")
}

/// Appends the line in one write. Gives when, and for a file where it ends.
fn append(path: &Path, line: &[u8]) -> Result<(Instant, Option<u64>), Broken> {
    let about = |error: io::Error| format!("{}: {error}", path.display());
    let kind = RealFs.stat(path).map_err(about)?.kind;
    let mut file = match kind {
        FileKind::Regular => {
            let file = OpenOptions::new().read(true).append(true).open(path).map_err(about)?;
            wait_for_line_end(&file).map_err(|error| format!("{}: {error}", path.display()))?;
            file
        }
        FileKind::Fifo => open_without_waiting(path).map_err(about)?,
        other => return Err(format!("{}: it is a {}", path.display(), other.as_str())),
    };
    let written = file.write(line).map_err(about)?;
    let appended = Instant::now();
    if written < line.len() {
        return Err(format!("{}: only {written} bytes were written", path.display()));
    }
    let end = (kind == FileKind::Regular).then(|| file.stream_position().ok()).flatten();
    Ok((appended, end))
}

/// A line in the middle of another one would spoil both.
fn wait_for_line_end(mut file: &File) -> Result<(), String> {
    let until = Instant::now() + LINE_END;
    loop {
        let mut last = [b'\n'];
        if file.metadata().map_err(|error| error.to_string())?.len() > 0 {
            let read = file.seek(io::SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last));
            read.map_err(|error| error.to_string())?;
        }
        if last == [b'\n'] {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err("its last line has no end: nothing was appended".to_owned());
        }
        std::thread::sleep(ASKED_EVERY);
    }
}

/// What comes after the input.
struct Hops {
    socket: PathBuf,
    began: Instant,
    /// Where the line ends; none in a pipe.
    end: Option<u64>,
}

impl Hops {
    fn follow(&self, through: bool) -> Result<(), Broken> {
        if let Some(end) = self.end {
            let status = self.wait_for("the daemon does not read it", |status| {
                status["input"]["read"].as_u64() >= Some(end)
            })?;
            self.tell("daemon", &format!("pid {} read it", status["pid"]));
        }
        let target = format!("/caught-up?wait={}", HOP.as_secs());
        let answer = client::request(&self.socket, &target, HOP + HOP);
        let (code, body) =
            answer.map_err(|error| format!("the daemon does not answer: {error}"))?;
        let status: Value = serde_json::from_str(&body).unwrap_or_default();
        let sink = &status["sink"];
        let (kind, state) =
            (sink["kind"].as_str().unwrap_or(""), sink["state"].as_str().unwrap_or(""));
        if code != 200 {
            return Err(format!(
                "it is not settled after {} s: {} bytes behind; sink {kind} {state}{}",
                HOP.as_secs(),
                status["input"]["lag_bytes"],
                why(sink)
            ));
        }
        let text = if through {
            format!("{kind} acknowledged it")
        } else {
            format!("filtered, as probes are; {kind} is {state}{}", why(sink))
        };
        self.tell("sink", &text);
        self.wait_for("the position is not made durable", |status| {
            let committed = &status["checkpoint"];
            match self.end {
                Some(end) => committed["offset"].as_u64() >= Some(end),
                None => committed["age_seconds"] == 0.0,
            }
        })?;
        self.tell("checkpoint", "the position behind it is durable");
        if state == "down" {
            return Err(format!("sink {kind} {state}{}", why(sink)));
        }
        Ok(())
    }

    fn wait_for(&self, broken: &str, done: impl Fn(&Value) -> bool) -> Result<Value, Broken> {
        let until = Instant::now() + HOP;
        loop {
            let answer = client::request(&self.socket, "/status.json", HOP);
            let (_, body) =
                answer.map_err(|error| format!("the daemon does not answer: {error}"))?;
            let status: Value = serde_json::from_str(&body).unwrap_or_default();
            if done(&status) {
                return Ok(status);
            }
            if Instant::now() >= until {
                return Err(format!(
                    "{broken}, within {} s; see: openalgo-bridge status",
                    HOP.as_secs()
                ));
            }
            std::thread::sleep(ASKED_EVERY);
        }
    }

    fn tell(&self, hop: &str, text: &str) {
        print_hop(hop, text, Some(self.began.elapsed()));
    }
}

fn print_hop(hop: &str, text: &str, time: Option<Duration>) {
    let time =
        time.map_or_else(String::new, |time| format!("  {:.1} ms", time.as_secs_f64() * 1e3));
    // A reader that went away is no reason to leave the rest out: the exit code counts.
    let _ = print(format_args!("{hop:<11} {text}{time}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::envelope::{EventTypes, Verdict, validate};

    #[test]
    fn a_probe_is_filtered_and_one_that_goes_through_is_valid_whatever_the_lists_say() {
        for types in [EventTypes::default(), EventTypes::new(vec![], vec![])] {
            let (short, through) = (line(false), line(true));
            assert!(matches!(validate(short.trim_end().as_bytes(), &types), Verdict::Filtered));
            assert!(matches!(validate(through.trim_end().as_bytes(), &types), Verdict::Valid(_)));
        }
    }
}
