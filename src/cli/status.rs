//! `status`: asks the running daemon how it is, or whether it has caught up.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::args::{Arguments, Status};
use super::http::STATUS_SOCKET;
use super::writer::{SILENCE, Writer};
use super::{Exit, complain, load, note, print};
use crate::config::{Purpose, Settings};
use crate::telemetry::client;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon's answer when too many wait for it to catch up.
const TOO_MANY: u16 = 429;

/// Where packaged daemons have their sockets.
const RUNTIME_DIRECTORY: &str = "/run/openalgo-bridge";

/// Asks and prints.
pub(super) fn status(arguments: &Arguments, options: &Status) -> Exit {
    let settings = load(arguments, Purpose::Ask).for_common().ok();
    let known = known_state_dir(arguments, settings.as_ref());
    let candidates = match &options.socket {
        Some(socket) => vec![socket.clone()],
        None => sockets(arguments, settings.as_ref()),
    };
    let target = if options.caught_up {
        format!("/caught-up?wait={}", options.wait)
    } else {
        "/status.json".to_owned()
    };
    let patience = PATIENCE + if options.caught_up { wait(options.wait) } else { Duration::ZERO };
    for socket in &candidates {
        let Ok((code, body)) = client::request(socket, &target, patience) else { continue };
        if code == TOO_MANY {
            let text = format!("{}: {}", socket.display(), body.trim());
            return complain(&text, Exit::Unavailable);
        }
        let Ok(answer) = serde_json::from_str::<Value>(&body) else { continue };
        if let Some(known) = &known
            && answer["state_dir"].as_str().map(Path::new) != Some(known)
        {
            let other = answer["state_dir"].as_str().unwrap_or("unknown");
            let text = format!("{}: the daemon there works on {other}", socket.display());
            return complain(&text, Exit::Unavailable);
        }
        let exit = if code == 200 { Exit::Ok } else { Exit::Behind };
        return show(options, &answer, exit);
    }
    let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
    complain(&format!("no daemon answers; tried {}", tried.join(", ")), Exit::Unavailable)
}

/// The daemon that is meant, if it answers: its socket, and how it is.
pub(super) fn answering(
    arguments: &Arguments,
    settings: Option<&Settings>,
) -> Option<(PathBuf, Value)> {
    let known = known_state_dir(arguments, settings);
    sockets(arguments, settings).into_iter().find_map(|socket| {
        let (_, body) = client::request(&socket, "/status.json", PATIENCE).ok()?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        let is_meant =
            known.is_none() || answer["state_dir"].as_str().map(Path::new) == known.as_deref();
        is_meant.then_some((socket, answer))
    })
}

fn wait(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

/// The state directory that is meant, if the command line or the environment says so.
fn known_state_dir(arguments: &Arguments, settings: Option<&Settings>) -> Option<PathBuf> {
    let named = !arguments.env_files.is_empty()
        || arguments.instance.is_some()
        || std::env::var_os("BRIDGE_ENV_FILE").is_some();
    let directory = &settings.filter(|_| named)?.state_dir;
    Some(std::path::absolute(directory).unwrap_or_else(|_| directory.clone()))
}

fn sockets(arguments: &Arguments, settings: Option<&Settings>) -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    sockets.extend(settings.map(|settings| settings.state_dir.join(STATUS_SOCKET)));
    let runtime = Path::new(RUNTIME_DIRECTORY);
    sockets.push(match &arguments.instance {
        Some(name) => runtime.join(name).join(STATUS_SOCKET),
        None => runtime.join(STATUS_SOCKET),
    });
    sockets
}

fn show(options: &Status, answer: &Value, exit: Exit) -> Exit {
    let printed = if options.json {
        print(answer)
    } else if options.caught_up {
        let text = if exit == Exit::Ok { "caught up" } else { "not caught up" };
        let behind = &answer["input"]["lag_bytes"];
        if exit != Exit::Ok {
            note(format_args!("{behind} bytes behind"));
        }
        print(text)
    } else {
        print(to_text(answer))
    };
    if printed == Exit::Ok { exit } else { printed }
}

/// One screen for a person.
fn to_text(status: &Value) -> String {
    let (input, sink, checkpoint) = (&status["input"], &status["sink"], &status["checkpoint"]);
    let (bytes, lines) = (&status["ledger"]["bytes"], &status["ledger"]["lines"]);
    let alarm = match text(&checkpoint["alarm"]) {
        "" => String::new(),
        alarm => format!(", ALARM: {alarm}"),
    };
    let listen = &status["listen"];
    let metrics = match (text(&listen["http"]), text(&listen["http_alarm"])) {
        ("", "") => "off".to_owned(),
        ("", alarm) => format!("not served, ALARM: {alarm}"),
        (address, _) => address.to_owned(),
    };
    let mut rows = vec![
        format!(
            "{} pid {}: {}{}",
            text(&status["mode"]),
            status["pid"],
            text(&status["state"]),
            why(status)
        ),
        format!("input       {} ({})", text(&input["path"]), text(&input["kind"])),
        format!(
            "            {} of {} bytes read, {} behind{}",
            input["read"],
            input["size"],
            input["lag_bytes"],
            behind(input)
        ),
        format!("writer      {}", writer(Path::new(text(&input["path"])))),
        format!("sink        {} {}{}", text(&sink["kind"]), text(&sink["state"]), why(sink)),
        format!("            {}", sink_counts(sink)),
        format!(
            "checkpoint  offset {}, committed {}{alarm}",
            checkpoint["offset"],
            match text(&checkpoint["committed_at"]) {
                "" => "never",
                at => at,
            }
        ),
        format!("metrics     {metrics}"),
    ];
    for class in ["read", "delivered", "rejected", "filtered", "blank", "pending"] {
        let (lines, bytes) = (lines[class].to_string(), bytes[class].to_string());
        rows.push(format!("{class:<10}{lines:>12} lines {bytes:>16} bytes"));
    }
    rows.push(format!("{:<10}{:>18} {:>16} bytes", "lost", "", bytes["lost"].to_string()));
    rows.extend(rejects(&status["rejects"]));
    rows.extend(requeued(&status["ledger"]["requeued"]));
    rows.extend(input["alarm"].as_str().map(|alarm| format!("ALARM       {alarm}")));
    rows.join("\n")
}

/// How old the oldest line is that is behind; files that are kept open besides the live one.
fn behind(input: &Value) -> String {
    let mut text = String::new();
    if let Some(seconds) = input["lag_seconds"].as_f64().filter(|seconds| *seconds >= 1.0) {
        let _ = write!(text, ", the oldest line for {seconds:.0} s");
    }
    if let Some(files) = input["held_files"].as_u64().filter(|files| *files > 1) {
        let _ = write!(text, ", {files} files held");
    }
    text
}

/// Why lines were refused lately, if any were.
fn rejects(rejects: &Value) -> Option<String> {
    let mut reasons: Vec<_> = rejects["since_start"]
        .as_object()?
        .iter()
        .map(|(reason, lines)| format!("{lines} {reason}"))
        .collect();
    if let Some(alarm) = rejects["alarm"].as_str() {
        reasons.insert(0, format!("ALARM: {alarm}"));
    }
    (!reasons.is_empty()).then(|| format!("rejects     {} (since the start)", reasons.join(", ")))
}

/// Rejects that were sent again, if any were.
fn requeued(requeued: &Value) -> Option<String> {
    let (lines, outstanding) = (requeued["lines"].as_u64()?, requeued["outstanding"].as_u64()?);
    let told =
        format!("sent again  {lines} rejects were delivered, {outstanding} are on their way");
    (lines + outstanding > 0).then_some(told)
}

/// What the app's side says.
fn writer(events: &Path) -> String {
    Writer::of(events).map_or_else(|| SILENCE.to_owned(), |writer| writer.to_string())
}

/// What is on its way, and to whom.
fn sink_counts(sink: &Value) -> String {
    let in_flight = &sink["in_flight"];
    match sink["clients"].as_u64() {
        Some(clients) => format!(
            "{clients} clients ({} given up), {in_flight} waiting, {} delivered to nobody",
            sink["clients_given_up"], sink["delivered_to_nobody"]
        ),
        None => format!("{in_flight} in flight, {} sent again", sink["retries"]),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The reason in something's status, and since when it holds.
pub(super) fn why(of: &Value) -> String {
    match (text(&of["reason"]), text(&of["since"])) {
        ("", _) => String::new(),
        (reason, "") => format!(": {reason}"),
        (reason, since) => format!(": {reason} (since {since})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::snapshot::Snapshot;

    #[test]
    fn the_text_names_every_class_and_what_is_wrong() {
        let mut status = serde_json::to_value(Snapshot::default()).unwrap();
        status["sink"]["reason"] = "gone".into();
        status["checkpoint"]["alarm"] = "no space".into();
        status["listen"]["http_alarm"] = "in use".into();
        status["input"]["lag_seconds"] = 61.4.into();
        status["rejects"]["since_start"]["not_json"] = 3.into();
        let text = to_text(&status);
        for part in [
            "read",
            "pending",
            "lost",
            ": gone",
            "committed never, ALARM: no space",
            "metrics     not served, ALARM: in use",
            "the oldest line for 61 s",
            "rejects     3 not_json",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
