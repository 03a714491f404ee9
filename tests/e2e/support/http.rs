//! Asking the daemon over HTTP, as a monitor does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::PATIENCE;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: String,
}

/// What `GET path` gives.
#[track_caller]
pub fn get(address: &str, path: &str) -> Answer {
    get_with(address, path, "")
}

/// The same with more header lines, each with its line end.
#[track_caller]
pub fn get_with(address: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("the question");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
