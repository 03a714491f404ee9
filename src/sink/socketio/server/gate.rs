//! Who may connect: from which pages, and with which token or session.
//!
//! The events carry trades. A token is for tools, a session is for browsers: either lets a client
//! in. Where neither is configured everyone may, which the settings allow on loopback only, unless
//! told otherwise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN};
use tokio::sync::Semaphore;
use tracing::warn;

use super::Settings;
use super::packet;
use super::seldom::Seldom;
use crate::domain::position::Sha256;

/// How many answers of the session check are remembered.
const REMEMBERED: usize = 1024;

/// How many may be asked about at once: the app must not notice how many come here.
const ASKED_AT_ONCE: usize = 8;

/// What a client is told that has no right to be here.
const NOT_AUTHORISED: &str = "not authorised";

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has no right to be here, and is told this.
    Final(&'static str),
    /// Not now, for this reason. Standard clients give up when they are told no, and try again when the
    /// connection is closed.
    ForNow(&'static str),
}

const REFUSED: Refusal = Refusal::Final(NOT_AUTHORISED);

/// See the module.
pub(super) struct Gate {
    origins: Origins,
    /// The name that a request is for has to be one of this machine's own.
    own_names_only: bool,
    /// Of the token; compared by its hash, so that time tells nothing about it.
    token: Mutex<Option<Sha256>>,
    session_check: Option<SessionCheck>,
}

/// Which pages may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Those of the same origin, and these.
    Also(Vec<String>),
    /// All.
    Any,
}

/// Whether a page may connect, and what its browser is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may, and nothing has to be said.
    Silent,
    /// It may, said with this `Access-Control-Allow-Origin`.
    Said(HeaderValue),
    /// It may not.
    Refused,
}

/// Asks the app whether a session is one.
pub(super) struct SessionCheck {
    client: reqwest::Client,
    url: String,
    lasts: Duration,
    known: Mutex<HashMap<Sha256, (Instant, bool)>>,
    asking: Semaphore,
    told: Seldom,
}

impl Gate {
    /// # Errors
    /// Why the session check can't be set up.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        Ok(Self {
            origins: settings.origins.clone(),
            own_names_only: settings.listen.ip().is_loopback()
                && settings.auth_token.is_none()
                && settings.auth_url.is_none(),
            token: Mutex::new(hash(settings.auth_token.as_deref())),
            session_check: SessionCheck::of(settings)?,
        })
    }

    /// Another token lets clients in from now on. Who is in stays.
    pub(super) fn renew(&self, token: Option<&str>) {
        let mut known = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        // Without one, everybody might be let in, which was decided with the other settings.
        if known.is_some() && token.is_some() {
            *known = hash(token);
        }
    }

    fn token(&self) -> Option<Sha256> {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the name that a request is for may be answered to. Where nobody has to show anything,
    /// a name of somebody else's that leads to this machine would make their page one of the same
    /// origin.
    pub(super) fn host(&self, headers: &HeaderMap) -> bool {
        let Origins::Also(listed) = &self.origins else { return true };
        if !self.own_names_only {
            return true;
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| {
            let origin = format!("://{host}");
            is_own_name(host) || listed.iter().any(|listed| listed.ends_with(&origin))
        })
    }

    /// Whether the page that a request is from may connect. Programs name none.
    pub(super) fn page(&self, headers: &HeaderMap) -> Admission {
        let Some(origin) = headers.get(ORIGIN) else { return Admission::Silent };
        let named = origin.to_str().unwrap_or_default();
        match &self.origins {
            // Without credentials: a browser must not lend its cookies to any page.
            Origins::Any => Admission::Said(HeaderValue::from_static("*")),
            Origins::Also(_) if is_same_origin(named, headers) => Admission::Silent,
            Origins::Also(known) if known.iter().any(|known| known.eq_ignore_ascii_case(named)) => {
                Admission::Said(origin.clone())
            }
            Origins::Also(_) => Admission::Refused,
        }
    }

    /// Whether a request is from a page that may connect only because every page may.
    fn is_any_page(&self, headers: &HeaderMap) -> bool {
        let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        let foreign = origin.is_some_and(|origin| !is_same_origin(origin, headers));
        self.origins == Origins::Any && foreign
    }

    /// Whether a client may get events: `auth` is what it says about itself, `headers` are those
    /// of the request that it came with.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn client(&self, auth: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = self.token();
        if token.is_none() && self.session_check.is_none() {
            return Ok(());
        }
        if let Some(token) = token
            && packet::token(auth).is_some_and(|sent| Sha256::of(sent.as_bytes()) == token)
        {
            return Ok(());
        }
        match &self.session_check {
            // Browsers send cookies along with any page's websocket, whatever CORS says: the session
            // of a user counts for the app's own pages and the listed ones, not for every page.
            Some(check) if !self.is_any_page(headers) => check.ask(headers).await,
            _ => Err(REFUSED),
        }
    }
}

fn hash(token: Option<&str>) -> Option<Sha256> {
    token.map(|token| Sha256::of(token.as_bytes()))
}

/// `localhost` or an address, with or without a port.
fn is_own_name(host: &str) -> bool {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

/// The socket file in `unix:/path:/page`, and what to ask for there.
pub(super) fn socket_and_page(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("unix:")?;
    Some(rest.split_at(rest.find(":/")?)).map(|(socket, page)| (socket, &page[1..]))
}

/// A page of the server that it talks to: same host and port. A proxy may have changed the scheme.
fn is_same_origin(origin: &str, headers: &HeaderMap) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

impl SessionCheck {
    /// The one that the settings name, if they name one.
    ///
    /// # Errors
    /// Why it can't be set up.
    pub(super) fn of(settings: &Settings) -> Result<Option<Self>, String> {
        let Some(url) = settings.auth_url.clone() else { return Ok(None) };
        let builder = reqwest::Client::builder();
        let (builder, url) = match socket_and_page(&url) {
            Some((socket, page)) => {
                (builder.unix_socket(socket), format!("http://localhost{page}"))
            }
            None => (builder, url),
        };
        let client = builder
            .timeout(settings.auth_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent("openalgo-bridge")
            .build()
            .map_err(|error| error.to_string())?;
        let (known, asking) = (Mutex::default(), Semaphore::new(ASKED_AT_ONCE));
        let (lasts, told) = (settings.auth_cache, Seldom::default());
        Ok(Some(Self { client, url, lasts, known, asking, told }))
    }

    /// Whether someone would be let in who shows nothing. For those who are not in a runtime.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) fn ask_as_a_stranger(&self) -> Result<bool, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(self.request(Vec::new()))
    }

    /// Asks whether the session in a client's headers is a good one. A client without one is not
    /// asked about.
    async fn ask(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let shown: Vec<(HeaderName, HeaderValue)> = [COOKIE, AUTHORIZATION]
            .into_iter()
            .flat_map(|name| {
                headers.get_all(&name).iter().map(move |value| (name.clone(), value.clone()))
            })
            .collect();
        if shown.is_empty() {
            return Err(REFUSED);
        }
        let key = Sha256::of(&fingerprint(&shown));
        // Who waited may find that the same was asked meanwhile: a page has several connections.
        let _turn = if self.known(key).is_none() { self.asking.acquire().await.ok() } else { None };
        let admitted = if let Some(admitted) = self.known(key) {
            admitted
        } else {
            let admitted = self.request(shown).await.map_err(|why| {
                self.tell(&why);
                Refusal::ForNow("the session cannot be checked")
            })?;
            self.remember(key, admitted);
            admitted
        };
        if admitted { Ok(()) } else { Err(REFUSED) }
    }

    /// 2xx admits, 401, 403 and redirects (to a page for logging in) don't; the body is not read.
    async fn request(&self, shown: Vec<(HeaderName, HeaderValue)>) -> Result<bool, String> {
        let mut request = self.client.get(&self.url);
        for (name, value) in shown {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        match status.as_u16() {
            200..=299 => Ok(true),
            300..=399 | 401 | 403 => Ok(false),
            code => Err(format!("it answers {code}")),
        }
    }

    fn known(&self, key: Sha256) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&key).filter(|(until, _)| Instant::now() < *until).map(|(_, admitted)| *admitted)
    }

    fn remember(&self, key: Sha256, admitted: bool) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < REMEMBERED {
            known.insert(key, (now + self.lasts, admitted));
        }
    }

    fn tell(&self, why: &str) {
        if self.told.is_due(Instant::now()) {
            warn!(why, "SOCKETIO_AUTH_URL can't be asked: clients are not admitted");
        }
    }
}

fn fingerprint(shown: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in shown {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.push(b':');
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_and_its_page() {
        assert_eq!(socket_and_page("unix:/run/a.sock:/b:/c"), Some(("/run/a.sock", "/b:/c")));
        assert_eq!(socket_and_page("http://a:/b"), None);
    }

    #[test]
    fn another_token_replaces_one_and_never_makes_or_drops_the_need_for_one() {
        let gate = |token| Gate {
            origins: Origins::Also(Vec::new()),
            own_names_only: false,
            token: Mutex::new(hash(token)),
            session_check: None,
        };
        for (before, read, after) in [
            (Some("a"), Some("b"), Some("b")),
            (Some("a"), None, Some("a")),
            (None, Some("b"), None),
        ] {
            let gate = gate(before);
            gate.renew(read);
            assert_eq!(gate.token(), hash(after), "{before:?} {read:?}");
        }
    }

    #[test]
    fn names_of_this_machine() {
        for own in
            ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:5055", "[::1]", "[::1]:5055"]
        {
            assert!(is_own_name(own), "{own}");
        }
        for other in ["", ":5055", "a", "a:5055", "localhost.a", "127.0.0.1.a:1", "localhosT1"] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
