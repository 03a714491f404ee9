//! `check`: every effective setting with where it came from, and every problem at once.

use std::fmt::Write as _;

use super::args::{Arguments, Check};
use super::{Exit, connect, load, note, print};
use crate::config::{Loaded, Purpose, Settings, Severity};
use crate::sink::kafka::Librdkafka;

/// Prints what `run` would run with; exits 78 exactly when it would.
pub(super) fn check(arguments: &Arguments, options: &Check) -> Exit {
    let loaded = load(arguments, Purpose::Check);
    let mut out = format!("{}\n", loaded.sources);
    for setting in &loaded.effective {
        let _ = writeln!(out, "  {setting}");
    }
    for severity in [Severity::Note, Severity::Warning, Severity::Error] {
        for problem in loaded.problems.iter().filter(|problem| problem.severity == severity) {
            let _ = writeln!(out, "{}: {problem}", severity.as_str());
        }
    }
    match verdict(&loaded) {
        Ok(settings) if options.connect => {
            print(out + "the configuration is good").max(connect::connect(arguments, &settings))
        }
        Ok(settings) => match connect::what_stops(&settings).as_slice() {
            [] => print(out + "the configuration is good"),
            stopped => {
                for finding in stopped {
                    let _ = writeln!(out, "{finding}");
                }
                print(out + "error: `run` would not start");
                Exit::Config
            }
        },
        Err(why) => {
            print(format_args!("{out}error: {why}"));
            if options.connect {
                note("nothing was tried: mend the configuration first");
            }
            Exit::Config
        }
    }
}

/// What `run` would run with; the reason if it would not start.
fn verdict(loaded: &Loaded) -> Result<Settings, String> {
    let errors =
        loaded.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let Ok(settings) = loaded.for_run() else {
        return Err(format!("{errors} problem(s): `run` would not start"));
    };
    if let Some(kafka) = &settings.kafka {
        // librdkafka has the last word on its own properties, certificates included.
        Librdkafka::check(&super::sinks::kafka_settings(&settings, kafka))
            .map_err(|error| format!("the Kafka settings are not accepted: {error}"))?;
    }
    Ok(settings)
}
