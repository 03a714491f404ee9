//! Socket.IO packets, protocol 5, as far as a server needs them that only sends events.
//!
//! <https://socket.io/docs/v4/socket-io-protocol/>. Here they are what an Engine.IO message holds:
//! a type digit, a namespace unless it is `/`, and JSON.

use serde_json::{Map, Value, json};

/// The namespace that events are on.
pub(super) const ROOT: &str = "/";

/// What a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    /// Wants to join a namespace; with the text of what it says about itself, empty if nothing.
    Connect {
        /// With its slash.
        namespace: &'a str,
        /// JSON, not looked at yet.
        auth: &'a str,
    },
    /// Leaves a namespace.
    Disconnect {
        /// With its slash.
        namespace: &'a str,
    },
    /// An event or an acknowledgement: nobody here listens to those.
    Other,
    /// No packet.
    Malformed,
}

/// Reads what a client sent.
pub(super) fn parse(text: &str) -> Received<'_> {
    let Some((kind, rest)) = text.split_at_checked(1) else { return Received::Malformed };
    match kind {
        "0" => {
            let (namespace, auth) = split_namespace(rest);
            Received::Connect { namespace, auth }
        }
        "1" => Received::Disconnect { namespace: split_namespace(rest).0 },
        "2" | "3" | "5" | "6" => Received::Other,
        _ => Received::Malformed,
    }
}

/// The namespace, without its query, and what follows.
fn split_namespace(rest: &str) -> (&str, &str) {
    if !rest.starts_with('/') {
        return (ROOT, rest);
    }
    let (name, rest) = rest.split_once(',').unwrap_or((rest, ""));
    (name.split_once('?').map_or(name, |(name, _)| name), rest)
}

/// The token in what a client says about itself.
pub(super) fn token(auth: &str) -> Option<String> {
    match serde_json::from_str::<Map<String, Value>>(auth).ok()?.remove("token")? {
        Value::String(token) => Some(token),
        _ => None,
    }
}

/// Tells a client that it is in.
pub(super) fn connected(session: &str) -> String {
    format!("0{}", json!({ "sid": session }))
}

/// Tells a client that it is not in.
pub(super) fn refused(namespace: &str, why: &str) -> String {
    let prefix = if namespace == ROOT { String::new() } else { format!("{namespace},") };
    format!("4{prefix}{}", json!({ "message": why }))
}

/// An event with one argument, whose text is passed on as it is.
pub(super) fn event(name: &[u8], argument: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len() + argument.len() + 8);
    text.extend_from_slice(b"2[");
    write_string(&mut text, name);
    text.push(b',');
    text.extend_from_slice(argument);
    text.push(b']');
    text
}

/// A JSON string. Names of events are short and plain, all but always.
fn write_string(text: &mut Vec<u8>, content: &[u8]) {
    let plain = |byte: &u8| *byte >= b' ' && !b"\"\\".contains(byte);
    if content.iter().all(plain) {
        text.push(b'"');
        text.extend_from_slice(content);
        text.push(b'"');
    } else {
        // What was decoded from UTF-8 is UTF-8.
        let content = String::from_utf8_lossy(content);
        text.extend_from_slice(Value::from(content).to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send() {
        let connect = |namespace, auth| Received::Connect { namespace, auth };
        for (text, expected) in [
            ("0", connect("/", "")),
            ("0{\"token\":\"x\"}", connect("/", "{\"token\":\"x\"}")),
            ("0/,{}", connect("/", "{}")),
            ("0/admin,{}", connect("/admin", "{}")),
            ("0/admin", connect("/admin", "")),
            ("0/admin?a=b,{}", connect("/admin", "{}")),
            ("1", Received::Disconnect { namespace: "/" }),
            ("1/admin,", Received::Disconnect { namespace: "/admin" }),
            ("2[\"x\"]", Received::Other),
            ("31[]", Received::Other),
            ("51-[\"x\",{\"_placeholder\":true,\"num\":0}]", Received::Other),
            ("", Received::Malformed),
            ("7", Received::Malformed),
            ("ä", Received::Malformed),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn tokens() {
        assert_eq!(token("{\"token\":\"a\\u0062\",\"x\":1}").as_deref(), Some("ab"));
        for none in ["", "{}", "{\"token\":1}", "[\"token\"]", "null", "{\"token\""] {
            assert_eq!(token(none), None, "{none}");
        }
    }

    #[test]
    fn an_event_carries_its_argument_as_it_is_written() {
        let data = br#"{"b":1e400,"a":"\ud800 \u20b9","a":01}"#;
        let text = event(b"order_event", data);
        assert_eq!(text, [b"2[\"order_event\",".as_slice(), data, b"]"].concat());
        assert_eq!(event("a\"\u{e4}\n".as_bytes(), b"{}"), "2[\"a\\\"ä\\n\",{}]".as_bytes());
    }

    #[test]
    fn answers() {
        assert_eq!(connected("abc"), r#"0{"sid":"abc"}"#);
        assert_eq!(refused("/", "no"), r#"4{"message":"no"}"#);
        assert_eq!(refused("/x", "no"), r#"4/x,{"message":"no"}"#);
    }
}
