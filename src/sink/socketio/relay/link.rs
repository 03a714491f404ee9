//! A connection to the app: a thread, a runtime and a client of its own, which end together.
//!
//! `rust_socketio` leaves things behind: a task that reads until the other side closes, a write
//! that hangs while the app does not read, acknowledgements nobody waits for any more. It also ends
//! without saying so, or panics. So each connection has a runtime that holds nothing else: with it
//! goes whatever is left, and when the client's tasks are gone, so is the connection. Of the client
//! only what is proven is used: websocket alone, no reconnecting, one acknowledgement at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rust_socketio::asynchronous::{Client, ClientBuilder};
use rust_socketio::{Event, Payload, TransportType};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Settings;
use super::batch::shortened;
use super::forward::Forwarder;
use super::handshake::{Asker, NoHandshake, causes};
use crate::sink::reports;
use crate::sink::socketio::THREADS;

/// The event that a batch is.
const EVENT: &str = "bridge_batch";

/// How long connecting and joining the namespace may take together.
const CONNECT: Duration = Duration::from_secs(10);

/// How often it is looked whether the client's tasks are still there.
const LOOK: Duration = Duration::from_secs(1);

/// How the client says that the app did not let it in; what the app said follows.
const REFUSED: &str = "Received an ConnectError frame: ";

/// A way to the app. At most one connection is of interest at a time.
pub(super) trait Link: Send {
    /// Begins a fresh connection, and gives the former one up.
    fn connect(&mut self, connection: u64);

    /// Sends the text of a batch over a connection that was joined.
    fn send(&mut self, text: String);

    /// Gives the connection up.
    fn close(&mut self);

    /// Connections from now on show this to the app.
    fn renew(&mut self, token: &str);
}

/// What is told of a connection, on its thread.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) connection: u64,
    pub(super) said: Said,
}

/// See [`Report`].
#[derive(Debug)]
pub(super) enum Said {
    /// The app let it into the namespace.
    Joined {
        /// The largest packet that it takes, if it says so.
        max_payload: Option<u64>,
    },
    /// The app did not, for this reason.
    Refused(String),
    /// What the app answered to the batch: the arguments of its acknowledgement.
    Answered(Value),
    /// It is over, for this reason.
    Lost(String),
}

/// Where connections put their reports down: each at most one for each batch, and two more.
pub(super) type Reports = reports::Reports<Report>;

/// Where the app is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `http(s)://…`.
    Url(String),
    /// The socket file of its server.
    Unix(PathBuf),
}

/// The real link.
pub(super) struct SocketIo {
    settings: Arc<Settings>,
    asker: Arc<Asker>,
    reports: Reports,
    /// To the present connection.
    notes: Option<UnboundedSender<Note>>,
}

/// What a connection waits for, from the owner and from the client.
enum Note {
    Send(String),
    End,
    Opened { client: Client, max_payload: Option<u64> },
    Joined,
    Refused(String),
    Answered(Value),
    Lost(String),
}

impl SocketIo {
    pub(super) fn new(settings: &Settings, reports: Reports) -> Self {
        let asker = Arc::new(Asker::new(settings.target.clone()));
        Self { settings: Arc::new(settings.clone()), asker, reports, notes: None }
    }
}

impl Link for SocketIo {
    fn connect(&mut self, connection: u64) {
        self.close();
        let (sender, notes) = unbounded_channel();
        self.notes = Some(sender.clone());
        let (settings, asker) = (Arc::clone(&self.settings), Arc::clone(&self.asker));
        let end = End { connection, reports: self.reports.clone(), why: String::new() };
        let thread = std::thread::Builder::new().name(THREADS.to_owned());
        let started = thread.spawn(move || serve(settings, asker, sender, notes, end));
        if let Err(error) = started {
            // What was to run is dropped with its `End`, which tells of it; this says why.
            tracing::debug!(%error, "cannot start a thread for a connection");
        }
    }

    fn send(&mut self, text: String) {
        if let Some(notes) = &self.notes {
            // A connection that is over has said so.
            let _ = notes.send(Note::Send(text));
        }
    }

    fn close(&mut self) {
        if let Some(notes) = self.notes.take() {
            let _ = notes.send(Note::End);
        }
    }

    fn renew(&mut self, token: &str) {
        if self.settings.auth_token.is_some() {
            let auth_token = Some(token.to_owned());
            self.settings = Arc::new(Settings { auth_token, ..Settings::clone(&self.settings) });
        }
    }
}

impl Drop for SocketIo {
    fn drop(&mut self) {
        self.close();
    }
}

/// Says that a connection is over, however its thread ended.
struct End {
    connection: u64,
    reports: Reports,
    why: String,
}

impl Drop for End {
    fn drop(&mut self) {
        let why = std::mem::take(&mut self.why);
        let why = if why.is_empty() { "its thread ended".to_owned() } else { why };
        self.reports.post(Report { connection: self.connection, said: Said::Lost(why) });
    }
}

fn serve(
    settings: Arc<Settings>,
    asker: Arc<Asker>,
    sender: UnboundedSender<Note>,
    notes: UnboundedReceiver<Note>,
    mut end: End,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .thread_name(THREADS)
        .enable_io()
        .enable_time()
        .build();
    match runtime {
        Err(error) => end.why = format!("cannot start a runtime: {error}"),
        Ok(runtime) => {
            let (number, reports) = (end.connection, end.reports.clone());
            let stage = Stage::Joining { client: None, joined: false };
            let max_payload = None;
            let life =
                Connection { settings, asker, number, reports, sender, notes, stage, max_payload };
            end.why = runtime.block_on(life.live());
            // Not waiting for a name that is being resolved.
            runtime.shutdown_background();
        }
    }
}

struct Connection {
    settings: Arc<Settings>,
    asker: Arc<Asker>,
    number: u64,
    reports: Reports,
    sender: UnboundedSender<Note>,
    notes: UnboundedReceiver<Note>,
    stage: Stage,
    /// The largest packet that the app takes, if it says so.
    max_payload: Option<u64>,
}

/// How far a connection is.
enum Stage {
    /// The client is there before or after the app let it in: its tasks race.
    Joining {
        client: Option<Client>,
        joined: bool,
    },
    Joined(Client),
}

impl Connection {
    /// Runs it to its end, and says why that came.
    async fn live(mut self) -> String {
        let mut until = Some(Instant::now() + CONNECT);
        let tasks = match self.open().await {
            Ok(tasks) => tasks,
            Err(why) => return why,
        };
        loop {
            let look = Instant::now() + LOOK;
            let wake = until.map_or(look, |until| until.min(look));
            match tokio::time::timeout_at(wake.into(), self.notes.recv()).await {
                Err(_) if until.is_some_and(|until| Instant::now() >= until) => {
                    return self.too_late();
                }
                Err(_) if self.is_dead(tasks) => return "the connection was closed".to_owned(),
                Err(_) => {}
                Ok(None | Some(Note::End)) => return "given up".to_owned(),
                Ok(Some(Note::Lost(why))) => return why,
                Ok(Some(Note::Refused(why))) => {
                    self.reports
                        .post(Report { connection: self.number, said: Said::Refused(why.clone()) });
                    return why;
                }
                Ok(Some(Note::Opened { client, max_payload })) => {
                    self.max_payload = max_payload;
                    self.progress(Some(client), &mut until);
                }
                Ok(Some(Note::Joined)) => self.progress(None, &mut until),
                Ok(Some(Note::Send(text))) => {
                    until = Some(Instant::now() + self.settings.ack_timeout);
                    self.emit(text);
                }
                Ok(Some(Note::Answered(value))) => {
                    // A second one for the same batch is of no interest.
                    if until.take().is_some() {
                        self.reports
                            .post(Report { connection: self.number, said: Said::Answered(value) });
                    }
                }
            }
        }
    }

    /// Begins to connect. Gives the number of tasks that a living connection has.
    async fn open(&self) -> Result<usize, String> {
        let (url, tasks) = match &self.settings.target {
            Target::Url(url) => (url.clone(), 1),
            Target::Unix(path) => {
                let forwarder = Forwarder::bind(path).await;
                let forwarder =
                    forwarder.map_err(|error| format!("no port for the forwarder: {error}"))?;
                let (url, lost) = (forwarder.url(), self.sender.clone());
                tokio::spawn(forwarder.run(move |why| {
                    let _ = lost.send(Note::Lost(why));
                }));
                // Also the forwarder's two.
                (url, 3)
            }
        };
        let (builder, sender) = (self.builder(url), self.sender.clone());
        let asker = Arc::clone(&self.asker);
        tokio::spawn(async move {
            let note = connect(&asker, builder).await.unwrap_or_else(Note::Lost);
            let _ = sender.send(note);
        });
        Ok(tasks)
    }

    fn builder(&self, url: String) -> ClientBuilder {
        let [joined, failed, closed] = std::array::from_fn(|_| self.sender.clone());
        let builder = ClientBuilder::new(url)
            .namespace(self.settings.namespace.clone())
            .transport_type(TransportType::Websocket)
            .reconnect(false)
            .on(Event::Connect, move |_, _| {
                let _ = joined.send(Note::Joined);
                Box::pin(std::future::ready(()))
            })
            .on(Event::Error, move |payload, _| {
                if let Some(note) = what_failed(&payload) {
                    let _ = failed.send(note);
                }
                Box::pin(std::future::ready(()))
            })
            .on(Event::Close, move |_, _| {
                let _ = closed.send(Note::Lost("the app ended the connection".to_owned()));
                Box::pin(std::future::ready(()))
            });
        match &self.settings.auth_token {
            Some(token) => builder.auth(json!({ "token": token })),
            None => builder,
        }
    }

    fn progress(&mut self, opened: Option<Client>, until: &mut Option<Instant>) {
        let Stage::Joining { client, joined } = &mut self.stage else { return };
        *joined |= opened.is_none();
        if opened.is_some() {
            *client = opened;
        }
        if *joined && let Some(client) = client.take() {
            self.stage = Stage::Joined(client);
            *until = None;
            let said = Said::Joined { max_payload: self.max_payload };
            self.reports.post(Report { connection: self.number, said });
        }
    }

    /// Sends in a task of its own: a write to an app that does not read hangs.
    fn emit(&self, text: String) {
        let Stage::Joined(client) = &self.stage else { return };
        let (client, failed, answered) = (client.clone(), self.sender.clone(), self.sender.clone());
        // Ours is the time-out that counts; the client only drops what comes after its own.
        let timeout = self.settings.ack_timeout * 2;
        tokio::spawn(async move {
            let answer = move |payload: Payload, _: Client| {
                let _ = answered.send(what_was_answered(payload));
                Box::pin(std::future::ready(())) as _
            };
            if let Err(error) = client.emit_with_ack(EVENT, as_json(text), timeout, answer).await {
                let _ = failed.send(Note::Lost(causes(&error)));
            }
        });
    }

    fn too_late(&self) -> String {
        match self.stage {
            Stage::Joining { client: None, .. } => {
                format!("no connection within {} s", CONNECT.as_secs())
            }
            Stage::Joining { .. } => {
                format!("the namespace was not joined within {} s", CONNECT.as_secs())
            }
            Stage::Joined(_) => {
                let timeout_ms = self.settings.ack_timeout.as_millis();
                format!("a batch was not acknowledged within {timeout_ms} ms")
            }
        }
    }

    /// Whether tasks are gone that a living connection has. The client says nothing of that.
    fn is_dead(&self, tasks: usize) -> bool {
        matches!(self.stage, Stage::Joined(_) | Stage::Joining { client: Some(_), .. })
            && Handle::current().metrics().num_alive_tasks() < tasks
    }
}

/// Asks the app how large a packet may be, and connects. The error: what stands in the way.
async fn connect(asker: &Asker, builder: ClientBuilder) -> Result<Note, String> {
    let asked = match asker.ask().await {
        Err(NoHandshake::Unreachable(why)) => return Err(why),
        asked => asked,
    };
    match (builder.connect().await, asked) {
        (Ok(client), asked) => {
            let max_payload = asked.ok().and_then(|handshake| handshake.max_payload);
            Ok(Note::Opened { client, max_payload })
        }
        (Err(_), Err(NoHandshake::Odd(why) | NoHandshake::Unreachable(why))) => Err(why),
        (Err(error), Ok(_)) => {
            let why = causes(&error);
            if why.contains("HTTP error") {
                return Err(format!("{why}: a proxy there has to pass websockets on"));
            }
            Err(why)
        }
    }
}

/// The text as it is; any other kind of payload goes through values, which change numbers.
#[expect(deprecated, reason = "the only payload whose text the client leaves as it is")]
fn as_json(text: String) -> Payload {
    Payload::String(text)
}

/// None: an event of the app's that happens to be called so; the client's own errors are texts.
fn what_failed(payload: &Payload) -> Option<Note> {
    let Payload::Text(values) = payload else { return None };
    let text = values.first()?.as_str()?;
    let Some(refusal) = text.strip_prefix(REFUSED) else {
        return Some(Note::Lost(shortened(text)));
    };
    let value: Value = serde_json::from_str(refusal).unwrap_or_default();
    let message = value.as_str().or_else(|| value.get("message")?.as_str());
    Some(Note::Refused(shortened(message.unwrap_or(refusal))))
}

fn what_was_answered(payload: Payload) -> Note {
    // The client gives a list of payloads whose one item is the list of arguments.
    match payload {
        Payload::Text(mut values) if values.len() == 1 => Note::Answered(values.remove(0)),
        _ => Note::Answered(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn si_07_what_the_app_says_against_joining_is_found_in_the_clients_error() {
        for (text, expected) in [
            (r#"{"message":"no token"}"#, "no token"),
            (r#""Unable to connect""#, "Unable to connect"),
            ("[1]", "[1]"),
        ] {
            let payload = Payload::from(format!("{REFUSED}{text}"));
            let Some(Note::Refused(why)) = what_failed(&payload) else { panic!("{text}") };
            assert_eq!(why, expected);
        }
        let Some(Note::Lost(why)) = what_failed(&Payload::from("EngineIO Error")) else { panic!() };
        assert!(what_failed(&Payload::from("{}")).is_none());
        assert_eq!(why, "EngineIO Error");
    }

    #[test]
    fn the_arguments_of_an_acknowledgement_are_found() {
        for text in [r#"[{"ok":true}]"#, "[]", "[1,2]"] {
            let Note::Answered(value) = what_was_answered(Payload::from(text)) else { panic!() };
            assert_eq!(value.to_string(), text);
        }
    }
}
