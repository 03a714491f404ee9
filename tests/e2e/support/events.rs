//! Lines as the app writes them, whose every byte follows from a number.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

/// How many users the events are of.
pub const USERS: u64 = 7;

/// The user of event `number`.
pub fn user(number: u64) -> String {
    format!("user-{}", number % USERS)
}

/// A valid line, without its LF.
pub fn event(number: u64) -> String {
    padded_event(number, 0)
}

/// A valid line with `padding` more bytes.
pub fn padded_event(number: u64, padding: usize) -> String {
    let (user, second) = (user(number), number % 60);
    let padding = "x".repeat(padding);
    format!(
        r#"{{"event_type":"order_event","timestamp":"2026-01-29T10:30:{second:02}.123456Z","user_id":"{user}","source":"openalgo","data":{{"symbol":"SBIN","action":"BUY","orderid":"{number}","exchange":"NSE","price_type":"MARKET","product_type":"MIS","mode":"live","note":"{padding}"}}}}"#
    )
}

/// The number of the event in a delivered line.
pub fn number(line: &[u8]) -> u64 {
    let line = std::str::from_utf8(line).expect("a line of ours");
    let start = line.find(r#""orderid":""#).expect("an order id") + 11;
    let end = start + line[start..].find('"').expect("its end");
    line[start..end].parse().expect("a number")
}

/// Appends to the input as the app does: one `write` for what is given.
pub struct Appender {
    file: File,
}

impl Appender {
    /// Opens, or creates, the file.
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path).expect("the input");
        Self { file }
    }

    /// Appends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).expect("an append");
    }

    /// Appends events, one `write` for all.
    pub fn events(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let mut lines = String::new();
        for number in numbers {
            lines.push_str(&event(number));
            lines.push('\n');
        }
        self.write(lines.as_bytes());
    }
}
