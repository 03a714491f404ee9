//! A small Socket.IO client that can also misbehave, and the standard ones.

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Error, Message, WebSocket};

use super::{PATIENCE, events, poll};

/// An event as it came: its name, and the text of its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
}

impl Event {
    /// The number of an event that [`events`] made.
    pub fn number(&self) -> u64 {
        events::number(self.data.as_bytes())
    }
}

/// What clients have to get for a file: name and text of `data`, cut out of the line by hand.
pub fn expected(content: &str) -> Vec<Event> {
    let events = content.lines().filter_map(|line| {
        let envelope: Value = serde_json::from_str(line).ok()?;
        envelope["data"].is_object().then_some(())?;
        let at = line.find("\"data\":").expect("data") + 7;
        let data = line[at..].trim_start().strip_suffix('}').expect("data comes last").trim_end();
        Some(Event { name: envelope["event_type"].as_str()?.to_owned(), data: data.to_owned() })
    });
    events.collect()
}

/// A client over websocket that reads when it is told to.
pub struct Client {
    socket: WebSocket<TcpStream>,
}

impl Client {
    /// Connects and joins.
    #[track_caller]
    pub fn join(address: &str) -> Self {
        Self::try_join(address, "", &[]).expect("the client is let in")
    }

    /// Connects, says `auth`, and gives what the server says against it.
    pub fn try_join(address: &str, auth: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let mut client = Self::open(address, headers)?;
        client.send(&format!("40{auth}"));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match client.message(Duration::from_secs(1)) {
                Some(text) if text.starts_with("40") => return Ok(client),
                Some(text) if text.starts_with("44") => return Err(text[2..].to_owned()),
                None if client.is_closed() => return Err("closed".to_owned()),
                _ => {}
            }
        }
        Err("no answer".to_owned())
    }

    /// Opens a session without joining.
    pub fn open(address: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let mut client = Self::connect(address, "", headers)?;
        match client.message(PATIENCE) {
            Some(text) if text.starts_with('0') => Ok(client),
            other => Err(format!("instead of a session: {other:?}")),
        }
    }

    /// A websocket for a session that there is already: `query` is `&sid=` and its id. What follows
    /// the port in `address` stands before `/socket.io/`.
    pub fn connect(address: &str, query: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let port = address.split('/').next().unwrap_or_default();
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in headers {
            let name: tungstenite::http::HeaderName = name.parse().expect("a name");
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        let stream = TcpStream::connect(port).map_err(|error| error.to_string())?;
        let (socket, _) =
            tungstenite::client(request, stream).map_err(|error| error.to_string())?;
        Ok(Self { socket })
    }

    pub fn send(&mut self, text: &str) {
        // What a server does not want to hear closes the connection, sometimes at once.
        let _ = self.socket.send(Message::text(text));
    }

    /// The next Engine.IO message; pings are answered.
    pub fn message(&mut self, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.get_ref().set_read_timeout(Some(left)).expect("a timeout");
            match self.socket.read() {
                Ok(Message::Text(text)) if text.as_str() == "2" => self.send("3"),
                Ok(Message::Text(text)) => return Some(text.to_string()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Whether the server has closed the connection; what is still there is read away.
    pub fn is_closed(&mut self) -> bool {
        self.socket.get_ref().set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
        loop {
            match self.socket.read() {
                Ok(Message::Close(_)) => return true,
                Ok(_) => {}
                Err(Error::Io(error)) => {
                    return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
                Err(_) => return true,
            }
        }
    }

    /// The next event, if it comes in time.
    pub fn event(&mut self, timeout: Duration) -> Option<Event> {
        let text = self.message(timeout)?;
        let array = text.strip_prefix("42[").expect("an event").strip_suffix(']').expect("its end");
        let (name, data) = array.split_once(',').expect("an argument");
        Some(Event { name: name.trim_matches('"').to_owned(), data: data.to_owned() })
    }

    /// The numbers of the next `count` events.
    #[track_caller]
    pub fn numbers(&mut self, count: usize) -> Vec<u64> {
        let next = |got| {
            let event = self.event(PATIENCE);
            event.unwrap_or_else(|| panic!("{got} of {count} events came")).number()
        };
        (0..count).map(next).collect()
    }
}

/// One of the standard clients, as a process that prints what it gets.
pub struct Standard {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

/// The path of something in the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A script of `tests/clients`, beside the packages that it needs.
fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
    command.arg(repository(".tools/clients").join(script));
    command
}

impl Standard {
    /// `socket.io-client` on Node.
    pub fn node(address: &str, transports: &str, more: &[&str]) -> Self {
        let start = ["--url", &format!("http://{address}"), "--transports", transports];
        Self::start(node("client.mjs"), &[&start, more].concat())
    }

    /// The live page in Chromium.
    pub fn browser(address: &str, more: &[&str]) -> Self {
        Self::start(
            node("browser.mjs"),
            &[&["--page", &format!("http://{address}/live")], more].concat(),
        )
    }

    /// The stand-in's page in Chromium, as somebody who has logged in.
    pub fn toasts(site: &str) -> Self {
        Self::start(node("toasts.mjs"), &["--site", site])
    }

    /// python-socketio, `sync` or `asyncio`.
    pub fn python(address: &str, flavour: &str, transports: &str) -> Self {
        let mut command = Command::new(repository(".tools/python/bin/python"));
        command.arg(repository("tests/clients/client_py.py"));
        let url = format!("http://{address}");
        Self::start(command, &["--url", &url, "--flavour", flavour, "--transports", transports])
    }

    /// Whatever prints what it gets in the same way.
    pub fn start(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a client");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                shared.lock().expect("the lines").push(value);
            }
        });
        Self { child, lines }
    }

    /// What it printed so far.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().expect("the lines").clone()
    }

    /// Waits for a line with this field.
    #[track_caller]
    pub fn wait_for(&self, field: &str) -> Value {
        let found = || self.lines().into_iter().find_map(|line| line.get(field).cloned());
        poll(PATIENCE, found).unwrap_or_else(|| panic!("no {field:?} in {:?}", self.lines()))
    }

    /// The events it got.
    pub fn events(&self) -> Vec<Event> {
        let text = |line: &Value, field| line.get(field)?.as_str().map(str::to_owned);
        self.lines()
            .iter()
            .filter_map(|line| {
                Some(Event { name: text(line, "event")?, data: text(line, "data")? })
            })
            .collect()
    }

    /// Waits until it got so many.
    #[track_caller]
    pub fn wait_for_events(&self, count: usize) -> Vec<Event> {
        let enough = poll(PATIENCE, || Some(self.events()).filter(|events| events.len() >= count));
        enough.unwrap_or_else(|| panic!("{} of {count} events came", self.events().len()))
    }
}

impl Drop for Standard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
