//! Plain HTTP, to a port or to a socket file, and Socket.IO's polling on top of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::PATIENCE;

/// Where polling clients begin.
pub const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// `address` is `host:port`, or the path of a socket file.
fn connect(address: &str) -> Box<dyn Stream> {
    if address.starts_with('/') {
        let stream = UnixStream::connect(address).expect("a socket file");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        return Box::new(stream);
    }
    let stream = TcpStream::connect(address).expect("a port");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    Box::new(stream)
}

/// The answer to a request, as it came. `headers` are whole lines.
pub fn request(address: &str, method: &str, target: &str, headers: &str) -> String {
    request_with(address, method, target, headers, "")
}

/// The same with a body.
pub fn request_with(
    address: &str,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> String {
    let host = if address.starts_with('/') { "localhost" } else { address };
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).expect("a request");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// An answer, taken apart.
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
    let text = request(address, "GET", path, headers);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    Answer { code: status(head), head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// The id of a new session over polling.
pub fn polling_session(address: &str) -> String {
    let opened = request(address, "GET", POLLING, "");
    let id = opened.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next());
    id.expect("a session").to_owned()
}

/// The status in an answer.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// A session over polling that does only what it is told.
pub struct Polling {
    address: String,
    target: String,
    headers: String,
}

impl Polling {
    /// Opens one at a path such as `/socket.io/`; else the status that came instead.
    pub fn open(address: &str, path: &str, headers: &str) -> Result<Self, u16> {
        let target = format!("{path}?EIO=4&transport=polling");
        let opened = request(address, "GET", &target, headers);
        let id = opened.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let Some(id) = id else { return Err(status(&opened)) };
        let target = format!("{target}&sid={id}");
        Ok(Self { address: address.to_owned(), target, headers: headers.to_owned() })
    }

    /// Sends a packet. The server may have ended the session.
    pub fn send(&self, packet: &str) {
        let headers = format!("{}Content-Type: text/plain\r\n", self.headers);
        request_with(&self.address, "POST", &self.target, &headers, packet);
    }

    /// Sends a packet and collects what comes up to and with this text, or up to the end of the session.
    pub fn ask(&self, packet: &str, answer: &str) -> String {
        self.send(packet);
        let mut all = String::new();
        while !all.contains(answer) {
            let came = request(&self.address, "GET", &self.target, &self.headers);
            if status(&came) != 200 {
                break;
            }
            all.push_str(came.split_once("\r\n\r\n").map_or("", |(_, body)| body));
        }
        all
    }
}
