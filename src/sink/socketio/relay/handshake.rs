//! The app's Engine.IO handshake, asked for before the connection: how large a packet it takes.
//!
//! `rust_socketio` drops that (`maxPayload`), and of an answer that is no handshake it keeps a code.
//! So one plain request goes ahead, as every polling client begins, and the session that it opens is
//! closed at once. It also shows what stands in the way, in words for those who can mend it.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::LOCATION;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::batch::shortened;
use super::link::Target;

/// How long the app may take to answer. Joining is tried without an answer, too.
const ASK: Duration = Duration::from_secs(4);

/// How long closing the session may take; one that stays open ends by itself.
const CLOSE: Duration = Duration::from_secs(1);

/// The longest answer that is read.
const ANSWER_MAX: usize = 64 << 10;

/// What the app sends when a session opens; the rest is of no interest.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Handshake {
    sid: String,
    /// The largest packet that it takes, in bytes.
    #[serde(rename = "maxPayload", default)]
    pub(super) max_payload: Option<u64>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoHandshake {
    /// The app can't be reached, over a websocket neither.
    Unreachable(String),
    /// Something answered, or nothing did in time; a websocket may do better.
    Odd(String),
}

use NoHandshake::{Odd, Unreachable};

/// Asks the app for its handshake.
pub(super) struct Asker {
    target: Target,
    /// Costly to make: with the authorities of the system, whether they are needed or not.
    client: OnceLock<Client>,
}

impl Asker {
    pub(super) fn new(target: Target) -> Self {
        Self { target, client: OnceLock::new() }
    }

    /// Asks for a handshake, and closes the session.
    ///
    /// # Errors
    /// Why there is none, for those who can mend it.
    pub(super) async fn ask(&self) -> Result<Handshake, NoHandshake> {
        let client = self.client().map_err(|error| Odd(causes(&error)))?;
        let url = url(&self.target).map_err(Unreachable)?;
        let answer = client.get(url.clone()).send().await;
        let answer = answer.map_err(|error| no_answer(&self.target, error))?;
        if !answer.status().is_success() {
            let moved = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
            return Err(Odd(what_an_answer_means(answer.status(), moved)));
        }
        let handshake = read(answer).await?;
        let mut session = url;
        session.query_pairs_mut().append_pair("sid", &handshake.sid);
        // Engine.IO's packet that closes. Behind a proxy it may reach another server: no matter.
        let _ = client.post(session).body("1").timeout(CLOSE).send().await;
        Ok(handshake)
    }

    fn client(&self) -> reqwest::Result<Client> {
        // Over TLS a new one: an authority that was added since counts without a restart.
        if matches!(&self.target, Target::Url(url) if url.starts_with("https:")) {
            return client_for(&self.target);
        }
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = client_for(&self.target)?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

fn client_for(target: &Target) -> reqwest::Result<Client> {
    let builder = Client::builder()
        .timeout(ASK)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        // Nothing of it outlives the question: see how `link` counts tasks.
        .pool_max_idle_per_host(0)
        .user_agent("openalgo-bridge");
    match target {
        Target::Url(_) => builder.build(),
        Target::Unix(path) => builder.unix_socket(path.clone()).build(),
    }
}

/// Where the question goes.
pub(super) fn address(target: &Target) -> String {
    url(target).map(String::from).unwrap_or_default()
}

/// Where sessions are opened: the same place as `rust_socketio` goes to.
fn url(target: &Target) -> Result<Url, String> {
    let base = match target {
        Target::Url(url) => url,
        Target::Unix(_) => "http://localhost",
    };
    let mut url = Url::parse(base).map_err(|error| error.to_string())?;
    if url.path() == "/" {
        url.set_path("/socket.io/");
    }
    url.query_pairs_mut().append_pair("EIO", "4").append_pair("transport", "polling");
    Ok(url)
}

async fn read(mut answer: reqwest::Response) -> Result<Handshake, NoHandshake> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| Odd(causes(&error)))? {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_MAX {
            break;
        }
    }
    handshake(&body).ok_or_else(|| Odd("what answers there is no Socket.IO server".to_owned()))
}

/// Of an answer with one packet or more, the first of which opens.
fn handshake(body: &[u8]) -> Option<Handshake> {
    let first = body.split(|byte| *byte == 0x1e).next()?;
    serde_json::from_slice(first.strip_prefix(b"0")?).ok()
}

fn no_answer(target: &Target, error: reqwest::Error) -> NoHandshake {
    let timed_out = error.is_timeout();
    let error = error.without_url();
    let text = causes(&error);
    match target {
        _ if timed_out => Odd(format!("no answer within {} s", ASK.as_secs())),
        Target::Url(_) => Unreachable(text),
        Target::Unix(path) => Unreachable(format!("{}: {text}", path.display())),
    }
}

/// What an answer means that is no handshake. Of a place that it leads to, only the host is told.
fn what_an_answer_means(status: StatusCode, moved: Option<&str>) -> String {
    let means = match status.as_u16() {
        300..=399 => {
            let place = moved.and_then(|place| Url::parse(place).ok());
            let place = place.map(|place| place.origin().ascii_serialization());
            format!(
                "it leads to {}; SOCKETIO_URL has to name the app itself",
                place.as_deref().map_or_else(|| "another page".to_owned(), shortened)
            )
        }
        401 | 403 | 407 => {
            "something there wants a login, which the bridge has none for; a proxy has \
                            to let /socket.io/ through"
                .to_owned()
        }
        404 => "there is no Socket.IO server at that place".to_owned(),
        502..=504 => "a proxy is there, and the app behind it is not".to_owned(),
        _ => return format!("the answer is {status}"),
    };
    format!("the answer is {status}: {means}")
}

/// What an error says, with what caused it, in words of ours where there are better ones.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors repeat their cause.
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    if text.contains("certificate verify failed") {
        // OpenSSL's own words for it stand in the brackets at the end.
        let (_, why) = text.rsplit_once('(').unwrap_or(("", "it says no more"));
        let why = why.trim_end_matches([')', ' ']);
        return shortened(&format!("the app's certificate is not accepted: {why}"));
    }
    for start in ["EngineIO Error: ", "error sending request: ", "client error (Connect): "] {
        text = text.strip_prefix(start).unwrap_or(&text).to_owned();
    }
    shortened(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn si_12_the_packet_limit_is_read_from_the_handshake() {
        let limit = |body: &str| handshake(body.as_bytes()).map(|shake| shake.max_payload);
        let full = r#"0{"sid":"x","upgrades":["websocket"],"pingTimeout":20000,"pingInterval":25000,"maxPayload":300000}"#;
        assert_eq!(limit(full), Some(Some(300_000)));
        assert_eq!(limit(&format!("{full}\u{1e}40")), Some(Some(300_000)));
        assert_eq!(limit(r#"0{"sid":"x"}"#), Some(None));
        for odd in ["", "0", "4{}", "<html>", "0{}", r#"0{"sid":"x","maxPayload":-1}"#, "0[]"] {
            assert_eq!(limit(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_question_goes_where_the_client_goes() {
        for (target, expected) in [
            ("http://app:5000", "http://app:5000/socket.io/?EIO=4&transport=polling"),
            ("https://app/", "https://app/socket.io/?EIO=4&transport=polling"),
            ("https://app/x/io/", "https://app/x/io/?EIO=4&transport=polling"),
        ] {
            assert_eq!(address(&Target::Url(target.to_owned())), expected);
        }
    }

    #[test]
    fn si_17_what_stands_in_the_way_is_told_in_words_and_without_secrets() {
        let moved = Some("https://login.example/in?token=CANARY");
        let text = what_an_answer_means(StatusCode::FOUND, moved);
        assert!(text.contains("302") && text.contains("https://login.example;"), "{text}");
        assert!(!text.contains("CANARY"), "{text}");
        let text = what_an_answer_means(StatusCode::MOVED_PERMANENTLY, Some("/CANARY"));
        assert!(text.contains("another page"), "{text}");
        for (code, expected) in
            [(401, "login"), (404, "no Socket.IO"), (502, "behind"), (418, "418")]
        {
            let text = what_an_answer_means(StatusCode::from_u16(code).unwrap(), None);
            assert!(text.contains(expected), "{text}");
        }
    }
}
