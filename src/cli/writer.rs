//! What the app's side says of itself: the kit's `order_events.writer.json` beside the events file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::platform::fs::{Fs as _, RealFs};

/// Larger than what the kit writes.
const SIZE_LIMIT: u64 = 64 << 10;

/// What is said of a writer that says nothing. Other programs than the app may write.
pub(super) const SILENCE: &str = "no word from a kit: is the app running without it?";

/// What the kit counted since the app loaded it.
#[derive(Debug, Deserialize)]
pub(super) struct Writer {
    pid: u32,
    version: String,
    loaded_at: String,
    appended: u64,
    failed: u64,
    kept: u64,
    error: Option<String>,
}

impl Writer {
    /// The one that appends to this file, if the kit says so.
    pub(super) fn of(events: &Path) -> Option<Self> {
        serde_json::from_slice(&RealFs.read(&beside(events), SIZE_LIMIT).ok()?).ok()
    }

    /// Whether something is wrong on that side.
    pub(super) fn is_in_trouble(&self) -> bool {
        !self.is_running() || self.failed > 0 || self.kept > 0
    }

    fn is_running(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// `order_events.jsonl` has its `order_events.writer.json`.
fn beside(events: &Path) -> PathBuf {
    events.with_extension("writer.json")
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, version, loaded_at, appended, failed, kept, error } = self;
        // Written by another program: it stays on its line.
        let (version, loaded_at) = (version.escape_debug(), loaded_at.escape_debug());
        write!(f, "kit {version} loaded since {loaded_at}, {appended} appended")?;
        if *failed > 0 {
            write!(f, ", {failed} given up")?;
        }
        if *kept > 0 {
            let why = error.as_deref().unwrap_or("unknown").escape_debug();
            write!(f, ", {kept} waiting ({why})")?;
        }
        if !self.is_running() {
            write!(f, "; its process ({pid}) is gone")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kits_words_are_found_beside_the_file_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let events = directory.path().join("order_events.jsonl");
        assert!(Writer::of(&events).is_none());
        let write = |text: &str| {
            std::fs::write(directory.path().join("order_events.writer.json"), text).unwrap();
        };
        let pid = std::process::id();
        write(&format!(
            r#"{{"pid":{pid},"version":"1.0","loaded_at":"2026-01-29T09:02:00Z","appended":1204,"failed":0,"kept":0,"error":null}}"#
        ));
        let writer = Writer::of(&events).unwrap();
        assert_eq!(writer.to_string(), "kit 1.0 loaded since 2026-01-29T09:02:00Z, 1204 appended");
        assert!(!writer.is_in_trouble());
        write(
            r#"{"pid":0,"version":"1.0\n","loaded_at":"x","appended":1,"failed":2,"kept":3,"error":"No space left on device"}"#,
        );
        let writer = Writer::of(&events).unwrap();
        assert!(writer.is_in_trouble());
        assert_eq!(
            writer.to_string(),
            "kit 1.0\\n loaded since x, 1 appended, 2 given up, 3 waiting (No space left on device); its process (0) \
             is gone"
        );
        write("{");
        assert!(Writer::of(&events).is_none());
    }
}
