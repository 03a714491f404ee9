//! What Socket.IO needs to be told, and what `SOCKETIO_…` keys mean to each other.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::keys;
use super::problem::{MASK, Problem, Scope, Severity};
use super::settings::{self, Listen, problem};
use super::values::Values;

/// Names that no event can have (<https://socket.io/docs/v4/emit-cheatsheet/#reserved-events>).
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// How events reach their clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// The bridge is the server.
    Server,
    /// The app's own server hands them on.
    Relay,
}

/// Which pages may connect besides those of the same origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CorsOrigins {
    /// Every page.
    Any,
    /// These, as browsers name them: scheme, host and port without the default one.
    These(Vec<String>),
}

/// Where the app's own server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RelayUrl {
    /// `http(s)://…`. It may hold credentials by mistake.
    Http(Secret),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// What is for Socket.IO alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketIoSettings {
    /// `SOCKETIO_VIA`.
    pub via: Via,
    /// `SOCKETIO_LISTEN`; port 0: a free one.
    pub listen: SocketAddr,
    /// `SOCKETIO_PATH`.
    pub path: String,
    /// `SOCKETIO_CORS_ORIGINS`.
    pub cors_origins: CorsOrigins,
    /// `SOCKETIO_AUTH_TOKEN`.
    pub auth_token: Option<Secret>,
    /// `SOCKETIO_AUTH_URL`. It may hold credentials.
    pub auth_url: Option<Secret>,
    /// `SOCKETIO_AUTH_TIMEOUT_MS`.
    pub auth_timeout: Duration,
    /// `SOCKETIO_AUTH_CACHE_SECONDS`.
    pub auth_cache: Duration,
    /// `SOCKETIO_MAX_CLIENTS`.
    pub max_clients: usize,
    /// `SOCKETIO_CLIENT_TIMEOUT_MS`.
    pub client_timeout: Duration,
    /// `SOCKETIO_START_GRACE_MS`.
    pub start_grace: Duration,
    /// `SOCKETIO_MAX_EVENT_AGE_SECONDS`.
    pub max_event_age: Option<Duration>,
    /// `SOCKETIO_LIVE_PAGE`.
    pub live_page: bool,
    /// `SOCKETIO_URL`.
    pub url: RelayUrl,
    /// `SOCKETIO_NAMESPACE`.
    pub namespace: String,
    /// `SOCKETIO_ACK_TIMEOUT_MS`.
    pub ack_timeout: Duration,
    /// `SOCKETIO_BATCH_MAX_EVENTS`.
    pub batch_max_events: usize,
}

/// The settings; `None`: something is wrong, which is reported.
pub(super) fn build(values: &Values) -> Option<SocketIoSettings> {
    let millis = |name| values.number(name).map(Duration::from_millis);
    let seconds = |name| values.number(name).map(Duration::from_secs);
    let is_on = |name| values.get(name).map(|text| text == "true");
    Some(SocketIoSettings {
        via: via(values)?,
        listen: values.get("SOCKETIO_LISTEN")?.parse().ok()?,
        path: values.get("SOCKETIO_PATH")?,
        cors_origins: match cors_origins(values) {
            origins if origins == ["*"] => CorsOrigins::Any,
            origins => CorsOrigins::These(origins),
        },
        auth_token: values.get("SOCKETIO_AUTH_TOKEN").map(Secret),
        auth_url: values.get("SOCKETIO_AUTH_URL").map(Secret),
        auth_timeout: millis("SOCKETIO_AUTH_TIMEOUT_MS")?,
        auth_cache: seconds("SOCKETIO_AUTH_CACHE_SECONDS")?,
        max_clients: values.number("SOCKETIO_MAX_CLIENTS")?,
        client_timeout: millis("SOCKETIO_CLIENT_TIMEOUT_MS")?,
        start_grace: millis("SOCKETIO_START_GRACE_MS")?,
        max_event_age: seconds("SOCKETIO_MAX_EVENT_AGE_SECONDS")
            .map(|age| (!age.is_zero()).then_some(age))?,
        live_page: is_on("SOCKETIO_LIVE_PAGE")?,
        url: relay_url(values)?,
        namespace: values.get("SOCKETIO_NAMESPACE")?,
        ack_timeout: millis("SOCKETIO_ACK_TIMEOUT_MS")?,
        batch_max_events: values.number("SOCKETIO_BATCH_MAX_EVENTS")?,
    })
}

fn relay_url(values: &Values) -> Option<RelayUrl> {
    let url = values.get("SOCKETIO_URL")?;
    Some(match url.strip_prefix("unix:") {
        Some(path) => RelayUrl::Unix(path.into()),
        None => RelayUrl::Http(Secret(url)),
    })
}

fn via(values: &Values) -> Option<Via> {
    Some(if values.get("SOCKETIO_VIA")? == "relay" { Via::Relay } else { Via::Server })
}

/// Of each an empty one is left out, and the slash that people put behind an origin.
fn cors_origins(values: &Values) -> Vec<String> {
    let text = values.get("SOCKETIO_CORS_ORIGINS").unwrap_or_default();
    let origins = text.split(',').map(|origin| origin.trim().trim_end_matches('/'));
    origins.filter(|origin| !origin.is_empty()).map(str::to_owned).collect()
}

/// What keys mean to each other.
pub(super) fn check(values: &Values, problems: &mut Vec<Problem>) {
    let mut check = Check { values, problems };
    check.names();
    match via(values) {
        Some(Via::Server) => {
            check.ports();
            check.strangers();
            check.origins();
            check.path();
        }
        Some(Via::Relay) => {
            check.relay_url();
            check.namespace();
        }
        None => {}
    }
}

struct Check<'a> {
    values: &'a Values,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn error(&mut self, name: &str, why: String) {
        self.problems.push(problem(self.values, name, Scope::SocketIo, why));
    }

    /// Every client of Socket.IO takes these for its own and breaks off.
    fn names(&mut self) {
        let types = self.values.get("BRIDGE_EVENT_TYPES").unwrap_or_default();
        if let Some(name) = types.split(',').find(|name| RESERVED.contains(name)) {
            let why = format!("has {name}, a name that Socket.IO keeps for itself");
            self.error("BRIDGE_EVENT_TYPES", why);
        }
    }

    /// Two servers can't have one port.
    fn ports(&mut self) {
        let http = self.values.get("BRIDGE_HTTP_LISTEN").and_then(|text| settings::listen(&text));
        let (Some(Listen::Tcp(http)), Some(own)) = (http, self.listen()) else { return };
        if collide(http, own) {
            let why = format!(
                "has the port of BRIDGE_HTTP_LISTEN ({}): each needs one of its own",
                self.values.origin("BRIDGE_HTTP_LISTEN")
            );
            self.error("SOCKETIO_LISTEN", why);
        }
    }

    fn listen(&self) -> Option<SocketAddr> {
        self.values.get("SOCKETIO_LISTEN").and_then(|text| text.parse().ok())
    }

    /// The events carry trades: beyond this machine, nobody gets them without being asked who it is.
    fn strangers(&mut self) {
        let has_check = ["SOCKETIO_AUTH_TOKEN", "SOCKETIO_AUTH_URL"]
            .iter()
            .any(|name| self.values.was_given(name))
            || self.values.was_given(&keys::file_key("SOCKETIO_AUTH_TOKEN"));
        let allowed = self.values.get("SOCKETIO_ALLOW_UNAUTHENTICATED").as_deref() == Some("true");
        let Some(listen) = self.listen() else { return };
        if !listen.ip().is_loopback() && !has_check && !allowed {
            let why = "is beyond loopback, and neither SOCKETIO_AUTH_TOKEN nor SOCKETIO_AUTH_URL says who \
                       may read the events: set one of them, or SOCKETIO_ALLOW_UNAUTHENTICATED = 'true'";
            self.error("SOCKETIO_LISTEN", why.to_owned());
        } else if !listen.ip().is_loopback() && !has_check {
            let why = "lets everyone who can reach the port read the events".to_owned();
            let warning =
                problem(self.values, "SOCKETIO_ALLOW_UNAUTHENTICATED", Scope::SocketIo, why);
            self.problems.push(Problem { severity: Severity::Warning, ..warning });
        }
    }

    fn origins(&mut self) {
        let origins = cors_origins(self.values);
        let name = "SOCKETIO_CORS_ORIGINS";
        if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
            self.error(name, "has * among others: it is all origins or a list of them".to_owned());
        } else if let Some(odd) = origins.iter().position(|origin| !is_origin(origin)) {
            let why = format!(
                "is neither * nor a list of origins such as https://host:port: look at number {} of {}",
                odd + 1,
                origins.len()
            );
            self.error(name, why);
        }
    }

    fn relay_url(&mut self) {
        let Some(RelayUrl::Http(Secret(url))) = relay_url(self.values) else { return };
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let why = if authority.contains('@') {
            "has a user name, which is not sent: what shows the app who the bridge is is \
             SOCKETIO_AUTH_TOKEN"
        } else if rest.contains(['?', '#']) {
            "has a query, which is the Socket.IO client's own"
        } else if authority.starts_with(':') || has_odd_port(authority) {
            "is not http(s)://host:port"
        } else {
            return;
        };
        self.error("SOCKETIO_URL", why.to_owned());
    }

    /// `/` is the namespace of the app's own clients: nothing there says who may hand events in.
    fn namespace(&mut self) {
        let Some(namespace) = self.values.get("SOCKETIO_NAMESPACE") else { return };
        let why = if namespace.trim_matches('/').is_empty() {
            "is the namespace of the app's own clients: the relay needs one of its own"
        } else if namespace.contains([',', '?', '#', '"', '\\']) {
            "has a character that a namespace does not have"
        } else {
            return;
        };
        self.error("SOCKETIO_NAMESPACE", why.to_owned());
    }

    fn path(&mut self) {
        let Some(path) = self.values.get("SOCKETIO_PATH") else { return };
        if path.contains(['?', '#', '%', '"', '<']) {
            self.error(
                "SOCKETIO_PATH",
                "has a character that a path does not have as it is".to_owned(),
            );
        } else if (path == "/live" || path.starts_with("/live/"))
            && self.values.get("SOCKETIO_LIVE_PAGE").as_deref() == Some("true")
        {
            self.error(
                "SOCKETIO_PATH",
                "is where the live page is (SOCKETIO_LIVE_PAGE)".to_owned(),
            );
        }
    }
}

/// As browsers send it: nothing behind host and port.
fn is_origin(origin: &str) -> bool {
    if origin == "*" {
        return true;
    }
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', '*', ' ']))
}

/// Whether what follows the host is no port.
fn has_odd_port(authority: &str) -> bool {
    // An IPv6 address has colons, and brackets around it.
    let after_host = authority.rsplit(']').next().unwrap_or_default();
    after_host.split_once(':').is_some_and(|(_, port)| !matches!(port.parse::<u16>(), Ok(1..)))
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && overlap
}
